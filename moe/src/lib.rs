//! Expert Race: a mixture of experts in which tokens and experts compete together for compute.
//!
//! Paper: *Expert Race: A Flexible Routing Strategy for Scaling Diffusion Transformer with Mixture of Experts*
//! (arXiv 2503.16057). A router scores every expert for every token; scores race against each other and the best win. Which
//! of them race is all that tells token choice, expert choice and Expert Race apart ([`Rule`]).
//!
//! | item | what it is |
//! |---|---|
//! | [`Rule`], [`Winners`] | the six rules of figure 3: one race, its racers along other axes |
//! | [`MoeConfig`], [`Gate`] | k-in-E, the gating function, the threshold and the weights of the losses |
//! | [`Moe`] | the layer: router, experts, threshold (sections 4 and 6) |
//! | [`thresholds_after`], [`Calibration`] | the thresholds of all layers, in training and measured again |
//! | [`Trace`], [`Mode`] | how a forward pass routes, and what it did |
//! | [`similarity_loss`], [`balance_loss`] | section 5, equations 9 to 11, and Switch's loss for comparison |
//! | [`Usage`] | MaxVio, combination usage, mean active experts, share of tokens with none |
//!
//! ```
//! use burn::tensor::Device;
//! use tessera_backend::{Rng, init::Init};
//! use tessera_moe::{Mode, Moe, MoeConfig, Trace, Usage};
//!
//! let config: MoeConfig = "2-in-8".parse()?; // each expert has half of a dense MLP's width
//! let device = Device::flex();
//! let moe = Moe::init(&config, [32, 128], None, &mut Init::new(0, &device));
//! let mut trace = Trace::new(Mode::Race);
//! let y = moe.forward(Rng::new(1, 0).normal_tensor([4, 16, 32], &device), &mut trace);
//! assert_eq!(y.dims(), [4, 16, 32]); // batch, seq, d_model
//! let usage = Usage::of(&trace.layers[0].winners);
//! assert_eq!(usage.mean_active(), 2.0); // 64 tokens have 128 experts between them
//! # Ok::<(), tessera_moe::Error>(())
//! ```
//!
//! Out of scope: the blocks around the layer, and training loops.
#![forbid(unsafe_code)]

mod calibration;
mod config;
mod error;
mod experts;
mod gate;
mod layer;
mod losses;
mod race;
mod router;
mod threshold;
mod trace;
mod usage;

pub use calibration::calibration_batches;
pub use config::MoeConfig;
pub use error::{Error, Result};
pub use experts::{ExpertLinear, Experts};
pub use gate::Gate;
pub use layer::Moe;
pub use losses::{Auxiliary, balance_loss, similarity_loss};
pub use race::{Rule, Winners};
pub use router::Router;
pub use threshold::{Calibration, threshold_name, thresholds_after};
pub use trace::{LayerTrace, Mode, Trace};
pub use usage::Usage;
