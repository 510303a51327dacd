//! Attention2D: exact self-attention over a grid of ranks, parallel over queries and over keys and values.
//!
//! Paper: *Attention2D: Communication Efficient Distributed Self-Attention Mechanism* (arXiv 2503.15758). P ranks form R×C; the ranks of a
//! row gather queries, those of a column keys and values, each computes one block of the scores, and the partial outputs of a row are
//! merged by their log-sum-exps. On a square grid a rank receives about 4·E/√P elements, E being those of the queries, where a ring of keys
//! and values brings 2·E whatever P is.
//!
//! | item | what it is |
//! |---|---|
//! | [`Collective`], [`Comm`] | what ranks say to each other, by threads ([`threads::run`]) or MPI (`mpi`, a feature); counted, checked on demand |
//! | [`Method`], [`Distributed`] | Attention2D in its variants, Ring (plain, zigzag), gathering keys and values, Ulysses: forward and backward |
//! | [`Grid`], [`Layout`], [`Mask`] | rows and columns, who has which token, which see which |
//! | [`Sequence`] | what a model needs to have its tokens dealt to ranks |
//! | [`volume()`], [`Plan`], [`simulate()`], [`Network`] | what every rank receives, exactly; which grid to take; what thousands of ranks would do |
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use tessera_attention2d::{Distributed, Grid, Mask, Method, Payload, Task, deal, threads};
//! use tessera_backend::{Rng, ops};
//!
//! // [batch, heads, tokens, head_dim]
//! let x: Tensor<4> = Rng::new(1, 0).normal_tensor([1, 2, 37, 8], &Device::flex());
//! let dense = ops::attention(x.clone(), x.clone(), x.clone(), ops::Mask::Causal);
//! threads::run(6, 1, |comm| {
//!     let attention = Distributed::new(&comm, Method::attention2d(Grid { rows: 2, cols: 3 }))?;
//!     let mine = attention.positions(37); // the tokens of this rank
//!     let share = deal(&x, &mine);
//!     let task = Task { tokens: 37, mask: Mask::causal(), payload: Payload::F32 };
//!     let forward = attention.forward(&task, [share.clone(), share.clone(), share])?;
//!     let error = (forward.out - deal(&dense, &mine)).abs().max().into_scalar::<f32>();
//!     assert!(error < 1e-5);
//!     Ok(())
//! })?;
//! # Ok::<(), tessera_attention2d::Error>(())
//! ```
//!
//! Out of scope: transports of our own, and anything about models but their tokens.
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
