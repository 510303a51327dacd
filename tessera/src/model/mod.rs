//! Whatever draws pictures, opened from whatever a user has of it.

mod ar;
pub(crate) mod builtin;
mod card;
mod dit;
pub(crate) mod parts;
pub(crate) mod run;
pub(crate) mod source;

pub use ar::{ArModel, generator_config};
pub use card::{ArCard, DitCard, ModelCard};
pub(crate) use card::{is_no_patch, no_patch};
pub use dit::{DitModel, dit_config};
pub use parts::require_parts;
pub use run::{CARD_FILE, model_folder};
pub use source::Source;

use crate::class::class_id;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::hub;
use ndarray::{Array3, Array4, Axis};
use std::path::{Path, PathBuf};
use tessera_attention2d::TokenSharding;
use tessera_backend::ComputePrecision;
use tessera_gen_ar::{CfgSchedule, SampleConfig};
use tessera_gen_dit::DitConfig;
use tessera_pictures::{Channels, Pixels};
use tessera_weights::{WeightDtype, Weights};

/// A model in memory: the autoregressive model over tokens, or the diffusion transformer over latents.
#[allow(clippy::large_enum_variant)] // there is one of it
#[derive(Debug)]
pub enum Model {
    /// TokenBridge's kind.
    Ar(ArModel),
    /// DiT's kind, dense or with racing experts.
    Dit(DitModel),
}

