//! Pixels as they are, for models that need no latents: the tokenizer that changes nothing.

use crate::image_tokenizer::ImageTokenizer;
use crate::vae::CONFIG_FILE;
use crate::{Error, Result};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use tessera_checkpoint::write_json;
use tessera_weights::{WeightDtype, Weights};

/// Images are their own latents.
#[derive(Debug, Clone)]
pub struct PixelTokenizer {
    channels: usize,
    device: Device,
}

/// Its `config.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PixelConfig {
    kind: String,
    channels: usize,
}

impl PixelTokenizer {
    /// What `config.json` calls it.
    pub const KIND: &str = "pixels";

    /// Of images with so many channels.
    pub fn new(channels: usize, device: &Device) -> Self {
        Self {
            channels,
            device: device.clone(),
        }
    }

    /// Reads what [`ImageTokenizer::save_dir`] wrote.
    ///
    /// # Errors
    /// When the file is missing or broken.
    pub fn load_dir(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = folder.as_ref().join(CONFIG_FILE);
        let json = std::fs::read(&path).map_err(|source| Error::reading(&path, source))?;
        match serde_json::from_slice::<PixelConfig>(&json) {
            Ok(PixelConfig { channels, .. }) if !matches!(channels, 1 | 3) => {
                Err(Error::PixelChannels {
                    path,
                    found: channels,
                })
            }
            Ok(config) => Ok(Self::new(config.channels, device)),
            Err(source) => Err(Error::TokenizerConfigFile { path, source }),
        }
    }
}

impl ImageTokenizer for PixelTokenizer {
    fn architecture(&self) -> &'static str {
        "pixels"
    }

    fn config_json(&self) -> Value {
        json!(PixelConfig {
            kind: Self::KIND.into(),
            channels: self.channels,
        })
    }

    fn weights(&self) -> Weights {
        Weights::default()
    }

    fn image_channels(&self) -> usize {
        self.channels
    }

    fn latent_channels(&self) -> usize {
        self.channels
    }

    fn downsampling(&self) -> usize {
        1
    }

    fn resolution(&self) -> Option<usize> {
        None
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn largest_tensor(&self, height_px: usize, width_px: usize) -> usize {
        self.channels * height_px * width_px
    }

    fn encode(&self, images: Tensor<4>) -> Tensor<4> {
        images
    }

    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        latents
    }

    fn save_dir(&self, folder: &Path, _: WeightDtype) -> Result<()> {
        Ok(write_json(&folder.join(CONFIG_FILE), &self.config_json())?)
    }
}
