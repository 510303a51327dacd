//! The program from end to end, on a tiny model that it makes itself.

#![allow(clippy::unwrap_used)] // allowed in tests, but clippy does not see that helpers here are of tests

mod any_vae;
mod attn;
mod bench;
mod cut;
#[path = "../../../backend/tests/devices/mod.rs"]
#[allow(dead_code)]
mod devices;
mod dit;
mod faults;
mod features;
mod files;
mod fuzz;
mod limits;
mod model;
mod names;
mod old_files;
mod opening;
mod parity;
mod patches;
mod photographs;
mod route;
mod runs;
mod shell;
mod tokens;
mod weights;
mod world;
