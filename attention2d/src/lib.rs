//! Attention2D: exact self-attention over a grid of ranks, parallel over queries and over keys and values.
//!
//! Paper: *Attention2D: Communication Efficient Distributed Self-Attention Mechanism* (arXiv 2503.15758).
#![deny(unsafe_code)]

mod attention;
mod collective;
mod error;
mod grid;
mod grid_attention;
mod layout;
mod mask;
mod method;
#[cfg(feature = "mpi")]
#[allow(unsafe_code)]
pub mod mpi;
mod network;
mod plan;
mod ring;
mod rows;
mod schedule;
mod sequence;
mod simulate;
mod state;
pub mod threads;
mod ulysses;
mod volume;

pub use attention::{Distributed, Forward, Saved, Task, deal};
pub use collective::{Collective, Comm, Reduce, Traffic};
pub use error::{Error, Result};
pub use grid::Grid;
pub use layout::Layout;
pub use mask::Mask;
pub use method::{Keys, Merge, Method, Payload, Shape};
pub use network::{Link, Network, Way};
pub use plan::{Plan, Prediction, predict};
pub use schedule::Setting;
pub use sequence::{Sequence, Tokens};
pub use simulate::{Simulation, Spread, simulate};
pub use threads::said;
pub use volume::{Pass, Volume, check, dealt, messages, volume};
