//! Tests of the readers.

#![allow(clippy::unwrap_used)] // allowed in tests, but clippy does not see that helpers here are of tests

mod containers;
mod formats;
mod fuzz;
#[path = "../make/mod.rs"]
mod make;
mod refusals;
mod torch;
