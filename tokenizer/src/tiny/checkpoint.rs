//! A tiny autoencoder's weights by the names they go under, and its folder.

use super::config::TinyAutoencoderConfig;
use super::model::TinyAutoencoder;
use crate::image_tokenizer::ImageTokenizer;
use crate::vae::{CONFIG_FILE, WEIGHTS_FILE, save};
use crate::{Error, Result};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tessera_weights::{WeightDtype, Weights};

/// `config.json`: what tells the folder from a KL-VAE's, whose configuration has no `kind`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(super) enum ConfigFile {
    #[serde(rename = "tiny-autoencoder")]
    TinyAutoencoder(TinyAutoencoderConfig),
}

impl TinyAutoencoder {
    /// What `config.json` gives as `kind`.
    pub const KIND: &str = "tiny-autoencoder";

    /// The network of these weights, whose sizes follow from their shapes and names. The names are upstream's,
    /// `encoder.0.weight` and `decoder.1.weight`, or those of diffusers' `AutoencoderTiny`, which are translated.
    ///
    /// # Errors
    /// When a tensor is missing, unexpected or misshapen: it is named as upstream names it.
    pub fn from_weights(weights: Weights, device: &Device) -> Result<Self> {
        let weights = with_upstream_names(weights);
        with_weights(&config_of(&weights), &weights, device)
    }

    /// The weights of both halves from a file of each, as upstream publishes them: `0.weight`, ….
    pub fn merge(encoder: Weights, decoder: Weights) -> Weights {
        let mut merged = Weights::default();
        merged.insert_prefixed("encoder.", encoder);
        merged.insert_prefixed("decoder.", decoder);
        merged
    }

    /// Loads what [`save_dir`](Self::save_dir) wrote.
    ///
    /// # Errors
    /// When a file is missing or broken, or the two do not fit together.
    pub fn load_dir(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = folder.as_ref().join(CONFIG_FILE);
        let config = std::fs::read(&path).map_err(|source| Error::reading(&path, source))?;
        let config = parse(&path, &config)?;
        let weights = Weights::read(folder.as_ref().join(WEIGHTS_FILE))?;
        with_weights(&config, &weights, device)
    }

    /// Writes [`CONFIG_FILE`] and [`WEIGHTS_FILE`], under upstream's names, into a folder, which is made if need be.
    /// The bytes depend on the sizes and the weights alone.
    ///
    /// # Errors
    /// When a file cannot be written; the one that was there is then still whole.
    pub fn save_dir(&self, folder: impl AsRef<Path>, dtype: WeightDtype) -> Result<()> {
        save(
            folder.as_ref(),
            &self.config_json(),
            &Weights::of(self),
            dtype,
        )
    }
}

fn with_weights(
    config: &TinyAutoencoderConfig,
    weights: &Weights,
    device: &Device,
) -> Result<TinyAutoencoder> {
    // Parameters draw their initial value at first use, so this seed is never used.
    Ok(weights.apply(config.init(0, device)?)?)
}

fn parse(path: &Path, json: &[u8]) -> Result<TinyAutoencoderConfig> {
    let ConfigFile::TinyAutoencoder(config) =
        serde_json::from_slice(json).map_err(|source| Error::TokenizerConfigFile {
            path: path.into(),
            source,
        })?;
    Ok(config)
}

/// What the weights are of. Where they do not tell, any guess will do: they will not fit it.
fn config_of(weights: &Weights) -> TinyAutoencoderConfig {
    let axis = |name: &str, axis: usize| weights.get(name)?.shape().get(axis).copied();
    TinyAutoencoderConfig {
        latent_channels: axis("decoder.1.weight", 1)
            .or_else(|| axis("encoder.14.weight", 0))
            .unwrap_or(TinyAutoencoderConfig::taesd().latent_channels),
        pooled: weights.iter().any(|(name, _)| name.contains(".pool.")),
    }
}

/// Translates diffusers' names, `encoder.layers.0.weight`. Its decoder's sequence has no place for the clamp, which
/// comes before it, so that all others are one place further to the front.
fn with_upstream_names(mut weights: Weights) -> Weights {
    let numbered = |prefix: &str| {
        weights.iter().any(|(name, _)| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        })
    };
    let upstream = numbered("encoder.") || numbered("decoder.");
    let diffusers = numbered("encoder.layers.") || numbered("decoder.layers.");
    // Of a mixture nothing is translated: one tensor might take another's name, and none may be lost.
    if upstream || !diffusers {
        return weights;
    }
    let encoder = weights.take_prefix("encoder.layers.");
    weights.insert_prefixed("encoder.", encoder);
    let mut decoder = weights.take_prefix("decoder.layers.");
    for place in 0..TinyAutoencoderConfig::DECODER_PLACES - 1 {
        let layer = decoder.take_prefix(&format!("{place}."));
        weights.insert_prefixed(&format!("decoder.{}.", place + 1), layer);
    }
    weights.insert_prefixed("decoder.layers.", decoder);
    weights
}
