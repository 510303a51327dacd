//! Attention2D: exact self-attention distributed over a grid of ranks, in parallel over queries and over keys and
//! values.
//!
//! Paper: *Attention2D: Communication Efficient Distributed Self-Attention Mechanism* (arXiv 2503.15758). P ranks form
//! an R×C grid. The ranks of a row gather queries, those of a column gather keys and values, each computes one block of
//! the scores, and the partial outputs of a row are merged by their log-sum-exps. On a square grid each rank receives
//! about 4/√P times the size of Q; with Ring Attention it is 2× the size of Q for any P.
//!
//! | algorithm of the paper | function |
//! |---|---|
//! | 1, forward pass without overlap | [`Distributed::forward`] → `gathered` in `methods/grid_attention.rs` |
//! | 2, AttnFix: merge of two softmax states (⊕) | `State::merge`, by row `merge_row`, in `methods/state.rs` |
//! | 3, backward pass | [`Distributed::backward`] → `backward` in `methods/grid_attention.rs`, derived from algorithm 1 |
//! | 4, forward pass with overlap | [`Distributed::forward`] → `overlapped` in `methods/overlap.rs` |
//! | 5, GthrCmpt: keys and values around the column | `gather_compute` in `methods/overlap.rs` |
//! | 6, GthrCmptSctr: queries and states around the row | `gather_compute_scatter` in `methods/overlap.rs` |
//! | 7, reduce-scatter of softmax states | `reduce_scatter` in `methods/reduce_scatter.rs`, `ring_reduce` in `methods/ring_pass.rs` |
//!
//! | item | purpose |
//! |---|---|
//! | [`Comm`], [`Collective`] | communication between ranks, over threads ([`threads::run`]) or MPI (feature `mpi`), with counters |
//! | [`Method`], [`Distributed`] | Attention2D and its variants, Ring Attention (plain, zigzag), gathered keys, Ulysses |
//! | [`Grid`], [`Layout`], [`Mask`] | rows and columns of ranks, which rank owns which tokens, which tokens see which |
//! | [`TokenSharding`] | runs the tokens of a model on many ranks |
//! | [`volume()`], [`Plan`], [`simulate()`], [`Network`] | bytes received by every rank, the best grid, thousands of simulated ranks |
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use tessera_attention2d::{Distributed, Grid, Mask, Method, Task, WireDtype, shard, threads};
//! use tessera_backend::{Rng, ops};
//!
//! // [batch, heads, tokens, head_dim]
//! let x: Tensor<4> = Rng::new(1, 0).normal_tensor([1, 2, 37, 8], &Device::flex());
//! let dense = ops::attention(x.clone(), x.clone(), x.clone(), ops::Mask::Causal);
//! threads::run(6, |comm| {
//!     let attention = Distributed::new(&comm, Method::attention2d(Grid { rows: 2, cols: 3 }))?;
//!     let positions = attention.positions(37); // of this rank's tokens
//!     let local = shard(&x, &positions);
//!     let task = Task { tokens: 37, mask: Mask::causal(), wire_dtype: WireDtype::F32 };
//!     let forward = attention.forward(&task, [local.clone(), local.clone(), local])?;
//!     let error = (forward.out - shard(&dense, &positions)).abs().max().into_scalar::<f32>();
//!     assert!(error < 1e-5);
//!     Ok(())
//! })?;
//! # Ok::<(), tessera_attention2d::Error>(())
//! ```
//!
//! **API boundary:** this crate knows tensors, tokens and ranks. It knows no model and no file, and never prints:
//! errors are returned, or handed to the function that `mpi::init` is given. Out of scope are transports other than
//! threads and MPI.
#![deny(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![warn(missing_docs)]

mod comm;
mod cost;
mod error;
mod methods;
pub mod units;

#[cfg(feature = "mpi")]
pub use comm::mpi;
pub use comm::threads;

pub use comm::collective::{Collective, Member, Peers, Reduce};
pub use comm::communicator::Comm;
pub use comm::threads::panic_message;
pub use comm::traffic::Traffic;
pub use cost::network::{Link, Network, Route};
pub use cost::plan::{Plan, Prediction, predict};
pub use cost::report::{FigureReport, PlanReport, Point, SweepReport, Watch};
pub use cost::schedule::Setting;
pub use cost::simulate::{Simulation, Spread, simulate};
pub use cost::volume::{Direction, Volume, messages, volume};
pub use error::{Error, Result};
pub use methods::distributed::Distributed;
pub use methods::grid::{Grid, Place};
pub use methods::grid_attention::GridAttention;
pub use methods::layout::Layout;
pub use methods::mask::Mask;
pub use methods::method::{Keys, Merge, Method};
pub use methods::ring::RingAttention;
pub use methods::shape::Shape;
pub use methods::sharding::{TokenSharding, Tokens};
pub use methods::task::{Forward, Saved, Task, shard};
pub use methods::ulysses::Ulysses;
pub use methods::wire::WireDtype;
