//! The TokenBridge generator: draws images as grids of tokens, each of whose dimensions is one of 2^bits levels.
//!
//! Paper: *Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation* (arXiv 2503.16430), section
//! 3.2. A masked transformer (MAR, arXiv 2406.11838) computes a feature per position from the class and the tokens
//! drawn so far. A small transformer, the head, predicts the dimensions of a token one after the other, each from
//! `levels` classes, where a joint vocabulary would have `levels^dims`.
//!
//! | paper | function |
//! |---|---|
//! | section 3.1: indices to values | [`GenAr::dequantize`]; `tessera-quantize` has the other way |
//! | section 3.2, MAR: encoder, decoder | [`GenAr::encode`], [`GenAr::decode`], both of [`Block`]s |
//! | section 3.2: prediction by dimension | [`GenAr::head_logits`] in training, of [`ChannelBlock`]s |
//! | section 3.2: the same, to sample | [`GenAr::autoregress`], with a [`KvCache`] |
//! | section 3.2: order of the dimensions | [`default_channel_order`]; measured by `tessera-quantize` |
//! | section 3.2: cross-entropy of masked tokens | [`GenAr::loss`], with a [`MaskPlan`] |
//! | MAR: cosine schedule, random orders | [`schedule()`], [`GenAr::generate`] |
//! | LazyMAR (arXiv 2503.12450): features of earlier steps | [`LazySchedule`], `lazy.rs` |
//! | GtR (arXiv 2510.17171), Halton (2503.17076): orders | [`Order`] |
//! | SCD (arXiv 2510.24211): the head from a guess | [`Decoding::Jacobi`] |
//! | MAR: guidance that grows over the steps | [`ScheduleStep::guidance`], [`CfgSchedule`] |
//! | table 4: sizes, training choices | [`GenArConfig::tokenbridge_l`] and others, [`GenArConfig::new`] |
//! | Expert Race: experts in the backbone | [`GenArConfig::moe`], [`ForwardContext`], [`GenAr::calibrated`] |
//!
//! ```
//! use burn::tensor::Device;
//! use std::ops::ControlFlow;
//! use tessera_gen_ar::{GenArConfig, ImageRequest, SampleConfig, TransformerConfig};
//!
//! # fn main() -> tessera_gen_ar::Result<()> {
//! let small = TransformerConfig { width: 16, depth: 1, heads: 2 };
//! let config = GenArConfig::new([4, 4], 3, 8, small, small); // 4 × 4 tokens of 3 dimensions with 8 levels
//! let values = [-1.6, -0.9, -0.5, -0.2, 0.2, 0.5, 0.9, 1.6]; // the quantizer's reconstruction values
//! let model = config.init(&values, 0, &Device::flex());
//!
//! let request = ImageRequest { class: Some(7), seed: 1 };
//! let sampling = SampleConfig { steps: 5, ..SampleConfig::default() };
//! let indices = model.generate(&[request], &sampling, &mut |_| ControlFlow::Continue(()))?;
//! assert_eq!(indices.dim(), (1, 16, 3)); // images, tokens, dimensions
//! # Ok(())
//! # }
//! ```
//!
//! Expert Race is arXiv 2503.16057, in the crate `tessera-moe`. The head stays dense in a model with experts. In bf16
//! ([`tessera_backend::ComputePrecision`]) experts stay f32.
//!
//! API boundary: this crate knows classes, indices and the values of levels. It knows neither latents nor pixels,
//! which are the quantizer's and the tokenizer's, nor the training loop, which is `tessera-train`'s.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![recursion_limit = "256"]

mod attention;
mod backbone;
mod block;
mod cache;
mod checkpoint;
mod config;
mod context;
mod dropout;
mod error;
mod flops;
mod head;
mod head_times;
mod infer;
mod lazy;
#[cfg(feature = "train")]
mod loss;
mod mask;
mod model;
#[cfg(feature = "train")]
mod objective;
mod order;
mod positions;
mod request;
mod sampler;
mod schedule;
mod stages;
mod thresholds;

pub use attention::{CausalAttention, KvCache};
pub use block::{Block, ChannelBlock, ChannelFinal};
pub use cache::{Cache, EasyThreshold, LazySchedule};
pub use checkpoint::{BUFFERS, CONFIG_FILE, WEIGHTS_FILE};
pub use config::{FirstPosition, GenArConfig, TransformerConfig, default_channel_order};
pub use context::ForwardContext;
pub use dropout::Dropout;
pub use error::{Error, Result};
pub use head::{ABSENT, Decoding, Drawn};
pub use mask::MaskPlan;
pub use model::GenAr;
#[cfg(feature = "train")]
pub use objective::TokenObjective;
pub use order::Order;
pub use positions::Positions;
pub use request::{
    CfgSchedule, ImageRequest, SampleConfig, SamplingPreset, SamplingProgress, SamplingStep,
};
pub use sampler::Drawing;
pub use schedule::{ScheduleStep, schedule};
pub use stages::StageBreakdown;
