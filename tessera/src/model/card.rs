//! `model.json`: what there is to say of a model beside its weights.

use super::run::{self, CARD_FILE, model_folder};
use crate::error::{Error, Result, read_json};
use crate::hub;
use crate::spread::quantizer_of;
use crate::square::Square;
use ndarray::{Array4, Axis};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use tessera_checkpoint::write_json;
use tessera_gen_ar::{CfgSchedule, GenArConfig, SampleConfig};
use tessera_gen_dit::DitConfig;
use tessera_quantize::QuantizerConfig;
use tessera_tokenizer::{LatentScale, Opened};

/// `(z − mean) · scale` of the autoencoder of Stable Diffusion, which released models were trained on (DiT's
/// `train.py`).
const STABLE_DIFFUSION: LatentScale = LatentScale {
    mean: Cow::Borrowed(&[0.0]),
    scale: Cow::Borrowed(&[0.18215]),
};

/// `model.json` of either kind of model.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ModelCard {
    /// Of an autoregressive model over tokens.
    Ar(ArCard),
    /// Of a diffusion transformer over latents.
    Dit(DitCard),
}

/// `model.json` of an autoregressive model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArCard {
    /// `tessera.model/v1`
    pub schema: String,
    /// What the model is called.
    pub name: String,
    /// Side in px of what the tokenizer works on.
    pub img_size: usize,
    /// Side in px of a finished picture: the center of that.
    pub picture_size: usize,
    /// The names of the classes, in the order of their ids.
    pub class_names: Vec<String>,
    /// How latents become tokens.
    pub quantizer: QuantizerConfig,
    /// Side of the squares of latents that are one token; 1 where the file says nothing.
    #[serde(default = "no_patch", skip_serializing_if = "is_no_patch")]
    pub patch_size: usize,
    /// How pictures are drawn unless told otherwise.
    pub sampling: SampleConfig,
    /// What the weights of the parts are known by, which belong together; empty in folders of before there was this.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, String>,
}

/// `model.json` of a diffusion transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DitCard {
    /// `tessera.dit/v1`
    pub schema: String,
    /// What the model is called.
    pub name: String,
    /// Side in px of the pictures.
    pub img_size: usize,
    /// The names of the classes, in the order of their ids.
    pub class_names: Vec<String>,
    /// Subtracted from the tokenizer's latents, per channel.
    pub latent_mean: Vec<f32>,
    /// Multiplied with after that, per channel.
    pub latent_scale: Vec<f32>,
    /// How pictures are drawn unless told otherwise.
    pub sampling: tessera_gen_dit::SampleConfig,
    /// What the weights of the parts are known by, which belong together; empty in folders of before there was this.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, String>,
}

/// The patch size of files that say nothing of it.
pub(crate) fn no_patch() -> usize {
    1
}

/// Whether a file need not say it, and older versions read the file.
pub(crate) fn is_no_patch(patch_size: &usize) -> bool {
    *patch_size == no_patch()
}

impl ModelCard {
    /// Reads the card of a model folder; its schema tells the kind.
    ///
    /// # Errors
    /// When it is missing, broken, or of a version that is not known.
    pub fn read(folder: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Schema {
            schema: String,
        }
        let path = folder.join(CARD_FILE);
        let Schema { schema } = read_json(&path, "a model description")?;
        match schema.as_str() {
            DitCard::SCHEMA => Ok(Self::Dit(read_json(
                &path,
                "the description of a diffusion transformer",
            )?)),
            ArCard::SCHEMA => Ok(Self::Ar(read_json(&path, "the description of a model")?)),
            _ => Err(Error::Format {
                path,
                what: "schema",
                expected: format!("{} or {}", ArCard::SCHEMA, DitCard::SCHEMA),
                found: schema,
            }),
        }
    }

    /// Reads the card of a model wherever it is, as [`Model::open`](crate::Model::open) takes it.
    ///
    /// # Errors
    /// As [`read`](Self::read), and for a run that has no model.
    pub fn of(path: &Path) -> Result<Self> {
        let path = hub::locate(path)?;
        if let Some(folder) = model_folder(&path) {
            return Self::read(&folder);
        }
        run::require_none(&path)?;
        match path.exists() {
            true => Err(Error::NoCard { path }),
            false => Err(Error::NoModel { path }),
        }
    }

    /// Writes it into a folder: whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        match self {
            Self::Ar(card) => card.save(folder),
            Self::Dit(card) => card.save(folder),
        }
    }

    /// What the weights of the parts are known by.
    pub(super) fn parts(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Ar(card) => &card.parts,
            Self::Dit(card) => &card.parts,
        }
    }

    /// The same, with what the weights of the parts are known by.
    pub(super) fn with_parts(mut self, parts: BTreeMap<String, String>) -> Self {
        match &mut self {
            Self::Ar(card) => card.parts = parts,
            Self::Dit(card) => card.parts = parts,
        }
        self
    }

    /// What the model is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Ar(card) => &card.name,
            Self::Dit(card) => &card.name,
        }
    }

    /// The names of the classes, in the order of their ids.
    pub fn class_names(&self) -> &[String] {
        match self {
            Self::Ar(card) => &card.class_names,
            Self::Dit(card) => &card.class_names,
        }
    }
}

impl ArCard {
    /// The version of the file.
    pub const SCHEMA: &str = "tessera.model/v1";

