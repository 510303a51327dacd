//! An autoregressive model over tokens: tokenizer, quantizer and generator in one folder, or built in.
//!
//! ```text
//! model.json                          what the parts are for: classes, picture size, quantizer, sampling defaults
//! config.json, model.safetensors      the generator
//! vae/config.json, model.safetensors  the tokenizer
//! calibration.json                    what was measured on the tokenizer's latents
//! judge/                              optional: the classifier that pictures are evaluated with
//! ```

use super::builtin;
use super::card::ArCard;
use super::parts;
use super::source::Source;
use crate::device::Device;
use crate::digest::base_name;
use crate::error::{Error, Result};
use crate::identity::digest_of;
use crate::vae::{open_vae, vae_of};
use ndarray::{Array3, Array4, ArrayView3, s};
use std::path::Path;
use tessera_backend::ComputePrecision;
use tessera_checkpoint::Architecture;
use tessera_evaluate::Classifier;
use tessera_gen_ar::{CONFIG_FILE, GenAr, GenArConfig};
use tessera_pictures::Pixels;
use tessera_quantize::{Calibration, Quantizer, QuantizerConfig, Table};
use tessera_tokenizer::{ImageTokenizer, Patched, TinyAutoencoder};
use tessera_weights::{WeightDtype, Weights};

/// An autoregressive model in memory.
#[derive(Debug)]
pub struct ArModel {
    /// Names, sizes and defaults.
    pub card: ArCard,
    /// Pictures ↔ latents.
    pub vae: Box<dyn ImageTokenizer>,
    /// Latents ↔ tokens, with the table that the generator was trained with.
    pub quantizer: Quantizer,
    /// Draws tokens.
    pub generator: GenAr,
    /// What was measured on the tokenizer's latents.
    pub calibration: Option<Calibration>,
    /// What pictures of the model are evaluated with.
    pub classifier: Option<Classifier>,
    /// What the generator's weights are known by, where they were read from a file: 16 hexadecimal digits.
    pub digest: Option<String>,
    /// The data type of its linear maps.
    pub precision: ComputePrecision,
    /// Where it all is.
    pub device: Device,
}

