//! Whatever draws pictures: the autoregressive model over tokens, or the diffusion transformer over latents.

use crate::bundle::{Bundle, Source, in_precision};
use crate::dit::{self, DitBundle};
use crate::sampling::{self, SamplingArgs};
use anyhow::{Result, bail};
use burn::tensor::Device;
use tessera_attention2d::Sequence;
use tessera_backend::Precision;
use tessera_gen_ar::{CfgSchedule, ImageRequest, SampleConfig};
use tessera_tokenizer::Pixels;

/// A model in memory, of either kind.
#[allow(clippy::large_enum_variant)] // there is one of it
#[derive(Debug)]
pub enum Generator {
    Ar(Bundle),
    Dit(DitBundle),
}

impl Generator {
    /// Opens the model that a user names; the built-in one, which is autoregressive, if none.
    ///
    /// # Errors
    /// When a file is missing or broken, or the parts do not fit each other.
    pub fn open(source: &Source<'_>, device: &Device) -> Result<Self> {
        let found = source.model.map(dit::find).transpose()?.flatten();
        match found {
            Some(path) => Ok(Self::Dit(DitBundle::open(&path, source, device)?)),
            None => Ok(Self::Ar(Bundle::open_source(source, device)?)),
        }
    }

    /// What the model is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Ar(bundle) => &bundle.info.name,
            Self::Dit(bundle) => &bundle.info.name,
        }
    }

    /// The names of its classes.
    pub fn class_names(&self) -> &[String] {
        match self {
            Self::Ar(bundle) => &bundle.info.class_names,
            Self::Dit(bundle) => &bundle.info.class_names,
        }
    }

    /// What it does unless told otherwise. Diffusion has constant guidance, and no logits that the other settings are of.
    pub fn defaults(&self) -> SampleConfig {
        match self {
            Self::Ar(bundle) => bundle.info.sampling.clone(),
            Self::Dit(bundle) => SampleConfig {
                steps: bundle.info.sampling.steps,
                cfg_scale: bundle.info.sampling.cfg_scale,
                cfg_schedule: CfgSchedule::Constant,
                ..SampleConfig::default()
            },
        }
    }

    /// `defaults` with what was given on the command line in place of it.
    ///
    /// # Errors
    /// When a setting is out of range, or one that the model does not have.
    pub fn settings(&self, args: &SamplingArgs, defaults: &SampleConfig) -> Result<SampleConfig> {
        if let Self::Dit(_) = self
            && let Some(option) = args.of_logits()
        {
            bail!(
                "{option}: a setting of autoregressive models; this one is a diffusion transformer"
            );
        }
        args.over(defaults)
    }

    /// The same, its linear maps in another precision.
    ///
    /// # Errors
    /// When the device does not know it.
    pub fn in_precision(self, precision: Precision) -> Result<Self> {
        Ok(match self {
            Self::Ar(bundle) => Self::Ar(bundle.in_precision(precision)?),
            Self::Dit(bundle) => {
                let device = bundle.model.device();
                Self::Dit(DitBundle {
                    model: in_precision(bundle.model, precision, &device)?,
                    ..bundle
                })
            }
        })
    }

    /// The same with its tokens where `sequence` has them.
    ///
    /// # Errors
    /// When the model does not allow it.
    pub fn on(self, sequence: Sequence) -> Result<Self> {
        Ok(match self {
            Self::Ar(bundle) => Self::Ar(Bundle {
                generator: bundle.generator.on(sequence)?,
                ..bundle
            }),
            Self::Dit(bundle) => Self::Dit(DitBundle {
                model: bundle.model.on(sequence)?,
                ..bundle
            }),
        })
    }

    /// Draws all requests, `batch_size` at a time, and hands every finished batch to `finished` with the number of its
    /// first picture.
    ///
    /// # Errors
    /// A value that is not finite, Ctrl-C, or what `finished` gives.
    pub fn draw(
        &self,
        requests: &[ImageRequest],
        config: &SampleConfig,
        batch_size: usize,
        quiet: bool,
        finished: impl FnMut(usize, Vec<Pixels>) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Ar(bundle) => {
                sampling::draw(bundle, requests, config, batch_size, quiet, finished)
            }
            Self::Dit(bundle) => {
                let of_dit = |request: &ImageRequest| tessera_gen_dit::ImageRequest {
                    class: request.class,
                    seed: request.seed,
                };
                let requests: Vec<_> = requests.iter().map(of_dit).collect();
                let config = tessera_gen_dit::SampleConfig {
                    steps: config.steps,
                    cfg_scale: config.cfg_scale,
                };
                bundle.draw(&requests, &config, batch_size, quiet, finished)
            }
        }
    }
}