    /// The sizes that pictures are brought to and finished in.
    pub fn square(&self) -> Square {
        Square {
            img_size: self.img_size,
            picture_size: self.picture_size,
        }
    }

    /// The side of the patches of latents of so many channels that a generator's tokens are: 2 where they have four
    /// times as many dimensions, else 1.
    pub fn patch_size_of(config: &GenArConfig, channels: usize) -> usize {
        match config.token_embed_dim == 4 * channels {
            true => 2,
            false => no_patch(),
        }
    }

    /// What there is to say of a released generator: classes without names, and the authors' settings. The tokenizer is
    /// in the generator's patches ([`patch_size_of`](Self::patch_size_of)).
    pub fn of_released(name: &str, config: &GenArConfig, vae: &Opened) -> Self {
        let img_size = config.grid[0] * vae.tokenizer.downsampling();
        let scale = vae.latents.clone().unwrap_or(LatentScale::UNIT);
        Self {
            schema: Self::SCHEMA.into(),
            name: name.into(),
            img_size,
            picture_size: img_size,
            class_names: (0..config.class_num).map(|id| id.to_string()).collect(),
            quantizer: QuantizerConfig {
                bits: config.levels.trailing_zeros() as u8,
                ..quantizer_of(scale)
            },
            patch_size: vae.tokenizer.patch_size(),
            sampling: SampleConfig {
                steps: 64.min(config.seq()),
                cfg_scale: 3.1,
                cfg_schedule: CfgSchedule::Linear,
                temperature: 0.96,
                ..SampleConfig::default()
            },
            parts: BTreeMap::new(),
        }
    }

    /// Writes it into a folder: whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        Ok(write_json(&folder.join(CARD_FILE), self)?)
    }
}

impl DitCard {
    /// The version of the file.
    pub const SCHEMA: &str = "tessera.dit/v1";

    /// What there is to say of a released model: classes without names, and the authors' settings.
    pub fn of_released(name: &str, config: &DitConfig, vae: &Opened) -> Self {
        let scale = vae.latents.as_ref().unwrap_or(&STABLE_DIFFUSION);
        let of_each = |values: &[f32]| match values {
            [one] => vec![*one; config.in_channels],
            each => each.to_vec(),
        };
        Self {
            schema: Self::SCHEMA.into(),
            name: name.into(),
            img_size: config.input_size * vae.tokenizer.downsampling(),
            class_names: (0..config.num_classes).map(|id| id.to_string()).collect(),
            latent_mean: of_each(&scale.mean),
            latent_scale: of_each(&scale.scale),
            sampling: tessera_gen_dit::SampleConfig::new(250, 4.0),
            parts: BTreeMap::new(),
        }
    }

    /// Writes it into a folder: whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        Ok(write_json(&folder.join(CARD_FILE), self)?)
    }

    /// Latents `[images, channels, height, width]` of the tokenizer as the model has them: `(z − mean) · scale`.
    pub fn normalize(&self, mut latents: Array4<f32>) -> Array4<f32> {
        for (channel, mut values) in latents.axis_iter_mut(Axis(1)).enumerate() {
            let (mean, scale) = (self.latent_mean[channel], self.latent_scale[channel]);
            values.mapv_inplace(|value| (value - mean) * scale);
        }
        latents
    }

    /// The inverse of [`normalize`](Self::normalize).
    pub fn restore(&self, mut latents: Array4<f32>) -> Array4<f32> {
        for (channel, mut values) in latents.axis_iter_mut(Axis(1)).enumerate() {
            let (mean, scale) = (self.latent_mean[channel], self.latent_scale[channel]);
            values.mapv_inplace(|value| value / scale + mean);
        }
        latents
    }
}

impl From<ArCard> for ModelCard {
    fn from(card: ArCard) -> Self {
        Self::Ar(card)
    }
}

impl From<DitCard> for ModelCard {
    fn from(card: DitCard) -> Self {
        Self::Dit(card)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Device;
    use tessera_tokenizer::PixelTokenizer;

    #[test]
    fn a_released_model_is_normalized_by_the_statistics_that_its_tokenizer_comes_with() {
        let device = Device::parse("flex").unwrap();
        let config = DitConfig {
            in_channels: 3,
            ..DitConfig::xl_2()
        };
        let with = |latents| Opened {
            tokenizer: Box::new(PixelTokenizer::new(3, device.burn())),
            files: Vec::new(),
            latents,
        };
        let channels = LatentScale {
            mean: vec![1.0, 2.0, 3.0].into(),
            scale: vec![0.5, 0.25, 0.125].into(),
        };
        let card = |latents| DitCard::of_released("dit", &config, &with(latents));
        let each = card(Some(channels.clone()));
        assert_eq!(each.latent_mean, [1.0, 2.0, 3.0]);
        assert_eq!(each.latent_scale, [0.5, 0.25, 0.125]);
        assert_eq!(card(Some(LatentScale::KL16)).latent_scale, [0.2325; 3]);
        assert_eq!(card(None).latent_scale, [0.18215; 3], "Stable Diffusion's");
        let config = GenArConfig::tokenbridge_b();
        let quantizer = ArCard::of_released("ar", &config, &with(Some(channels))).quantizer;
        assert_eq!(quantizer.mean, [1.0, 2.0, 3.0]);
        assert_eq!(quantizer.scale, [0.5, 0.25, 0.125]);
    }
}
