//! A diffusion transformer over latents: tokenizer and model in one folder.
//!
//! ```text
//! model.json                          classes, picture size, how latents are normalized, sampling defaults
//! config.json, model.safetensors      the transformer
//! vae/                                the tokenizer
//! ```

use super::card::DitCard;
use super::parts;
use super::source::Source;
use crate::device::Device;
use crate::digest::base_name;
use crate::error::{Error, Result};
use crate::identity::digest_of;
use crate::vae::{open_vae, vae_of};
use ndarray::Array4;
use std::path::Path;
use tessera_backend::ComputePrecision;
use tessera_gen_dit::{CONFIG_FILE, Dit, DitConfig};
use tessera_pictures::Pixels;
use tessera_tokenizer::ImageTokenizer;
use tessera_weights::{WeightDtype, Weights};

/// A diffusion transformer in memory.
#[derive(Debug)]
pub struct DitModel {
    /// Names, sizes and defaults.
    pub card: DitCard,
    /// Pictures ↔ latents.
    pub tokenizer: Box<dyn ImageTokenizer>,
    /// Draws latents.
    pub transformer: Dit,
    /// What the transformer's weights are known by, where they were read from a file: 16 hexadecimal digits.
    pub digest: Option<String>,
    /// The data type of its linear maps.
    pub precision: ComputePrecision,
    /// Where it all is.
    pub device: Device,
}

impl DitModel {
    /// The model of a folder, whose card was read.
    pub(super) fn of_folder(
        folder: &Path,
        card: DitCard,
        source: Source<'_>,
        device: &Device,
    ) -> Result<Self> {
        if source.vae.is_none() {
            parts::require_vae(folder, &card.parts)?;
        }
        let tokenizer = vae_of(folder, source.vae.as_deref(), device)?;
        let weights = source.weights_of(folder)?;
        let digest = digest_of(&weights)?;
        if source.checkpoint.is_none() {
            parts::require_generator(&card.parts, &digest)?;
        }
        let config = DitConfig::load(folder)?;
        Self {
            digest: Some(digest),
            card,
            tokenizer,
            transformer: transformer(&config, weights, source, device)?,
            precision: ComputePrecision::F32,
            device: device.clone(),
        }
        .checked()
    }

    /// A checkpoint as its authors released it: the shapes tell its sizes, the source its tokenizer.
    pub(super) fn released(
        path: &Path,
        weights: Weights,
        source: Source<'_>,
        device: &Device,
    ) -> Result<Self> {
        let Some(vae) = &source.vae else {
            return Err(Error::NoTokenizer { path: path.into() });
        };
        let opened = open_vae(vae, None, device)?;
        let config = DitConfig::infer(&weights)?;
        Self {
            digest: Some(digest_of(&weights)?),
            card: DitCard::of_released(&base_name(path), &config, &opened),
            tokenizer: opened.tokenizer,
            transformer: transformer(&config, weights, source, device)?,
            precision: ComputePrecision::F32,
            device: device.clone(),
        }
        .checked()
    }

    /// Refuses parts that were not made for each other.
    fn checked(self) -> Result<Self> {
        let bad_mean = |mean: &&f32| !mean.is_finite();
        let bad_scale = |scale: &&f32| !(scale.is_finite() && **scale != 0.0);
        let (mean, scale) = (&self.card.latent_mean, &self.card.latent_scale);
        for (what, expected, found) in [
            (
                "latent_mean of the model",
                "finite numbers",
                mean.iter().find(bad_mean),
            ),
            (
                "latent_scale of the model",
                "finite numbers other than 0",
                scale.iter().find(bad_scale),
            ),
        ] {
            if let Some(found) = found {
                return Err(Error::Invalid {
                    what,
                    expected: expected.into(),
                    found: found.to_string(),
                });
            }
        }
        let (config, card) = (self.transformer.config(), &self.card);
        let channels = self.tokenizer.latent_channels();
        let side = card.img_size / self.tokenizer.downsampling();
        let checks = [
            ("input_size", side, config.input_size),
            ("in_channels", channels, config.in_channels),
            ("channels of latent_mean", channels, card.latent_mean.len()),
            (
                "channels of latent_scale",
                channels,
                card.latent_scale.len(),
            ),
            ("classes", card.class_names.len(), config.num_classes),
        ];
        for (what, expected, found) in checks {
            if expected != found {
                return Err(Error::Parts {
                    what,
                    expected: expected.to_string(),
                    found: found.to_string(),
                });
            }
        }
        Ok(self)
    }

    /// The same, the transformer's linear maps in a precision and in the order that is multiplied fastest: for
    /// generating. F32 changes no picture.
    ///
    /// # Errors
    /// When the device does not compute with it.
    pub fn in_precision(self, precision: ComputePrecision) -> Result<Self> {
        Ok(Self {
            transformer: self.device.in_precision(self.transformer, precision)?,
            precision,
            ..self
        })
    }

    /// Writes the model as a folder: all of it or nothing.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path, dtype: WeightDtype) -> Result<()> {
        parts::write(folder, self.card.clone().into(), |aside| {
            self.save_tokenizer(aside)?;
            Ok(self.transformer.save_dir(aside, dtype)?)
        })
    }

    /// Writes all of [`save`](Self::save) but the transformer's weights, which the checkpoints of a run hold until it
    /// ends. A model that is there whole stays.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn describe(&self, folder: &Path) -> Result<()> {
        parts::write_unfinished(folder, self.card.clone().into(), |aside| {
            self.save_tokenizer(aside)?;
            Ok(self
                .transformer
                .config()
                .clone()
                .without_targets()
                .save(aside)?)
        })
    }

    fn save_tokenizer(&self, folder: &Path) -> Result<()> {
        let folder = folder.join(parts::VAE);
        Ok(self.tokenizer.save_dir(&folder, WeightDtype::F32)?)
    }

    /// The latents `[images, channels, height, width]` of images `[images, channels, height, width]` in `[-1, 1]`,
    /// normalized as the transformer has them.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn encode(&self, images: Array4<f32>) -> Result<Array4<f32>> {
        Ok(self
            .card
            .normalize(self.device.encode(&*self.tokenizer, images)?))
    }

    /// The pictures of normalized latents `[images, channels, height, width]`.
    ///
    /// # Errors
    /// When a decoded value is not finite.
    pub fn decode(&self, latents: Array4<f32>) -> Result<Vec<Pixels>> {
        let images = self
            .device
            .decode(&*self.tokenizer, self.card.restore(latents))?;
        images
            .outer_iter()
            .map(|image| Ok(Pixels::from_array(image)?))
            .collect()
    }
}

/// The sizes of a transformer: from the config beside its weights, else from their shapes.
///
/// # Errors
/// When there is no config and the shapes do not tell, or the config is broken.
pub fn dit_config(path: &Path, weights: &Weights) -> Result<DitConfig> {
    let folder = match path.is_dir() {
        true => path,
        false => path.parent().unwrap_or(path),
    };
    Ok(match folder.join(CONFIG_FILE).is_file() {
        true => DitConfig::load(folder)?,
        false => DitConfig::infer(weights)?,
    })
}

/// The transformer of weights.
fn transformer(
    config: &DitConfig,
    weights: Weights,
    source: Source<'_>,
    device: &Device,
) -> Result<Dit> {
    let mut silent = |_| ();
    let progress = source.progress.unwrap_or(&mut silent);
    Ok(Dit::from_weights(config, weights, device.burn(), progress)?)
}
