//! The TokenBridge generator: draws images as grids of tokens, each of whose dimensions is one of 2^bits levels.
//!
//! Paper: *Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation* (arXiv 2503.16430), section
//! 3.2. A masked transformer (MAR's, arXiv 2406.11838) turns the class and the tokens there are into one feature per
//! position; a small transformer, the head, predicts the dimensions of a token from its feature one after the other, each
//! from `levels` classes, where a joint vocabulary would have `levels^dims`.
//!
//! | item | what it is |
//! |---|---|
//! | [`GenArConfig`] | sizes and training choices, with the paper's three as presets |
//! | [`GenAr`] | the parameters; [`encode`](GenAr::encode) and [`decode`](GenAr::decode) are the backbone, [`head_logits`](GenAr::head_logits) and [`autoregress`](GenAr::autoregress) the head |
//! | [`GenAr::loss`], [`MaskPlan`] | one training step |
//! | [`Pass`], [`GenAr::calibrated`] | dropout and, with [`GenArConfig::moe`], the routes to the backbone's experts; their thresholds |
//! | [`GenAr::generate`], [`SampleConfig`] | the sampler |
//! | [`GenAr::load_dir`], [`GenAr::save_dir`] | `config.json` and `model.safetensors` |
//!
//! ```
//! use burn::tensor::Device;
//! use std::ops::ControlFlow;
//! use tessera_gen_ar::{GenArConfig, ImageRequest, SampleConfig, Tower};
//!
//! # fn main() -> tessera_gen_ar::Result<()> {
//! let small = Tower::new(16, 1, 2);
//! let config = GenArConfig::new([4, 4], 3, 8, [small; 3]);
//! let values = [-1.6, -0.9, -0.5, -0.2, 0.2, 0.5, 0.9, 1.6]; // what the quantiser's levels stand for
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
//! With [`GenArConfig::moe`] the backbone's blocks have Expert Race's experts (arXiv 2503.16057) in place of their MLPs; the
//! head, whose tokens come one dimension at a time, stays dense. In bf16 ([`tessera_backend::Precision`]) experts stay f32.
//!
//! Out of scope: latents and pixels (the tokenizer's and the quantiser's), the training loop (`tessera-train`'s).
#![forbid(unsafe_code)]
#![recursion_limit = "256"]

mod attention;
mod backbone;
mod block;
mod checkpoint;
mod config;
mod dropout;
mod error;
mod experts;
mod head;
mod infer;
#[cfg(feature = "train")]
mod loss;
mod model;
#[cfg(feature = "train")]
mod objective;
mod parts;
mod pass;
mod positions;
mod sampler;
mod schedule;

pub use attention::{Attention, CausalAttention, KvCache};
pub use block::{Block, ChannelBlock, Mlp};
pub use checkpoint::{BUFFERS, CONFIG_FILE, WEIGHTS_FILE};
pub use config::{FirstPosition, GenArConfig, Tower, default_channel_order};
pub use dropout::Dropout;
pub use error::{Error, Result};
pub use head::ChannelFinal;
#[cfg(feature = "train")]
pub use loss::MaskPlan;
pub use model::GenAr;
#[cfg(feature = "train")]
pub use objective::TokenObjective;
pub use parts::Parts;
pub use pass::Pass;
pub use positions::Positions;
pub use sampler::{CfgSchedule, Drawing, ImageRequest, Progress, SampleConfig, StepInfo};
pub use schedule::{ScheduleStep, schedule};
