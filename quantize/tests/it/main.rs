//! Tests of the crate's public face, in one binary.
#![allow(
    clippy::unwrap_used,
    reason = "a failed test panics, in its helpers as well"
)]

mod allocation;
mod calibration;
mod fixtures;
mod noise;
mod parity;
mod properties;
mod reference;
mod refusals;
