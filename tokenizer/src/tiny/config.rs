//! What defines a tiny autoencoder's weights: the latents it shares with a larger one.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// What the members of the family differ in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TinyAutoencoderConfig {
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Whether the blocks at the lowest resolution have a branch that is normalized over the whole picture.
    pub pooled: bool,
}

/// More than any latents have; a damaged file may claim any number.
const MOST_LATENT_CHANNELS: usize = 4096;

impl TinyAutoencoderConfig {
    /// TAESD and TAESDXL: the latents of Stable Diffusion 1 and 2, and of XL.
    pub fn taesd() -> Self {
        Self {
            latent_channels: 4,
            pooled: false,
        }
    }

    /// TAESD3: the latents of Stable Diffusion 3.
    pub fn taesd3() -> Self {
        Self {
            latent_channels: 16,
            pooled: false,
        }
    }

    /// TAEF1: the latents of FLUX.1, as many as those of Stable Diffusion 3 and not the same.
    pub fn taef1() -> Self {
        Self::taesd3()
    }

    /// TAEF2: the latents of FLUX.2.
    pub fn taef2() -> Self {
        Self {
            latent_channels: 32,
            pooled: true,
        }
    }

    /// Whether these sizes describe a network.
    ///
    /// # Errors
    /// [`Error::TinyConfig`] names the field that does not fit, what it holds and what it must be.
    pub fn validate(&self) -> Result<()> {
        if (1..=MOST_LATENT_CHANNELS).contains(&self.latent_channels) {
            return Ok(());
        }
        Err(Error::TinyConfig {
            field: "latent_channels",
            expected: format!("1 to {MOST_LATENT_CHANNELS}"),
            found: self.latent_channels.to_string(),
        })
    }
}
