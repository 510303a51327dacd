//! A model as a user has it: tokenizer, quantiser and generator in one folder, or built into the program.
//!
//! ```text
//! model.json                          what the parts are for: classes, picture size, quantiser, sampling defaults
//! config.json, model.safetensors      the generator
//! vae/config.json, model.safetensors  the tokenizer
//! calibration.json                    what was measured on the tokenizer's latents
//! judge/                              optional: a classifier that `tessera eval` judges pictures with
//! ```

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use ndarray::{Array3, ArrayView3, s};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tessera_gen_ar::{GenAr, SampleConfig};
use tessera_quantize::{Calibration, Quantizer, QuantizerConfig};
use tessera_tokenizer::{KlVae, Pixels};
use tessera_train::WeightDtype;
use tessera_train::judge::Classifier;

use crate::data::{download, upload};

/// `model.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {
    /// `tessera.model/v1`
    pub schema: String,
    /// What the model is called.
    pub name: String,
    /// Side in px of what the tokenizer works on.
    pub img_size: usize,
    /// Side in px of a finished picture: the centre of that.
    pub picture_size: usize,
    /// The names of the classes, in the order of their ids.
    pub class_names: Vec<String>,
    /// How latents become tokens.
    pub quantizer: QuantizerConfig,
    /// What `generate` does unless told otherwise.
    pub sampling: SampleConfig,
}

impl Info {
    /// The version of the file this program writes and reads.
    pub const SCHEMA: &str = "tessera.model/v1";
}

/// A model in memory.
#[derive(Debug)]
pub struct Bundle {
    pub info: Info,
    pub vae: KlVae,
    pub quantizer: Quantizer,
    pub generator: GenAr,
    pub calibration: Calibration,
    pub judge: Option<Classifier>,
    pub device: Device,
}

/// The model that is built in: its files, by their paths in the folder.
mod builtin {
    macro_rules! file {
        ($path:literal) => {
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../models/fashion/",
                $path
            ))
        };
    }
    pub const INFO: &[u8] = file!("model.json");
    pub const CONFIG: &[u8] = file!("config.json");
    pub const WEIGHTS: &[u8] = file!("model.safetensors");
    pub const VAE_CONFIG: &[u8] = file!("vae/config.json");
    pub const VAE_WEIGHTS: &[u8] = file!("vae/model.safetensors");
    pub const CALIBRATION: &[u8] = file!("calibration.json");
    pub const JUDGE_CONFIG: &[u8] = file!("judge/config.json");
    pub const JUDGE_WEIGHTS: &[u8] = file!("judge/model.safetensors");
}

impl Bundle {
    /// The model in `folder`, or the built-in one.
    ///
    /// # Errors
    /// When a file is missing or broken, or the parts do not fit each other.
    pub fn open(folder: Option<&Path>, device: &Device) -> Result<Self> {
        let Some(folder) = folder else {
            return Self::builtin(device);
        };
        if !folder.is_dir() {
            bail!(
                "{}: no such model folder (expected a folder with model.json)",
                folder.display()
            );
        }
        let judge = folder.join("judge");
        let info = read_info(folder)?;
        Self {
            vae: KlVae::load_dir(folder.join("vae"), device)?,
            quantizer: Quantizer::new(info.quantizer.clone())?,
            generator: GenAr::load_dir(folder, device)?,
            calibration: Calibration::load(folder.join("calibration.json"))?,
            judge: judge
                .is_dir()
                .then(|| Classifier::load_dir(&judge, device))
                .transpose()?,
            device: device.clone(),
            info,
        }
        .checked()
        .with_context(|| format!("in {}", folder.display()))
    }

    fn builtin(device: &Device) -> Result<Self> {
        let info: Info = serde_json::from_slice(builtin::INFO).context("built-in model.json")?;
        Self {
            vae: KlVae::from_bytes(builtin::VAE_CONFIG, builtin::VAE_WEIGHTS, device)?,
            quantizer: Quantizer::new(info.quantizer.clone())?,
            generator: GenAr::from_bytes(builtin::CONFIG, builtin::WEIGHTS, device)?,
            calibration: serde_json::from_slice(builtin::CALIBRATION)
                .context("built-in calibration.json")?,
            judge: Some(Classifier::from_bytes(
                builtin::JUDGE_CONFIG,
                builtin::JUDGE_WEIGHTS,
                device,
            )?),
            device: device.clone(),
            info,
        }
        .checked()
    }

    /// Refuses parts that were not made for each other.
    fn checked(self) -> Result<Self> {
        let (generator, vae) = (self.generator.config(), self.vae.config());
        let side = self.info.img_size / vae.downsampling();
        let checks = [
            ("grid", vec![side, side], generator.grid.to_vec()),
            (
                "dimensions per token",
                vec![vae.z_channels],
                vec![generator.token_embed_dim],
            ),
            (
                "levels",
                vec![self.quantizer.levels()],
                vec![generator.levels],
            ),
            (
                "classes",
                vec![self.info.class_names.len()],
                vec![generator.class_num],
            ),
        ];
        for (what, expected, found) in checks {
            if expected != found {
                bail!(
                    "the parts of the model do not fit: {what} should be {expected:?}, the generator has {found:?}"
                );
            }
        }
        Ok(self)
    }

    /// Writes everything but the judge.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path, dtype: WeightDtype) -> Result<()> {
        self.vae.save_dir(folder.join("vae"), dtype)?;
        self.calibration.save(folder.join("calibration.json"))?;
        self.generator.save_dir(folder, dtype)?;
        let info = serde_json::to_vec_pretty(&self.info)?;
        tessera_train::write_atomically(&folder.join("model.json"), |file| {
            std::io::Write::write_all(file, &info)
        })?;
        Ok(())
    }

    /// The pictures of token indices `[images, height·width, channels]`, read as the generator's grid.
    ///
    /// # Errors
    /// When an index is no level, or a decoded value is not finite.
    pub fn decode(&self, indices: ArrayView3<'_, u16>) -> Result<Vec<Pixels>> {
        let [height, width] = self.generator.config().grid;
        let latents = self.quantizer.dequantize(indices, height, width)?;
        self.decode_latents(latents)
    }

    /// The pictures of latents `[images, channels, height, width]`.
    ///
    /// # Errors
    /// When a decoded value is not finite.
    pub fn decode_latents(&self, latents: ndarray::Array4<f32>) -> Result<Vec<Pixels>> {
        let images = download(self.vae.decode(upload(latents, &self.device)));
        images
            .outer_iter()
            .map(|image| Ok(Pixels::from_array(self.finish(image.to_owned()).view())?))
            .collect()
    }

    /// The finished picture: the centre of what the tokenizer works on.
    pub fn finish(&self, image: Array3<f32>) -> Array3<f32> {
        let margin = (self.info.img_size - self.info.picture_size) / 2;
        let inner = margin..margin + self.info.picture_size;
        image.slice(s![.., inner.clone(), inner]).to_owned()
    }
}

/// Reads `model.json`.
///
/// # Errors
/// When it is missing or broken.
pub fn read_info(folder: &Path) -> Result<Info> {
    let path = folder.join("model.json");
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let info: Info = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a model description", path.display()))?;
    if info.schema != Info::SCHEMA {
        bail!(
            "{}: schema is {:?}, expected {:?}",
            path.display(),
            info.schema,
            Info::SCHEMA
        );
    }
    Ok(info)
}
