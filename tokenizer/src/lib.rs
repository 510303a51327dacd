//! Takes images to continuous latents and back, and holds what that needs of pictures: reading, cropping, writing, comparing.
//!
//! There are two tokenizers, alike to what stands above them as [`ImageTokenizer`]s. [`KlVae`] is the KL-regularised
//! autoencoder of latent diffusion (Rombach et al. 2022, arXiv 2112.10752, section 3.1) with the 16-channel weights of MAR
//! (arXiv 2406.11838) that TokenBridge (arXiv 2503.16430, section 3.1) quantises, and can be trained here.
//! [`TinyAutoencoder`] reads the small networks that were distilled from the VAEs of large image models.
//! Pictures come in through [`read`], are cut by [`center_crop`] and become `[3, height, width]` arrays in `[-1, 1]` by
//! [`Pixels::to_array`]; they go out by [`Pixels::from_array`], whose rounding rule is the only one, and [`write_png`].
//! What is too large for memory goes through a tokenizer in [`tiles`].
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use tessera_tokenizer::KlVaeConfig;
//!
//! // Two levels of 8 and 16 channels, one residual block each, 4 latent channels: 16 px to 8 x 8 latents.
//! let config = KlVaeConfig::small(3, 16, 8, &[1, 2], 1, 4);
//! let vae = config.init(0, &Device::flex())?;
//! let images = Tensor::<4>::zeros([2, 3, 16, 16], &Device::flex());
//! let posterior = vae.encode(images);
//! let latents = posterior.sample(&[7, 8]); // one seed to an image
//! assert_eq!(latents.dims(), [2, 4, 8, 8]);
//! assert_eq!(vae.decode(latents).dims(), [2, 3, 16, 16]);
//! # Ok::<(), tessera_tokenizer::Error>(())
//! ```
//!
//! Out of scope: making tokens of the latents, which happens after the tokenizer is trained.
#![forbid(unsafe_code)]

mod batches;
mod container;
mod crop;
mod decoders;
mod error;
mod grid;
mod image_tokenizer;
mod init;
mod metadata;
mod metrics;
mod open;
mod orientation;
mod pixel;
mod pixels;
mod read;
mod resize;
mod ssim;
pub mod tiles;
pub mod tiny;
pub mod vae;
mod write;

pub use batches::{decode_within, encode_within};
pub use crop::center_crop;
pub use error::{Error, Result};
pub use grid::{GridStyle, difference, grid};
pub use image_tokenizer::{ImageTokenizer, load_tokenizer};
pub use metadata::read_metadata;
pub use metrics::{psnr, psnr_array};
pub use open::{LatentScale, Opened, open_tokenizer};
pub use pixel::PixelTokenizer;
pub use pixels::{Channels, Pixels};
pub use read::{decode, read};
pub use resize::{Filter, resize};
pub use ssim::ssim;
pub use tiles::{Tiling, decode_tiled, encode_tiled};
pub use tiny::{TinyAutoencoder, TinyAutoencoderConfig};
pub use vae::{KlVae, KlVaeConfig, Posterior, VaeLossConfig};
pub use write::write_png;
