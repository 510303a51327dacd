//! Continuous image tokenizers: images to latents and back.
//!
//! There are three, all of them [`ImageTokenizer`]s to what stands above. [`KlVae`] is the KL-regularized autoencoder
//! of latent diffusion (Rombach et al. 2022, arXiv 2112.10752, section 3.1) with the 16-channel weights of MAR (arXiv
//! 2406.11838) that TokenBridge (arXiv 2503.16430, section 3.1) quantizes; it can be trained here. [`TinyAutoencoder`]
//! reads the small networks that were distilled from the VAEs of large image models. [`PixelTokenizer`] leaves pixels
//! as they are. [`Patched`] makes squares of any tokenizer's latents one latent each. [`open_tokenizer`] opens whatever
//! a user has of any of them. [`tiles`] works on pictures of any size, [`encode_within`] and [`decode_within`] in any
//! memory.
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
//! API boundary: images and latents. Pictures as files are `tessera-pictures`'s; discrete tokens, which are made of
//! latents after the tokenizer is trained, are `tessera-quantize`'s.
#![forbid(unsafe_code)]

mod batches;
mod error;
mod image_tokenizer;
mod init;
mod open;
mod patched;
mod pixel;
pub mod tiles;
pub mod tiny;
pub mod vae;

pub use batches::{decode_within, encode_moments_within, encode_within};
pub use error::{Error, Result};
pub use image_tokenizer::ImageTokenizer;
pub use open::{
    LATENTS_FILE, LatentScale, Opened, load_tokenizer, open_tokenizer, require_both_halves,
};
pub use patched::Patched;
pub use pixel::PixelTokenizer;
pub use tiles::{Tiling, decode_tiled, encode_tiled};
pub use tiny::{TinyAutoencoder, TinyAutoencoderConfig};
#[cfg(feature = "train")]
pub use vae::{Flip, ReconstructionObjective, VaeLossConfig};
pub use vae::{KlVae, KlVaeConfig, Posterior};
