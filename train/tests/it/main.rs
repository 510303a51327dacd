//! Integration tests of what training shares.
#![allow(clippy::unwrap_used)]

mod data;
mod frechet;
mod judge;
mod kill;
mod measured;
mod optimizer;
mod ranks;
mod resume;
mod toy;
mod weights;
