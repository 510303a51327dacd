//! A model as a user has it: tokenizer, quantiser and generator in one folder, or built into the program.
//!
//! ```text
//! model.json                          what the parts are for: classes, picture size, quantiser, sampling defaults
//! config.json, model.safetensors      the generator
//! vae/config.json, model.safetensors  the tokenizer
//! calibration.json                    what was measured on the tokenizer's latents
//! judge/                              optional: a classifier that `tessera eval` judges pictures with
//! ```

use crate::data::decoded;
use crate::hub;
use crate::progress::Progress;
use crate::tokenizer::{base_name, quantizer_of};
use crate::weights::{generator_config, takes_long};
use anyhow::{Context, Result, bail};
use burn::module::Module;
use burn::tensor::Device;
use ndarray::{Array3, ArrayView3, s};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;
use tessera_backend::Precision;
use tessera_gen_ar::{CfgSchedule, GenAr, GenArConfig, SampleConfig};
use tessera_quantize::{Calibration, Quantizer, QuantizerConfig, Table};
use tessera_tokenizer::{
    ImageTokenizer, KlVae, LatentScale, Opened, Pixels, load_tokenizer, open_tokenizer,
};
use tessera_train::judge::Classifier;
use tessera_train::{WeightDtype, Weights, Which, write_atomically};

