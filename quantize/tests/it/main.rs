//! Tests of the crate's public face, in one binary.

mod calibration;
mod fixtures;
mod noise;
mod parity;
mod properties;
mod reference;
mod refusals;
