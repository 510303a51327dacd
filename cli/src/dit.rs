//! A diffusion transformer as a user has it: tokenizer and model in one folder.
//!
//! ```text
//! model.json                          classes, picture size, how latents are normalised, sampling defaults
//! config.json, model.safetensors      the transformer
//! vae/                                the tokenizer
//! ```

use crate::bundle::{INFO_FILE, Source, save_info};
use crate::data::decoded;
use crate::hub;
use crate::progress::Progress;
use crate::sampling::{StepDone, in_batches};
use crate::tokenizer::base_name;
use crate::weights::takes_long;
use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use ndarray::{Array4, Axis};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tessera_gen_dit::{CONFIG_FILE, Dit, DitConfig, ImageRequest, SampleConfig};
use tessera_tokenizer::{
    ImageTokenizer, LatentScale, Opened, Pixels, load_tokenizer, open_tokenizer,
};
use tessera_train::{WeightDtype, Weights};

/// `(z − mean) · scale` of the autoencoder of Stable Diffusion, which released models were trained on (DiT's `train.py`).
const STABLE_DIFFUSION: LatentScale = LatentScale {
    mean: 0.0,
    scale: 0.18215,
};

/// `model.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {
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
    /// What `generate` does unless told otherwise.
    pub sampling: SampleConfig,
}

impl Info {
    /// The version of the file this program writes and reads.
    pub const SCHEMA: &str = "tessera.dit/v1";

    /// What there is to say of a released model: classes without names, and the authors' settings.
    pub fn of_released(name: &str, config: &DitConfig, vae: &Opened) -> Self {
        let scale = vae.latents.unwrap_or(STABLE_DIFFUSION);
        Self {
            schema: Self::SCHEMA.into(),
            name: name.into(),
            img_size: config.input_size * vae.tokenizer.downsampling(),
            class_names: (0..config.num_classes).map(|id| id.to_string()).collect(),
            latent_mean: vec![scale.mean; config.in_channels],
            latent_scale: vec![scale.scale; config.in_channels],
            sampling: SampleConfig {
                steps: 250,
                cfg_scale: 4.0,
            },
        }
    }

    /// Writes `model.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        save_info(folder, self)
    }

    /// Latents as the model has them.
    pub fn normalise(&self, mut latents: Array4<f32>) -> Array4<f32> {
        for (channel, mut values) in latents.axis_iter_mut(Axis(1)).enumerate() {
            let (mean, scale) = (self.latent_mean[channel], self.latent_scale[channel]);
            values.mapv_inplace(|value| (value - mean) * scale);
        }
        latents
    }

    /// The inverse.
    fn restore(&self, mut latents: Array4<f32>) -> Array4<f32> {
        for (channel, mut values) in latents.axis_iter_mut(Axis(1)).enumerate() {
            let (mean, scale) = (self.latent_mean[channel], self.latent_scale[channel]);
            values.mapv_inplace(|value| value / scale + mean);
        }
        latents
    }
}

/// A model in memory.
#[derive(Debug)]
pub struct DitBundle {
    pub info: Info,
    pub tokenizer: Box<dyn ImageTokenizer>,
    pub model: Dit,
}

/// Where the model of a path is, if it is a diffusion transformer's: the folder, or `model` in a run's folder, or a released
/// checkpoint.
///
/// # Errors
/// When there is no such file, or it cannot be read.
pub fn find(path: &Path) -> Result<Option<PathBuf>> {
    let path = hub::locate(path)?;
    for folder in [path.clone(), path.join("model")] {
        let info = folder.join(INFO_FILE);
        if info.is_file() {
            #[derive(Deserialize)]
            struct Schema {
                schema: String,
            }
            let text =
                std::fs::read(&info).with_context(|| format!("cannot read {}", info.display()))?;
            let found = serde_json::from_slice::<Schema>(&text);
            return Ok(found
                .is_ok_and(|info| info.schema == Info::SCHEMA)
                .then_some(folder));
        }
    }
    if !path.is_file() {
        return Ok(None);
    }
    let weights = Weights::read_model(&path, None)?;
    Ok(DitConfig::fits(&weights).then_some(path))
}

impl DitBundle {
    /// Opens what [`find`] found.
    ///
    /// # Errors
    /// When a file is missing or broken, or the parts do not fit each other.
    pub fn open(path: &Path, source: &Source<'_>, device: &Device) -> Result<Self> {
        let bundle = match path.is_dir() {
            true => Self::folder(path, source, device),
            false => Self::released(path, source, device),
        };
        bundle?
            .checked()
            .with_context(|| format!("in {}", path.display()))
    }

