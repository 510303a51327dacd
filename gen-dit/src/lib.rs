//! Race-DiT: a diffusion transformer that draws latents of a class, dense or with Expert Race in every block.
//!
//! Papers: *Scalable Diffusion Models with Transformers* (DiT, arXiv 2212.09748), *Expert Race* (arXiv 2503.16057),
//! *Improved Denoising Diffusion Probabilistic Models* (arXiv 2102.09672), *Flow Straight and Fast* (rectified flow,
//! arXiv 2209.03003).
//!
//! | paper | function |
//! |---|---|
//! | DiT, figure 3: the transformer | [`patchify`], [`PatchEmbed`], [`DitBlock`], [`FinalLayer`] |
//! | DiT: one evaluation | [`Dit::forward`] |
//! | DiT, table 1; Expert Race, table 4: sizes | [`DitConfig`], parsed from names; [`DitConfig::parameters`] |
//! | Expert Race, section 4: routing | [`DitBlock::forward`] calls [`tessera_moe::Moe::forward`] |
//! | section 4: the threshold's update | computed in [`Dit::loss`], applied by `tessera-train` |
//! | section 4: the threshold at inference | [`Dit::generate`]; of averaged weights, [`Dit::calibrated`] |
//! | section 5, equations 9 to 11: similarity loss | [`Dit::loss`] calls [`tessera_moe::Auxiliary::of`] |
//! | section 6: per-layer regularization | [`Dit::loss`]; [`Dit::without_targets`] removes its heads |
//! | figures 6 and 7: routes | [`Dit::generate_traced`], [`Dit::route`] |
//! | Improved DDPM: chain, variance, bound | [`Ddpm`] |
//! | Rectified flow, Euler's method | [`Process::Flow`] in [`Dit::loss`] and [`Dit::generate`] |
//!
//! ```
//! use burn::tensor::Device;
//! use std::ops::ControlFlow;
//! use tessera_gen_dit::{DitConfig, ImageRequest, SampleConfig};
//!
//! # fn main() -> tessera_gen_dit::Result<()> {
//! let config = DitConfig {
//!     input_size: 8,
//!     hidden_size: 32,
//!     depth: 2,
//!     num_heads: 4,
//!     num_classes: 10,
//!     moe: Some("2-in-8".parse()?),
//!     ..DitConfig::xl_2()
//! };
//! let model = config.init(0, &Device::flex());
//! let request = ImageRequest { class: Some(7), seed: 1 };
//! let sampling = SampleConfig::new(5, 2.0);
//! let latents = model.generate(&[request], &sampling, &mut |_| ControlFlow::Continue(()))?;
//! assert_eq!(latents.dim(), (1, 4, 8, 8)); // images, channels, height, width
//! # Ok(())
//! # }
//! ```
//!
//! API boundary: this crate knows classes and normalized latents. It knows neither pictures nor tokenizers, nor the
//! training loop, which is `tessera-train`'s.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![recursion_limit = "256"]

mod block;
mod calibrate;
mod checkpoint;
mod config;
mod ddpm;
mod easy;
mod embed;
mod error;
mod flow;
mod infer;
#[cfg(feature = "train")]
mod loss;
mod model;
mod noise;
#[cfg(feature = "train")]
mod objective;
mod patch;
mod sampler;

pub use block::{DitBlock, FinalLayer};
pub use checkpoint::{CONFIG_FILE, WEIGHTS_FILE};
pub use config::{DitConfig, Process};
pub use ddpm::Ddpm;
pub use easy::EasyCache;
pub use embed::{LabelEmbedder, PatchEmbed, TimestepEmbedder};
pub use error::{Error, Result};
pub use model::{Dit, Parameters};
#[cfg(feature = "train")]
pub use objective::LatentObjective;
pub use patch::{patchify, unpatchify};
pub use sampler::{Denoising, DenoisingProgress, DenoisingStep, SampleConfig, TracedProgress};
pub use tessera_backend::ImageRequest;
