//! Tests of the crate from outside, in one binary.
// The helpers are tests too, which the lint's own exception does not see.
#![allow(clippy::unwrap_used)]

mod builtin;
#[path = "../../../backend/tests/devices/mod.rs"]
#[allow(dead_code)]
mod devices;
mod found;
mod generate;
mod names;
mod routing;
