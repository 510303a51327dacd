//! The program from end to end, on a tiny model that it makes itself.

#![allow(clippy::unwrap_used)] // allowed in tests, but clippy does not see that helpers here are of tests

mod attn;
mod bench;
mod dit;
mod faults;
mod files;
mod model;
mod photographs;
mod route;
mod tokens;
mod weights;
mod world;
