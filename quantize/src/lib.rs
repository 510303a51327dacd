//! Post-training, dimension-wise quantization of continuous image latents.
//!
//! The latents of a tokenizer trained without quantization have nearly Gaussian dimensions. This crate maps each
//! dimension to one of 2^bits indices *after* training, and back. Paper: *Bridging Continuous and Discrete Tokens for
//! Autoregressive Visual Generation* (TokenBridge, arXiv 2503.16430). It also measures on data what a quantizer needs
//! to know, and its statistics: scale, clip rate, entropy of the indices, squared error, and the order of the
//! dimensions.
//!
//! | paper | function |
//! |---|---|
//! | section 3.1: bins of equal probability, their means | [`boundaries`] (to 9 bits), [`Table::gaussian`] |
//! | section 3.1: to the nearest level | [`Quantizer::quantize`], [`Table::index_of`] |
//! | section 3.1: and back | [`Quantizer::dequantize`], [`Quantizer::values`] |
//! | section 3.1, table 1b: 6 bits over ± 5 | [`QuantizerConfig::tokenbridge`] |
//! | section 3.1: one scale for all latents | [`Moments::latent_scale`], [`ScaleBy::Global`] |
//! | section 3.2: order by low-frequency energy | [`Calibration::order`] |
//! | beyond the paper: a scale per channel | [`ScaleBy::Channel`] |
//! | beyond the paper: the level of a distribution (Gaussian Quant) | [`Quantizer::quantize_posterior`] |
//! | beyond the paper: ten bits and more | [`Table`] |
//! | beyond the paper: bits where they matter | [`Calibration::allocate`], [`QuantizerConfig::channel_bits`] |
//!
//! ```
//! use ndarray::Array4;
//! use tessera_quantize::{CalibrationBuilder, MomentsBuilder, ScaleBy, Quantizer};
//!
//! # fn main() -> tessera_quantize::Result<()> {
//! let wave = |(b, c, h, w)| (c + 1) as f32 * ((7 * b + 5 * h + 3 * w) as f32).sin();
//! let latents = Array4::from_shape_fn((2, 3, 4, 4), wave);
//!
//! let mut moments = MomentsBuilder::new();
//! moments.add(latents.view())?;
//! let moments = moments.finish()?;
//! let config = moments.quantizer_config(6, 5.0, ScaleBy::Channel); // 6 bits over ± 5
//! let quantizer = Quantizer::new(config)?;
//!
//! let indices = quantizer.quantize(latents.view())?; // [2, 16, 3], each below 64
//! let restored = quantizer.dequantize(indices.view(), 4, 4)?; // [2, 3, 4, 4]
//! assert!((&restored - &latents).iter().all(|error| error.abs() < 0.1));
//!
//! let mut calibration = CalibrationBuilder::new(&moments, &quantizer)?;
//! calibration.add(latents.view())?;
//! assert_eq!(calibration.finish()?.clip_rate, 0.0);
//! # Ok(())
//! # }
//! ```
//!
//! API boundary: this crate is host code on `ndarray` and depends on no other crate of the workspace. It knows
//! neither images, models nor devices. Fitted (Lloyd-Max) tables, which lower the squared error by 2 % at six bits,
//! are out of scope.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod allocation;
mod calibration;
mod codes;
mod config;
mod error;
mod gaussian;
mod moments;
mod quantizer;
mod report;
mod search;
mod spectrum;
mod table;

pub use allocation::{Bits, MOST_MEASURED_BITS};
pub use calibration::{Calibration, Dimension, Width};
pub use codes::CalibrationBuilder;
pub use config::{QuantizerConfig, STD_RANGE, ScaleBy};
pub use error::{Error, Result};
pub use moments::{Moments, MomentsBuilder};
pub use quantizer::{LevelRule, Quantizer, narrow_u8, widen_u8};
pub use table::{Table, boundaries};