impl ArModel {
    /// The model that is built in.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn builtin(device: &Device) -> Result<Self> {
        let burn = device.burn();
        let json = |what: &'static str| {
            move |source| Error::Json {
                what,
                path: "built-in model".into(),
                source,
            }
        };
        let card: ArCard =
            serde_json::from_slice(builtin::CARD).map_err(json("a model description"))?;
        let calibration =
            serde_json::from_slice(builtin::CALIBRATION).map_err(json("a calibration"))?;
        let config =
            serde_json::from_slice(builtin::CONFIG).map_err(json("a generator's config"))?;
        let weights = |bytes: &'static [u8]| Weights::read_bytes("built-in model", bytes);
        let generator_weights = weights(builtin::WEIGHTS)?;
        let digest = digest_of(&generator_weights)?;
        let generator = GenAr::from_weights(&config, generator_weights, burn)?;
        Self {
            digest: Some(digest),
            vae: Box::new(TinyAutoencoder::from_weights(
                weights(builtin::VAE_WEIGHTS)?,
                burn,
            )?),
            quantizer: quantizer(&card.quantizer, &generator)?,
            generator,
            calibration: Some(calibration),
            classifier: Some(Classifier::from_bytes(
                builtin::CLASSIFIER_CONFIG,
                builtin::CLASSIFIER_WEIGHTS,
                burn,
            )?),
            precision: ComputePrecision::F32,
            device: device.clone(),
            card,
        }
        .checked()
    }

    /// The model of a folder, whose card was read.
    pub(super) fn of_folder(
        folder: &Path,
        card: ArCard,
        source: Source<'_>,
        device: &Device,
    ) -> Result<Self> {
        let classifier = folder.join("judge");
        let calibration = folder.join("calibration.json");
        let vae = source.vae.clone();
        let whole = source.checkpoint.is_none();
        let (generator, digest) = generator(folder, source, device)?;
        if whole {
            parts::require_generator(&card.parts, &digest)?;
        }
        if vae.is_none() {
            parts::require_vae(folder, &card.parts)?;
        }
        let vae = Patched::over(vae_of(folder, vae.as_deref(), device)?, card.patch_size)?;
        Self {
            digest: Some(digest),
            vae,
            quantizer: quantizer(&card.quantizer, &generator)?,
            generator,
            calibration: calibration
                .is_file()
                .then(|| Calibration::load(&calibration))
                .transpose()?,
            classifier: classifier
                .is_dir()
                .then(|| Classifier::load_dir(&classifier, device.burn()))
                .transpose()?,
            precision: ComputePrecision::F32,
            device: device.clone(),
            card,
        }
        .checked()
    }

    /// A checkpoint as its authors released it: the shapes tell its sizes, the source its tokenizer.
    pub(super) fn released(model: &Path, source: Source<'_>, device: &Device) -> Result<Self> {
        let Some(vae) = &source.vae else {
            return Err(without_tokenizer(model, source));
        };
        let opened = open_vae(vae, None, device)?;
        let (generator, digest) = generator(model, source, device)?;
        let channels = opened.tokenizer.latent_channels();
        let opened = opened.patched(ArCard::patch_size_of(generator.config(), channels))?;
        let card = ArCard::of_released(&base_name(model), generator.config(), &opened);
        Self {
            digest: Some(digest),
            vae: opened.tokenizer,
            quantizer: quantizer(&card.quantizer, &generator)?,
            generator,
            calibration: None,
            classifier: None,
            precision: ComputePrecision::F32,
            device: device.clone(),
            card,
        }
        .checked()
    }

    /// Refuses parts that were not made for each other.
    fn checked(self) -> Result<Self> {
        let (img_size, picture_size) = (self.card.img_size, self.card.picture_size);
        if !(1..=img_size).contains(&picture_size) {
            return Err(Error::Invalid {
                what: "picture_size of the model",
                expected: format!("1 to its img_size, {img_size}"),
                found: picture_size.to_string(),
            });
        }
        let (generator, vae) = (self.generator.config(), &self.vae);
        let side = img_size / vae.downsampling();
        let latents = |channels: usize, [rows, columns]: [usize; 2]| {
            format!("{channels} x {rows} x {columns}")
        };
        let checks = [
            (
                "side of the pictures in px",
                match vae.check_image_size(img_size, img_size) {
                    Ok(()) => img_size.to_string(),
                    Err(_) => format!("a multiple of {}", vae.downsampling()),
                },
                img_size.to_string(),
            ),
            (
                "latents of the tokenizer (channels x rows x columns)",
                latents(vae.latent_channels(), [side, side]),
                latents(generator.token_embed_dim, generator.grid),
            ),
            (
                "levels",
                of_widths(self.quantizer.levels(), self.quantizer.channel_levels()),
                of_widths(generator.levels, generator.channel_levels.clone()),
            ),
            (
                "classes",
                self.card.class_names.len().to_string(),
                generator.class_num.to_string(),
            ),
        ];
        for (what, expected, found) in checks {
            if expected != found {
                return Err(Error::Parts {
                    what,
                    expected,
                    found,
                });
            }
        }
        Ok(self)
    }

    /// The same, the generator's linear maps in a precision and in the order that is multiplied fastest: for
    /// generating. F32 changes no picture.
    ///
    /// # Errors
    /// When the device does not compute with it.
    pub fn in_precision(self, precision: ComputePrecision) -> Result<Self> {
        Ok(Self {
            generator: self.device.in_precision(self.generator, precision)?,
            precision,
            ..self
        })
    }

    /// Writes the model as a folder: all of it or nothing. The classifier is not copied, and one that is there stays.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path, dtype: WeightDtype) -> Result<()> {
        parts::write(folder, self.card.clone().into(), |aside| {
            self.save_parts(aside, dtype)?;
            Ok(self.generator.save_dir(aside, dtype)?)
        })
    }

    /// Writes all of [`save`](Self::save) but the generator's weights, which the checkpoints of a run hold until it
    /// ends. A model that is there whole stays.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn describe(&self, folder: &Path, dtype: WeightDtype) -> Result<()> {
        parts::write_unfinished(folder, self.card.clone().into(), |aside| {
            self.save_parts(aside, dtype)?;
            Ok(self.generator.config().save(aside)?)
        })
    }

    fn save_parts(&self, folder: &Path, dtype: WeightDtype) -> Result<()> {
        self.vae
            .save_dir(&folder.join(parts::VAE), parts::of_tokenizer(dtype))?;
        if let Some(calibration) = &self.calibration {
            parts::save_calibration(calibration.clone(), folder, dtype)?;
        }
        Ok(())
    }

    /// The latents `[images, channels, height, width]` of images `[images, channels, img_size, img_size]` in `[-1, 1]`,
    /// with the `img_size` of the card. [`Tokenizer::prepare_pixels`](crate::Tokenizer::prepare_pixels) makes such
    /// images.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn encode(&self, images: Array4<f32>) -> Result<Array4<f32>> {
        self.device.encode(&*self.vae, images)
    }

    /// The tokens `[images, height·width, channels]` of images, as [`encode`](Self::encode) takes them.
    ///
    /// # Errors
    /// As `encode`; latents that are not finite.
    pub fn tokenize(&self, images: Array4<f32>) -> Result<Array3<u16>> {
        Ok(self.quantizer.quantize(self.encode(images)?.view())?)
    }

    /// The pictures of tokens `[images, height·width, channels]`, read as the generator's grid.
    ///
    /// # Errors
    /// When an index is no level, or a decoded value is not finite.
    pub fn decode(&self, indices: ArrayView3<'_, u16>) -> Result<Vec<Pixels>> {
        let [height, width] = self.generator.config().grid;
        self.decode_latents(self.quantizer.dequantize(indices, height, width)?)
    }

    /// The pictures of latents `[images, channels, height, width]`.
    ///
    /// # Errors
    /// When a decoded value is not finite.
    pub fn decode_latents(&self, latents: Array4<f32>) -> Result<Vec<Pixels>> {
        let images = self.device.decode(&*self.vae, latents)?;
        images
            .outer_iter()
            .map(|image| self.finish(image))
            .collect()
    }

    /// The finished picture of an image `[channels, height, width]` that the tokenizer works on: its center.
    ///
    /// # Errors
    /// When a value is not finite.
    pub fn finish(&self, image: ArrayView3<'_, f32>) -> Result<Pixels> {
        let margin = (self.card.img_size - self.card.picture_size) / 2;
        let inner = margin..margin + self.card.picture_size;
        Ok(Pixels::from_array(image.slice(s![
            ..,
            inner.clone(),
            inner
        ]))?)
    }
}

