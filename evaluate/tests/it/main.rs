//! Tests of the crate from outside, in one binary.
#![allow(clippy::unwrap_used)]

mod classifier;
#[path = "../../../backend/tests/devices/mod.rs"]
#[allow(dead_code)]
mod devices;
mod features;
mod frechet;
mod jacobi;
mod neighbors;
