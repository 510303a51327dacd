//! Expert Race: a mixture of experts in which all tokens and all experts of a batch compete for compute.
//!
//! Paper: *Expert Race: A Flexible Routing Strategy for Scaling Diffusion Transformer with Mixture of Experts* (arXiv
//! 2503.16057). A router scores every expert for every token; the largest scores are selected. Token choice, expert
//! choice and Expert Race differ only in which scores are compared with each other ([`RoutingRule`]).
//!
//! | paper | function |
//! |---|---|
//! | section 4: logits `Z = Router(x)` | [`Router::forward`] |
//! | section 4, table 1: scores `S = A(Z)` | [`Gate::scores`] |
//! | section 4, figure 3: mask M, the top K of S | [`RoutingRule::select`], [`RoutingRule::racing`] |
//! | section 4: `y = Σ_e (S ⊙ M)_e FFN_e(x)` | [`Moe::forward`], [`Experts::forward`] |
//! | section 4: threshold, `M = [S ≥ τ]` | [`Experts::above`] on the device, [`RoutingMask::above`] |
//! | section 4: update, `τ ← m τ + (1 − m) cutoff` | [`Moe::next_threshold`], [`thresholds_after`] |
//! | section 4: τ for averaged weights | [`Calibration`], [`calibration_batches`] |
//! | section 5, equations 9 to 11: similarity loss | [`similarity_loss`] |
//! | section 5: Switch's balance loss | [`balance_loss`] |
//! | section 6, figure 12: per-layer regularization | [`Router::forward_with_target`], [`Auxiliary::of`] |
//! | table 2, figure 13: load balance | [`Usage::max_vio`], [`Usage::combination_usage`] |
//!
//! The threshold's update is computed here; `tessera-train` applies it after each step, to the model and to its
//! average. [`Moe::forward`] applies the threshold itself, in [`Mode::Inference`].
//!
//! ```
//! use burn::tensor::Device;
//! use tessera_backend::{Rng, init::ParamInit};
//! use tessera_moe::{Mode, Moe, MoeConfig, MoeWidths, RouterTrace, Usage};
//!
//! let config: MoeConfig = "2-in-8".parse()?; // an expert is half as wide as the dense MLP
//! let device = Device::flex();
//! let widths = MoeWidths { d_model: 32, hidden: 128, target: None };
//! let moe = Moe::init(&config, widths, &mut ParamInit::new(0, &device));
//! let mut trace = RouterTrace::new(Mode::Race);
//! let y = moe.forward(Rng::new(1, 0).normal_tensor([4, 16, 32], &device), &mut trace);
//! assert_eq!(y.dims(), [4, 16, 32]); // batch, seq, d_model
//! let usage = Usage::of(&trace.layers[0].mask);
//! assert_eq!(usage.mean_active(), 2.0); // 64 tokens share 128 assignments
//! # Ok::<(), tessera_moe::Error>(())
//! ```
//!
//! API boundary: this crate knows one layer and its losses. It knows neither the blocks around the layer, nor
//! diffusion, nor the training loop; `tessera-backend` is its only dependency within the workspace.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

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

pub use calibration::{Calibration, calibration_batches};
pub use config::MoeConfig;
pub use error::{Error, Result};
pub use experts::{ExpertLinear, Experts};
pub use gate::Gate;
pub use layer::{Moe, MoeWidths};
pub use losses::{Auxiliary, balance_loss, similarity_loss};
pub use race::{RacingAxes, RoutingMask, RoutingRule};
pub use router::Router;
pub use threshold::{threshold_name, thresholds_after};
pub use trace::{LayerTrace, Mode, RouterTrace};
pub use usage::Usage;
