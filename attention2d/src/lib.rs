//! Attention2D: exact self-attention over a grid of ranks, parallel over queries and over keys and values.
//!
//! Paper: *Attention2D: Communication Efficient Distributed Self-Attention Mechanism* (arXiv 2503.15758).
#![deny(unsafe_code)]

mod collective;
mod error;
mod grid;
mod method;
pub mod threads;

pub use collective::{Collective, Comm, Reduce, Traffic};
pub use error::{Error, Result};
pub use grid::Grid;
pub use method::{Keys, Merge, Method, Payload, Shape};