/// The file that makes a folder a model's.
pub const INFO_FILE: &str = "model.json";

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

    /// What there is to say of a released generator: classes without names, and the authors' settings.
    pub fn of_released(name: &str, config: &GenArConfig, vae: &Opened) -> Self {
        let img_size = config.grid[0] * vae.tokenizer.downsampling();
        let scale = vae.latents.unwrap_or(LatentScale::UNIT);
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
            sampling: SampleConfig {
                steps: 64.min(config.seq()),
                cfg_scale: 3.1,
                cfg_schedule: CfgSchedule::Linear,
                temperature: 0.96,
                ..SampleConfig::default()
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
}

/// Writes the description of a model of either kind.
///
/// # Errors
/// When it cannot be written.
pub fn save_info(folder: &Path, info: &impl Serialize) -> Result<()> {
    let info = serde_json::to_vec_pretty(info)?;
    Ok(write_atomically(&folder.join(INFO_FILE), |file| {
        file.write_all(&info)
    })?)
}

/// The generator of a file or folder, with a bar where it takes long.
fn generator(path: &Path, source: &Source<'_>, device: &Device) -> Result<GenAr> {
    let weights = Weights::read_model(path, source.which)?;
    let config = generator_config(path, &weights)?;
    let quiet = source.quiet || !takes_long(&weights);
    let mut progress = Progress::new("load", "tensors", weights.len() as u64, quiet);
    let generator = GenAr::from_weights_with(&config, weights, device, &mut |loaded| {
        progress.set(loaded.tensors as u64, "");
    })?;
    progress.finish();
    Ok(generator)
}

/// A model with its linear maps in a precision that its device knows.
///
/// # Errors
/// When it does not.
pub fn in_precision<M: Module>(model: M, precision: Precision, device: &Device) -> Result<M> {
    if !device.supports_dtype(precision.dtype()) {
        let kinds = [Precision::F32, Precision::F16, Precision::Bf16];
        let known = kinds.map(|kind| {
            device
                .supports_dtype(kind.dtype())
                .then(|| kind.to_string())
        });
        bail!(
            "--dtype {precision}: this device does not compute with it; expected {}, or another --device",
            known.into_iter().flatten().collect::<Vec<_>>().join(" or ")
        );
    }
    Ok(precision.apply(model))
}

/// The quantiser with the table that the generator was trained with.
fn quantizer(config: &QuantizerConfig, generator: &GenAr) -> Result<Quantizer> {
    let released = QuantizerConfig::default();
    let units = |config: &QuantizerConfig| (config.range, config.std_range);
    // In other units the table is the one that the generator's values were made from.
    if units(config) != units(&released) {
        return Ok(Quantizer::new(config.clone())?);
    }
    let table = Table::from_values(generator.reconstruction_values())?;
    Ok(Quantizer::with_table(config.clone(), table)?)
}

/// A model in memory.
#[derive(Debug)]
pub struct Bundle {
    pub info: Info,
    pub vae: Box<dyn ImageTokenizer>,
    pub quantizer: Quantizer,
    pub generator: GenAr,
    pub calibration: Option<Calibration>,
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

/// Where a model is, and which of its weights.
#[derive(Debug, Clone, Default)]
pub struct Source<'a> {
    /// A folder, a checkpoint, or a name in the hub's cache; the built-in model if `None`.
    pub model: Option<&'a Path>,
    /// The tokenizer of a checkpoint that comes without one; in place of its own for a folder.
    pub vae: Option<&'a Path>,
    /// Which weights of a training checkpoint.
    pub which: Option<Which>,
    /// No progress.
    pub quiet: bool,
}

impl Bundle {
    /// The same, the generator's linear maps in another precision.
    ///
    /// # Errors
    /// When the device does not know it.
    pub fn in_precision(mut self, precision: Precision) -> Result<Self> {
        self.generator = in_precision(self.generator, precision, &self.device)?;
        Ok(self)
    }

    /// The model in a folder, or the built-in one.
    ///
    /// # Errors
    /// When a file is missing or broken, or the parts do not fit each other.
    pub fn open(model: Option<&Path>, device: &Device) -> Result<Self> {
        let source = Source {
            model,
            quiet: true,
            ..Source::default()
        };
        Self::open_source(&source, device)
    }

    /// As [`open`](Self::open), also of a released checkpoint with a tokenizer beside it.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_source(source: &Source<'_>, device: &Device) -> Result<Self> {
        let Some(model) = source.model else {
            return Self::builtin(device);
        };
        let mut model = &hub::locate(model)?;
        // A run's folder holds its model.
        let inner = model.join("model");
        if !model.join(INFO_FILE).is_file() && inner.join(INFO_FILE).is_file() {
            model = &inner;
        }
        if !model.exists() {
            bail!("{}: no such model", model.display());
        }
        let bundle = match model.join(INFO_FILE).is_file() {
            true => Self::folder(model, source, device),
            false => Self::released(model, source, device),
        };
        bundle?
            .checked()
            .with_context(|| format!("in {}", model.display()))
    }

    fn folder(folder: &Path, source: &Source<'_>, device: &Device) -> Result<Self> {
        let judge = folder.join("judge");
        let calibration = folder.join("calibration.json");
        let info = read_info(folder)?;
        let generator = generator(folder, source, device)?;
        let vae = match source.vae {
            Some(vae) => open_tokenizer(hub::locate(vae)?, None, device)?.tokenizer,
            None => load_tokenizer(folder.join("vae"), device)?,
        };
        Ok(Self {
            vae,
            quantizer: quantizer(&info.quantizer, &generator)?,
            generator,
            calibration: calibration
                .is_file()
                .then(|| Calibration::load(&calibration))
                .transpose()?,
            judge: judge
                .is_dir()
                .then(|| Classifier::load_dir(&judge, device))
                .transpose()?,
            device: device.clone(),
            info,
        })
    }

    /// A checkpoint as its authors released it: the shapes tell its sizes, `--vae` its tokenizer.
    fn released(model: &Path, source: &Source<'_>, device: &Device) -> Result<Self> {
        let Some(vae) = source.vae else {
            bail!(
                "{}: has no {INFO_FILE}, so it is no model folder; if it is a released checkpoint, give its tokenizer with --vae",
                model.display()
            );
        };
        let opened = open_tokenizer(hub::locate(vae)?, None, device)?;
        let generator = generator(model, source, device)?;
        let info = Info::of_released(&base_name(model), generator.config(), &opened);
        Ok(Self {
            vae: opened.tokenizer,
            quantizer: quantizer(&info.quantizer, &generator)?,
            generator,
            calibration: None,
            judge: None,
            device: device.clone(),
            info,
        })
    }

    fn builtin(device: &Device) -> Result<Self> {
        let info: Info = serde_json::from_slice(builtin::INFO).context("built-in model.json")?;
        let generator = GenAr::from_bytes(builtin::CONFIG, builtin::WEIGHTS, device)?;
        Self {
            vae: Box::new(KlVae::from_bytes(
                builtin::VAE_CONFIG,
                builtin::VAE_WEIGHTS,
                device,
            )?),
            quantizer: quantizer(&info.quantizer, &generator)?,
            generator,
            calibration: Some(
                serde_json::from_slice(builtin::CALIBRATION)
                    .context("built-in calibration.json")?,
            ),
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
        let (generator, vae) = (self.generator.config(), &self.vae);
        let side = self.info.img_size / vae.downsampling();
        let checks = [
            ("grid", vec![side, side], generator.grid.to_vec()),
            (
                "dimensions per token",
                vec![vae.latent_channels()],
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
        self.vae.save_dir(&folder.join("vae"), dtype)?;
        if let Some(calibration) = &self.calibration {
            calibration.save(folder.join("calibration.json"))?;
        }
        self.generator.save_dir(folder, dtype)?;
        self.info.save(folder)
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
        let images = decoded(&*self.vae, latents)?;
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
    let path = folder.join(INFO_FILE);
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

#[cfg(test)]
#[path = "../../backend/tests/devices/mod.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod devices;

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Int, Tensor};
    use std::ops::ControlFlow;
    use tessera_backend::{device_indices, host_indices, transfers};
    use tessera_gen_ar::{FirstPosition, ImageRequest, Pass, Positions};

    /// The likeliest level of each dimension of every second token of `pictures`, given all before it, and the other
    /// tokens: what one choice is does not depend on the choices before, as it would in a picture drawn by each.
    fn likeliest(generator: &GenAr, pictures: &Array3<u16>, classes: &[Option<usize>]) -> Vec<i64> {
        let (images, seq, dims) = pictures.dim();
        let device = generator.device();
        let half =
            |parity: usize| Positions::new((0..images).map(|_| (parity..seq).step_by(2).collect()));
        let (visible, wanted) = (half(0), half(1));
        let indices = |positions: &Positions, order: &[usize]| {
            let token = |(image, position)| {
                order
                    .iter()
                    .map(move |&dim| pictures[[image, position, dim]])
            };
            let values: Vec<i32> = positions.iter().flat_map(token).map(i32::from).collect();
            let shape = [values.len() / dims, dims];
            let indices: Tensor<2, Int> = device_indices(values, shape, &device);
            indices
        };
        let natural: Vec<usize> = (0..dims).collect();
        let pass = &mut Pass::inference();
        let encoded = generator.encode(
            Some(generator.dequantize(indices(&visible, &natural))),
            &visible,
            classes,
            pass,
        );
        let z = generator.decode(encoded, &visible, &wanted, pass);
        let logits = generator.head_logits(
            z,
            indices(&wanted, &generator.config().channel_order),
            FirstPosition::Released,
            &mut pass.dropout,
        );
        host_indices(logits.argmax(2))
    }

    /// Pictures of the first classes.
    fn drawn(bundle: &Bundle, classes: usize) -> Array3<u16> {
        let request = |class| ImageRequest {
            class: Some(class),
            seed: 1,
        };
        let requests: Vec<_> = (0..classes).map(request).collect();
        let mut go_on = |_: tessera_gen_ar::StepInfo<'_>| ControlFlow::Continue(());
        let drawn = bundle
            .generator
            .generate(&requests, &bundle.info.sampling, &mut go_on);
        drawn.expect("the built-in model draws")
    }

    /// How many of a hundred agree, rounded down.
    fn percent<T: PartialEq>(found: &[T], expected: &[T]) -> usize {
        assert_eq!(found.len(), expected.len());
        let agree = found.iter().zip(expected).filter(|(a, b)| a == b).count();
        println!("{agree} of {} agree", expected.len());
        agree * 100 / expected.len()
    }

    #[test]
    fn the_likeliest_tokens_in_bf16_are_those_in_f32() {
        let device = Device::flex();
        let exact = Bundle::open(None, &device).expect("built in");
        let half = Bundle::open(None, &device).expect("built in");
        let half = half.in_precision(Precision::Bf16).expect("flex knows it");
        let classes: Vec<_> = (0..10).map(Some).collect();
        let pictures = drawn(&exact, 10);
        let choices = |bundle: &Bundle| likeliest(&bundle.generator, &pictures, &classes);
        let (exact, half) = (choices(&exact), choices(&half));
        assert!(percent(&half, &exact) >= 98);
        assert_ne!(half, exact, "bf16 was not computed in");
    }

    #[test]
    fn parity_of_the_likeliest_tokens_and_of_those_drawn() {
        let cpu = Bundle::open(None, &Device::flex()).expect("built in");
        let classes: Vec<_> = (0..10).map(Some).collect();
        let pictures = drawn(&cpu, 10);
        let choices = |bundle: &Bundle| likeliest(&bundle.generator, &pictures, &classes);
        let expected = choices(&cpu);
        for device in devices::devices() {
            let bundle = Bundle::open(None, &device).expect("built in");
            assert!(percent(&choices(&bundle), &expected) >= 99);
            let first = drawn(&bundle, 10);
            let [found, expected] =
                [&first, &pictures].map(|tokens| tokens.iter().copied().collect::<Vec<_>>());
            assert!(percent(&found, &expected) >= 99);
            if device.supports_dtype(DType::F16) {
                let half = bundle.in_precision(Precision::F16).expect("it is known");
                assert!(percent(&choices(&half), &choices(&cpu)) >= 98);
            }
        }
    }

    /// A GPU waits whenever something is read from it: a step reads what it has drawn, and whether it was finite, and no more.
    #[test]
    fn parity_of_what_crosses_between_host_and_device() {
        for device in devices::devices() {
            let bundle = Bundle::open(None, &device).expect("built in");
            let tokens = drawn(&bundle, 2);
            let before = transfers();
            let again = drawn(&bundle, 2);
            let after = transfers();
            assert_eq!(again, tokens, "the same again on {device:?}");
            let steps = bundle.info.sampling.steps as u64;
            assert_eq!(
                after.to_host - before.to_host,
                2 * steps,
                "reads of {steps} steps"
            );
            let decode = || bundle.decode(tokens.view());
            let before = transfers();
            decode().expect("what was drawn is decoded");
            let after = transfers();
            assert_eq!(
                [
                    after.to_device - before.to_device,
                    after.to_host - before.to_host
                ],
                [1, 1]
            );
        }
    }
}
