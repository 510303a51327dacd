//! Tests of the diffusion transformer: against PyTorch, against the papers' tables, and of the properties it promises.

#![allow(clippy::unwrap_used)]

mod checkpoint;
mod config;
#[path = "../../../backend/tests/devices/mod.rs"]
#[allow(dead_code)]
mod devices;
mod loss;
mod parity;
mod patch;
mod ranks;
mod reference;
mod sampling;
mod schedule;
mod threshold;
mod tiny;