/// The sizes of a generator: from the config beside its weights, else from their shapes.
///
/// # Errors
/// When there is no config and the shapes do not tell, or the config is broken.
pub fn generator_config(path: &Path, weights: &Weights) -> Result<GenArConfig> {
    let folder = match path.is_dir() {
        true => path,
        false => path.parent().unwrap_or(Path::new("")),
    };
    Ok(match folder.join(CONFIG_FILE).is_file() {
        true => GenArConfig::load(folder)?,
        false => GenArConfig::infer(weights)?,
    })
}

/// What is wrong where no tokenizer was given: that, or there is no generator.
fn without_tokenizer(path: &Path, source: Source<'_>) -> Error {
    let weights = match Weights::read_model(path, source.which) {
        Ok(weights) => weights,
        Err(error) => return error.into(),
    };
    match Architecture::of_names(weights.iter().map(|(name, _)| name)) {
        None | Some(Architecture::TokenBridge | Architecture::Dit) => {
            Error::NoTokenizer { path: path.into() }
        }
        Some(other) => Error::Format {
            path: path.into(),
            what: "model",
            expected: "the folder of a model or a run, or the weights of a generator".into(),
            found: format!("weights of another kind: {}", other.name()),
        },
    }
}

/// The generator of a file or folder, and what its weights are known by.
fn generator(path: &Path, source: Source<'_>, device: &Device) -> Result<(GenAr, String)> {
    let weights = source.weights_of(path)?;
    let digest = digest_of(&weights)?;
    let config = generator_config(path, &weights)?;
    let progress = source.progress;
    let mut silent = |_| ();
    let generator = GenAr::from_weights_with(
        &config,
        weights,
        device.burn(),
        progress.unwrap_or(&mut silent),
    )?;
    Ok((generator, digest))
}

/// The quantizer with the table that the generator was trained with.
fn quantizer(config: &QuantizerConfig, generator: &GenAr) -> Result<Quantizer> {
    let released = QuantizerConfig::default();
    let units = |config: &QuantizerConfig| (config.range, config.std_range);
    // In other units the table is the one that the generator's values were made from.
    if units(config) != units(&released) {
        return Ok(Quantizer::new(config.clone())?);
    }
    let mut values = &generator.reconstruction_values()[..];
    let (widest, each) = (
        generator.config().levels,
        &generator.config().channel_levels,
    );
    let tables = levels_of(widest, each.clone()).into_iter().map(|levels| {
        let (table, rest) = values.split_at(levels);
        values = rest;
        Table::from_values(table.to_vec())
    });
    let tables = tables.collect::<Result<Vec<_>, _>>()?;
    // Of other widths than the card's, which is refused where the parts are compared.
    match tables.len() == config.channel_bits.len().max(1) {
        true => Ok(Quantizer::with_tables(config.clone(), tables)?),
        false => Ok(Quantizer::new(config.clone())?),
    }
}

/// [`levels_of`] in words: one number where all dimensions share it.
fn of_widths(widest: usize, each: Vec<usize>) -> String {
    match &levels_of(widest, each)[..] {
        [shared] => shared.to_string(),
        each => format!("{each:?}"),
    }
}

/// The levels of every dimension, or those that all share.
fn levels_of(widest: usize, each: Vec<usize>) -> Vec<usize> {
    match each.is_empty() {
        true => vec![widest],
        false => each,
    }
}
