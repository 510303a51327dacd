//! Integration tests of what training shares.
#![allow(clippy::unwrap_used)]

mod buffers;
mod folder;
mod kill;
mod latents;
mod optimizer;
mod ranks;
mod resume;
mod rotation;
#[path = "../../../weights/tests/it/toy.rs"]
mod toy;