    fn folder(folder: &Path, source: &Source<'_>, device: &Device) -> Result<Self> {
        let info = read_info(folder)?;
        let tokenizer = match source.vae {
            Some(vae) => open_tokenizer(hub::locate(vae)?, None, device)?.tokenizer,
            None => load_tokenizer(folder.join("vae"), device)?,
        };
        let config = DitConfig::load(folder)?;
        let weights = Weights::read_model(folder, source.which)?;
        Ok(Self {
            info,
            tokenizer,
            model: model(&config, weights, source.quiet, device)?,
        })
    }

    /// A checkpoint as its authors released it: the shapes tell its sizes, `--vae` its tokenizer.
    fn released(path: &Path, source: &Source<'_>, device: &Device) -> Result<Self> {
        let Some(vae) = source.vae else {
            bail!("it is a diffusion transformer without a tokenizer: give one with --vae");
        };
        let opened = open_tokenizer(hub::locate(vae)?, None, device)?;
        let weights = Weights::read_model(path, source.which)?;
        let config = DitConfig::infer(&weights)?;
        let info = Info::of_released(&base_name(path), &config, &opened);
        Ok(Self {
            info,
            tokenizer: opened.tokenizer,
            model: model(&config, weights, source.quiet, device)?,
        })
    }

    /// Refuses parts that were not made for each other.
    fn checked(self) -> Result<Self> {
        let (config, tokenizer, info) = (self.model.config(), &self.tokenizer, &self.info);
        let channels = tokenizer.latent_channels();
        let checks = [
            (
                "input_size",
                info.img_size / tokenizer.downsampling(),
                config.input_size,
            ),
            ("in_channels", channels, config.in_channels),
            ("channels of latent_mean", channels, info.latent_mean.len()),
            (
                "channels of latent_scale",
                channels,
                info.latent_scale.len(),
            ),
            ("classes", info.class_names.len(), config.num_classes),
        ];
        for (what, expected, found) in checks {
            ensure!(
                expected == found,
                "the parts of the model do not fit: {what} should be {expected}, found {found}"
            );
        }
        Ok(self)
    }

    /// Writes the folder; `model.json` comes last.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path, dtype: WeightDtype) -> Result<()> {
        self.tokenizer
            .save_dir(&folder.join("vae"), WeightDtype::F32)?;
        self.model.save_dir(folder, dtype)?;
        self.info.save(folder)
    }

    /// The pictures of normalised latents.
    ///
    /// # Errors
    /// When a decoded value is not finite.
    pub fn decode(&self, latents: Array4<f32>) -> Result<Vec<Pixels>> {
        let images = decoded(&*self.tokenizer, self.info.restore(latents))?;
        images
            .outer_iter()
            .map(|image| Ok(Pixels::from_array(image)?))
            .collect()
    }

    /// Draws pictures, `batch_size` at a time, and hands every finished batch to `finished` with the number of its first.
    ///
    /// # Errors
    /// A value that is not finite, Ctrl-C, or what `finished` gives.
    pub fn draw(
        &self,
        requests: &[ImageRequest],
        sampling: &SampleConfig,
        batch_size: usize,
        quiet: bool,
        finished: impl FnMut(usize, Vec<Pixels>) -> Result<()>,
    ) -> Result<()> {
        let generate = |batch: &[ImageRequest], done: &mut StepDone<'_>| {
            let latents = self
                .model
                .generate(batch, sampling, &mut |step| done(step.step, step.steps));
            Ok(latents?)
        };
        let decode = |latents| self.decode(latents);
        in_batches(requests, batch_size, quiet, generate, decode, finished)
    }
}

/// Reads `model.json`.
///
/// # Errors
/// When it is missing or broken.
pub fn read_info(folder: &Path) -> Result<Info> {
    let path = folder.join(INFO_FILE);
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!(
            "{} is not the description of a diffusion transformer",
            path.display()
        )
    })
}

/// The sizes of a model: from the config beside its weights, else from their shapes.
///
/// # Errors
/// When there is no config and the shapes do not tell, or the config is broken.
pub fn config_of(path: &Path, weights: &Weights) -> Result<DitConfig> {
    let folder = if path.is_dir() {
        path
    } else {
        path.parent().unwrap_or(path)
    };
    Ok(match folder.join(CONFIG_FILE).is_file() {
        true => DitConfig::load(folder)?,
        false => DitConfig::infer(weights)?,
    })
}

/// The model of weights, with a bar where it takes long.
///
/// # Errors
/// When they do not fit the config.
pub fn model(config: &DitConfig, weights: Weights, quiet: bool, device: &Device) -> Result<Dit> {
    let quiet = quiet || !takes_long(&weights);
    let mut progress = Progress::new("load", "tensors", weights.len() as u64, quiet);
    let model = Dit::from_weights(config, weights, device, &mut |loaded| {
        progress.set(loaded.tensors as u64, "");
    })?;
    progress.finish();
    Ok(model)
}