impl Model {
    /// Opens a model: a model's folder, a run's folder, a released checkpoint (with [`Source::vae`]), or `org/name` in
    /// the hub's cache.
    ///
    /// ```no_run
    /// use tessera::{Device, Model, Source};
    ///
    /// let device = Device::parse("auto")?;
    /// let trained_here = Model::open("runs/ar/model", &device)?;
    /// let released = Model::open(Source::new("checkpoint-last.pth").vae("kl16.ckpt"), &device)?;
    /// # let _ = (trained_here, released);
    /// # Ok::<(), tessera::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a file is missing or broken, or the parts do not fit each other.
    pub fn open<'a>(source: impl Into<Source<'a>>, device: &Device) -> Result<Self> {
        let mut source = source.into();
        let Some(path) = &source.model else {
            return Self::builtin(device);
        };
        let path = hub::locate(path)?;
        let opened = match model_folder(&path) {
            Some(folder) => {
                source.at(run::checkpoint(&path, &folder, source.which)?, &folder);
                match ModelCard::read(&folder)? {
                    ModelCard::Ar(card) => {
                        ArModel::of_folder(&folder, card, source, device).map(Self::Ar)
                    }
                    ModelCard::Dit(card) => {
                        DitModel::of_folder(&folder, card, source, device).map(Self::Dit)
                    }
                }
            }
            None if path.exists() => {
                run::require_none(&path)?;
                Self::released(&path, source, device)
            }
            None => return Err(Error::NoModel { path }),
        };
        opened.map_err(|error| error.in_file(&path))
    }

    /// A checkpoint as its authors released it; the names of its tensors tell its kind.
    fn released(path: &Path, source: Source<'_>, device: &Device) -> Result<Self> {
        if path.is_file() {
            let weights = Weights::read_model(path, source.which)?;
            if DitConfig::fits(&weights) {
                return DitModel::released(path, weights, source, device).map(Self::Dit);
            }
        }
        ArModel::released(path, source, device).map(Self::Ar)
    }

    /// The model that is built in: photographs of clothes at 64 px.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn builtin(device: &Device) -> Result<Self> {
        ArModel::builtin(device).map(Self::Ar)
    }

    /// What the model is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Ar(model) => &model.card.name,
            Self::Dit(model) => &model.card.name,
        }
    }

    /// What the weights that it draws with are known by, where they were read from a file: 16 hexadecimal digits.
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::Ar(model) => model.digest.as_deref(),
            Self::Dit(model) => model.digest.as_deref(),
        }
    }

    /// The names of its classes, in the order of their ids.
    pub fn class_names(&self) -> &[String] {
        match self {
            Self::Ar(model) => &model.card.class_names,
            Self::Dit(model) => &model.card.class_names,
        }
    }

    /// The id of a class given by its name or its id.
    ///
    /// # Errors
    /// On an unknown class; the error lists the nearest names.
    pub fn class(&self, name: &str) -> Result<usize> {
        class_id(name, self.class_names())
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        match self {
            Self::Ar(model) => &model.device,
            Self::Dit(model) => &model.device,
        }
    }

    /// The data type of its linear maps.
    pub fn precision(&self) -> ComputePrecision {
        match self {
            Self::Ar(model) => model.precision,
            Self::Dit(model) => model.precision,
        }
    }

    /// How it draws unless told otherwise. Diffusion has constant guidance, and no logits that the other settings are
    /// of.
    pub fn sampling(&self) -> SampleConfig {
        match self {
            Self::Ar(model) => model.card.sampling.clone(),
            Self::Dit(model) => SampleConfig {
                steps: model.card.sampling.steps,
                cfg_scale: model.card.sampling.cfg_scale,
                cfg_schedule: CfgSchedule::Constant,
                ..SampleConfig::default()
            },
        }
    }

    /// The same, its linear maps in a precision and in the order that is multiplied fastest: for generating. F32
    /// changes no picture.
    ///
    /// # Errors
    /// When the device does not compute with it.
    pub fn in_precision(self, precision: ComputePrecision) -> Result<Self> {
        Ok(match self {
            Self::Ar(model) => Self::Ar(model.in_precision(precision)?),
            Self::Dit(model) => Self::Dit(model.in_precision(precision)?),
        })
    }

    /// The same with its tokens sharded over ranks, which must all draw the same requests together.
    ///
    /// # Errors
    /// When the model does not allow it.
    pub fn on(self, sequence: TokenSharding) -> Result<Self> {
        Ok(match self {
            Self::Ar(model) => Self::Ar(ArModel {
                generator: model.generator.on(sequence)?,
                ..model
            }),
            Self::Dit(model) => Self::Dit(DitModel {
                transformer: model.transformer.on(sequence)?,
                ..model
            }),
        })
    }

    /// The latents `[images, channels, height, width]` of images `[images, channels, height, width]` in `[-1, 1]`, as
    /// the model's generator has them.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn encode(&self, images: Array4<f32>) -> Result<Array4<f32>> {
        match self {
            Self::Ar(model) => model.encode(images),
            Self::Dit(model) => model.encode(images),
        }
    }

    /// The tokens `[pictures, tokens, dimensions]` of pictures of any size, cropped and padded as the model has them.
    ///
    /// ```
    /// use tessera::{Device, Model, Request};
    ///
    /// let model = Model::builtin(&Device::cpu())?;
    /// let pictures = model.generate([Request::new(7, 1)], &model.sampling().steps(4));
    /// let pictures = pictures.map(|picture| Ok(picture?.pixels)).collect::<tessera::Result<Vec<_>>>()?;
    /// assert_eq!(model.tokenize(&pictures)?.dim(), (1, 64, 32));
    /// # Ok::<(), tessera::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for a diffusion transformer, which has no tokens; when the device has no room.
    pub fn tokenize(&self, pictures: &[Pixels]) -> Result<Array3<u16>> {
        let Self::Ar(model) = self else {
            return Err(Error::Invalid {
                what: "model that makes tokens",
                expected: "an autoregressive one".into(),
                found: format!("the diffusion transformer `{}`", self.name()),
            });
        };
        let channels = Channels::try_from(model.vae.image_channels())?;
        let square = model.card.square();
        let images = pictures
            .iter()
            .map(|picture| square.prepare(&picture.to_channels(channels)));
        let images: Vec<_> = images.collect::<Result<_>>()?;
        let views: Vec<_> = images.iter().map(|image| image.view()).collect();
        model.tokenize(ndarray::stack(Axis(0), &views).map_err(|_| Error::Invalid {
            what: "pictures to tokenize",
            expected: "1 or more".into(),
            found: pictures.len().to_string(),
        })?)
    }

    /// Writes the model as a folder that [`open`](Self::open) takes.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path, dtype: WeightDtype) -> Result<()> {
        match self {
            Self::Ar(model) => model.save(folder, dtype),
            Self::Dit(model) => model.save(folder, dtype),
        }
    }
}

impl From<&str> for Source<'_> {
    fn from(model: &str) -> Self {
        Self::new(model)
    }
}

impl From<&Path> for Source<'_> {
    fn from(model: &Path) -> Self {
        Self::new(model)
    }
}

impl From<PathBuf> for Source<'_> {
    fn from(model: PathBuf) -> Self {
        Self::new(model)
    }
}
