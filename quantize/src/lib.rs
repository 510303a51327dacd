//! Post-training, dimension-wise quantization of continuous image latents.
//!
//! A tokenizer trained without any quantization gives latents whose dimensions are close to Gaussian. This crate turns
//! each dimension into one of 2^bits indices *after* training, and back: paper *Bridging Continuous and Discrete Tokens
//! for Autoregressive Visual Generation* (TokenBridge, arXiv 2503.16430), section 3.1. It also measures on data what
//! such a quantizer needs to know and how well it does: the latents' scale, the clipping rate, the entropy of the
//! indices, and the order of the dimensions by low-frequency energy (section 3.2).
//!
//! | item | what it is |
//! |---|---|
//! | [`Table`] | the 2^bits reconstruction values, computed or from a checkpoint |
//! | [`Quantizer`] | latents `[batch, channels, height, width]` to indices `[batch, height · width, channels]` and back |
//! | [`MomentsBuilder`], [`CalibrationBuilder`] | two passes over a set of latents |
//! | [`Calibration`] | their result, kept as JSON |
//!
//! ```
//! use ndarray::Array4;
//! use tessera_quantize::{CalibrationBuilder, MomentsBuilder, ScaleBy, Quantizer};
//!
//! # fn main() -> tessera_quantize::Result<()> {
//! let latents = Array4::from_shape_fn((2, 3, 4, 4), |(b, c, h, w)| (c + 1) as f32 * ((7 * b + 5 * h + 3 * w) as
//! f32).sin());
//!
//! let mut moments = MomentsBuilder::new();
//! moments.add(latents.view())?;
//! let moments = moments.finish()?;
//! let quantizer = Quantizer::new(moments.quantizer_config(6, 5.0, ScaleBy::Channel))?;
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
//! Everything here is host code on `ndarray`; models and devices are out of its scope, and so are fitted (Lloyd-Max)
//! tables, which gain 2 % in squared error at six bits.
#![forbid(unsafe_code)]

mod calibration;
mod codes;
mod config;
mod error;
mod gaussian;
mod moments;
mod quantizer;
mod search;
mod spectrum;
mod table;

pub use calibration::{Calibration, Dimension};
pub use codes::CalibrationBuilder;
pub use config::{QuantizerConfig, STD_RANGE, ScaleBy};
pub use error::{Error, Result};
pub use moments::{Moments, MomentsBuilder};
pub use quantizer::{Quantizer, narrow_u8, widen_u8};
pub use table::{Table, boundaries};
