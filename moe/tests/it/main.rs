//! Tests of the experts: the races and the layer against naive references, and what the losses and measures promise.

#![allow(clippy::unwrap_used)]

mod calibration;
mod config;
mod layer;
mod losses;
mod naive;
mod race;
mod usage;
