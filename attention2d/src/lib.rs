//! Attention2D: exact self-attention over a grid of ranks, parallel over queries and over keys and values.
//!
//! Paper: *Attention2D: Communication Efficient Distributed Self-Attention Mechanism* (arXiv 2503.15758).
#![deny(unsafe_code)]

mod collective;
mod error;
mod grid;
mod method;
mod network;
mod plan;
mod schedule;
mod simulate;
pub mod threads;
mod volume;

pub use collective::{Collective, Comm, Reduce, Traffic};
pub use error::{Error, Result};
pub use grid::Grid;
pub use method::{Keys, Merge, Method, Payload, Shape};
pub use network::{Link, Network, Way};
pub use plan::{Plan, Prediction, predict};
pub use schedule::Setting;
pub use simulate::{Simulation, Spread, simulate};
pub use volume::{Pass, Volume, dealt, messages, volume};
