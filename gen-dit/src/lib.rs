//! Race-DiT: a diffusion transformer that draws latents of a class, dense or with racing experts in every block.
//!
//! Papers: *Scalable Diffusion Models with Transformers* (DiT, arXiv 2212.09748) for the transformer, *Expert Race*
//! (arXiv 2503.16057) for the experts in place of its MLPs, *Improved Denoising Diffusion Probabilistic Models*
//! (arXiv 2102.09672) and *Flow Straight and Fast* (rectified flow, arXiv 2209.03003) for what it is trained on.
//!
//! | item | what it is |
//! |---|---|
//! | [`DitConfig`] | sizes, experts and process, with the papers' models as presets |
//! | [`Dit`] | the parameters, under the names of DiT's released checkpoints; [`Dit::forward`] is one evaluation |
//! | [`Process`] | DDPM with 1,000 linear steps and a learned sigma, or rectified flow |
//! | [`Dit::loss`] | one training step |
//! | [`Dit::generate`], [`SampleConfig`] | respaced ancestral sampling, or Euler's method; classifier-free guidance |
//! | [`Dit::generate_traced`], [`Dit::route`] | the same with the routes of every step; the routes of given latents |
//! | [`Dit::calibrated`] | measures the thresholds of the experts again |
//! | [`Dit::load_dir`], [`Dit::save_dir`] | `config.json` and `model.safetensors` |
//!
//! ```
//! use burn::tensor::Device;
//! use std::ops::ControlFlow;
//! use tessera_gen_dit::{DitConfig, ImageRequest, SampleConfig};
//!
//! # fn main() -> tessera_gen_dit::Result<()> {
//! let config = DitConfig {
//!     input_size: 8,
//!     num_classes: 10,
//!     moe: Some("2-in-8".parse()?),
//!     ..DitConfig::sized(32, 2, 4, 2) // width, depth, heads, patch
//! };
//! let model = config.init(0, &Device::flex());
//! let request = ImageRequest { class: Some(7), seed: 1 };
//! let sampling = SampleConfig { steps: 5, cfg_scale: 2.0 };
//! let latents = model.generate(&[request], &sampling, &mut |_| ControlFlow::Continue(()))?;
//! assert_eq!(latents.dim(), (1, 4, 8, 8)); // images, channels, height, width
//! # Ok(())
//! # }
//! ```
//!
//! Out of scope: pictures and tokenizers (latents come normalised), the training loop (`tessera-train`'s).
#![forbid(unsafe_code)]
#![recursion_limit = "256"]

mod block;
mod calibrate;
mod checkpoint;
mod config;
mod ddpm;
mod embed;
mod error;
mod flow;
mod infer;
#[cfg(feature = "train")]
mod loss;
mod model;
#[cfg(feature = "train")]
mod objective;
mod patch;
mod sampler;

pub use block::{Attention, DitBlock, FinalLayer, Mlp};
pub use checkpoint::{CONFIG_FILE, WEIGHTS_FILE};
pub use config::{DitConfig, Process};
pub use ddpm::Ddpm;
pub use embed::{LabelEmbedder, PatchEmbed, TimestepEmbedder};
pub use error::{Error, Result};
pub use model::{Dit, Parameters};
#[cfg(feature = "train")]
pub use objective::LatentObjective;
pub use patch::{patchify, unpatchify};
pub use sampler::{
    Denoising, DenoisingProgress, DenoisingStep, ImageRequest, SampleConfig, TracedProgress,
};
