//! The KL-VAE as an image tokenizer: its latents are the means of the posteriors.

use super::model::KlVae;
use crate::error::Result;
use crate::image_tokenizer::{ImageTokenizer, only_device};
use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};
use std::path::Path;
use tessera_weights::{WeightDtype, Weights};

impl ImageTokenizer for KlVae {
    fn architecture(&self) -> &'static str {
        "KL-VAE"
    }

    fn config_json(&self) -> Value {
        json!(self.config())
    }

    fn weights(&self) -> Weights {
        Weights::of(self)
    }

    fn image_channels(&self) -> usize {
        self.config().in_channels
    }

    fn latent_channels(&self) -> usize {
        self.config().z_channels
    }

    fn downsampling(&self) -> usize {
        self.config().downsampling()
    }

    fn resolution(&self) -> Option<usize> {
        Some(self.config().resolution)
    }

    fn device(&self) -> Device {
        only_device(self)
    }

    fn largest_tensor(&self, height_px: usize, width_px: usize) -> usize {
        let (area, widths) = (height_px * width_px, self.config().widths());
        // On the way up a level is entered with the width of the one below; attention has a score for every pair of
        // latents.
        let at = |level: usize| {
            let below = widths.get(level + 1).copied().unwrap_or(0);
            widths[level].max(below) * (area >> (2 * level))
        };
        let latents = area >> (2 * (widths.len() - 1));
        let features = (0..widths.len()).map(at).max().unwrap_or(0);
        features.max(latents.saturating_mul(latents))
    }

    fn encode(&self, images: Tensor<4>) -> Tensor<4> {
        self.encode(images).mean
    }

    fn gives_distributions(&self) -> bool {
        true
    }

    fn encode_moments(&self, images: Tensor<4>) -> Tensor<4> {
        self.encode(images).moments()
    }

    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.decode(latents)
    }

    fn save_dir(&self, folder: &Path, dtype: WeightDtype) -> Result<()> {
        self.save_dir(folder, dtype)
    }
}
