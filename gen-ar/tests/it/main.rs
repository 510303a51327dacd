//! Tests of the generator: against the authors' implementation, and of the properties it promises.

#![allow(clippy::unwrap_used)]

mod cheaper;
mod checkpoint;
mod config;
#[path = "../../../backend/tests/devices/mod.rs"]
#[allow(dead_code)]
mod devices;
mod experts;
mod head;
mod loss;
mod parity;
mod ranks;
mod reference;
mod sampling;
mod schedule;
mod tiny;
