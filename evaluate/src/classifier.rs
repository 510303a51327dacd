//! A small residual network over pictures: its pooled features are what distances are measured in, its logits say
//! which class a picture is of.

use crate::augment::Augment;
use crate::error::{Error, Result};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tessera_backend::nn::{Conv2d, GroupNorm, Linear};
use tessera_backend::ops::{Activation, activation, conv2d, group_norm, linear};
use tessera_backend::{Rng, elements_of, streams};
use tessera_checkpoint::write_json;
use tessera_weights::{WeightDtype, Weights};

/// The layout of the weights file.
const SCHEMA: &str = "tessera.classifier/v1";
/// Groups of every normalization.
const GROUPS: usize = 8;
/// Added to the variance of every normalization.
const EPS: f64 = 1e-5;
/// What the last convolution of a branch is scaled by at the start, so that the branch does not drown the shortcut.
const BRANCH_GAIN: f64 = 0.7;
/// More px than a side of any picture that is read has; a damaged file may claim any number.
const MOST_PX: usize = 1 << 14;
/// One pixel of zeros on every side: a 3 × 3 convolution keeps the size, or halves it with stride 2.
const SAME: [usize; 4] = [1; 4];

/// What the classifier looks at and how large it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Height and width of a picture, in pixels.
    pub img_size: usize,
    /// Number of classes.
    pub classes: usize,
    /// Channels at full size, then after every halving; multiples of 8.
    pub widths: Vec<usize>,
    /// Number of features.
    pub features: usize,
    /// What a picture may undergo without changing its class.
    #[serde(default)]
    pub augment: Augment,
}

impl ClassifierConfig {
    /// The classifier for small pictures: fewer than 250,000 weights, trained in minutes on a CPU.
    pub fn small(in_channels: usize, img_size: usize, classes: usize) -> Self {
        Self {
            in_channels,
            img_size,
            classes,
            widths: vec![16, 32, 48, 48, 56],
            features: 64,
            augment: Augment::default(),
        }
    }

    /// Refuses sizes that have no meaning.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn validate(&self) -> Result<()> {
        let require = |ok, field, found: String, expected: &str| match ok {
            true => Ok(()),
            false => Err(Error::Config {
                field,
                found,
                expected: expected.into(),
            }),
        };
        let counts = [
            ("in_channels", self.in_channels),
            ("img_size", self.img_size),
            ("classes", self.classes),
            ("features", self.features),
        ];
        for (field, value) in counts {
            require(value > 0, field, value.to_string(), "must be 1 or more")?;
        }
        let whole = |&width: &usize| width > 0 && width.is_multiple_of(GROUPS);
        let widths = !self.widths.is_empty() && self.widths.iter().all(whole);
        let found = format!("{:?}", self.widths);
        require(
            widths,
            "widths",
            found,
            "must be multiples of 8, at least one",
        )?;
        let halvings = self.widths.len() as u32 - 1;
        let fits = self.img_size.checked_shr(halvings).unwrap_or(0) > 0;
        let size = self.img_size.to_string();
        require(
            fits && self.img_size <= MOST_PX,
            "img_size",
            size,
            "must be at least 1 after the halvings, and 16384 at most",
        )
    }

    /// How many numbers the parameters are; `u64::MAX` where they are more.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn elements(&self) -> Result<u64> {
        self.validate()?;
        let (first, last) = (self.widths[0], self.widths[self.widths.len() - 1]);
        let around = elements_of(&[
            &[9, self.in_channels, first],
            &[first],
            &[2, last],
            &[last, self.features],
            &[self.features],
            &[self.features, self.classes],
            &[self.classes],
        ]);
        let stages = self.widths.windows(2).map(|widths| {
            let (from, to) = (widths[0], widths[1]);
            elements_of(&[&[2, from], &[9, from, to], &[18, to, to], &[7, to]])
        });
        Ok(stages.fold(around, u64::saturating_add))
    }

    /// A classifier with random weights, the same for the same seed.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self, seed: u64, device: &Device) -> Result<Classifier> {
        self.validate()?;
        let mut rng = streams::CLASSIFIER_WEIGHTS.of(seed);
        let (first, last) = (self.widths[0], self.widths[self.widths.len() - 1]);
        let stages = self.widths.windows(2);
        Ok(Classifier {
            conv_in: conv(&mut rng, [self.in_channels, first], 1, 1.0, device),
            stages: stages
                .map(|widths| Stage::new(&mut rng, widths[0], widths[1], device))
                .collect(),
            norm_out: GroupNorm::new(GROUPS, last, EPS, device),
            project: dense(&mut rng, last, self.features, device),
            head: dense(&mut rng, self.features, self.classes, device),
            config: self.clone(),
        })
    }
}

/// Normal weights of variance `gain² · 2 / inputs` (He et al., arXiv 1502.01852, eq. 10), zero bias.
fn conv(
    rng: &mut Rng,
    [from, to]: [usize; 2],
    stride: usize,
    gain: f64,
    device: &Device,
) -> Conv2d {
    let std = gain * (2.0 / (9 * from) as f64).sqrt();
    Conv2d {
        weight: Param::from_tensor(rng.normal_tensor([to, from, 3, 3], device) * std),
        bias: Some(Param::from_tensor(Tensor::zeros([to], device))),
        stride: [stride; 2],
    }
}

/// Normal weights of variance `1 / inputs`, zero bias.
fn dense(rng: &mut Rng, from: usize, to: usize, device: &Device) -> Linear {
    let std = (1.0 / from as f64).sqrt();
    Linear {
        weight: Param::from_tensor(rng.normal_tensor([from, to], device) * std),
        bias: Some(Param::from_tensor(Tensor::zeros([to], device))),
    }
}

/// A halving of the size, then a residual block, both after normalization and SiLU (He et al., arXiv 1603.05027).
#[derive(Module, Debug)]
struct Stage {
    norm: GroupNorm,
    down: Conv2d,
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
}

impl Stage {
    fn new(rng: &mut Rng, from: usize, to: usize, device: &Device) -> Self {
        let norm = |channels| GroupNorm::new(GROUPS, channels, EPS, device);
        Self {
            norm: norm(from),
            down: conv(rng, [from, to], 2, 1.0, device),
            norm1: norm(to),
            conv1: conv(rng, [to, to], 1, 1.0, device),
            norm2: norm(to),
            conv2: conv(rng, [to, to], 1, BRANCH_GAIN, device),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, from, height, width]`
    /// - returns `[batch, to, ⌈height / 2⌉, ⌈width / 2⌉]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = group_norm(x, &self.norm, Activation::Silu);
        let x = conv2d(h, &self.down, SAME);
        let h = group_norm(x.clone(), &self.norm1, Activation::Silu);
        let h = conv2d(h, &self.conv1, SAME);
        let h = group_norm(h, &self.norm2, Activation::Silu);
        x + conv2d(h, &self.conv2, SAME)
    }
}

/// The classifier.
#[derive(Module, Debug)]
pub struct Classifier {
    conv_in: Conv2d,
    stages: Vec<Stage>,
    norm_out: GroupNorm,
    project: Linear,
    head: Linear,
    #[module(skip)]
    config: ClassifierConfig,
}

impl Classifier {
    /// Its sizes.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// Where its weights are.
    pub fn device(&self) -> Device {
        self.head.weight.val().device()
    }

    /// What a picture looks like to the classifier: the pooled features, before the last nonlinearity, so that their
    /// distribution is closer to the Gaussian that a Fréchet distance takes it for.
    ///
    /// # Panics
    /// If the images are not of the size and channels of the configuration.
    ///
    /// # Shapes
    /// - `images`: `[batch, in_channels, img_size, img_size]`, in `[-1, 1]`
    /// - returns `[batch, features]`
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let [_, found @ ..] = images.dims();
        assert_eq!(found, self.image_shape(), "the shape of the images");
        let x = conv2d(images, &self.conv_in, SAME);
        let x = self.stages.iter().fold(x, |x, stage| stage.forward(x));
        let x = group_norm(x, &self.norm_out, Activation::Silu);
        let [batch, channels, height, width] = x.dims();
        let pooled = x
            .reshape([batch, channels, height * width])
            .mean_dim(2)
            .reshape([batch, channels]);
        linear(pooled, &self.project, Activation::None)
    }

    /// The classes' logits from [`features`](Self::features).
    ///
    /// # Shapes
    /// - `features`: `[batch, features]`
    /// - returns `[batch, classes]`
    pub fn logits(&self, features: Tensor<2>) -> Tensor<2> {
        let hidden = activation(features, Activation::Silu);
        linear(hidden, &self.head, Activation::None)
    }

    /// The classes' logits.
    ///
    /// # Shapes
    /// - `images`: `[batch, in_channels, img_size, img_size]`, in `[-1, 1]`
    /// - returns `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.logits(self.features(images))
    }

    /// `[channels, height, width]` of the pictures it takes.
    pub(super) fn image_shape(&self) -> [usize; 3] {
        let size = self.config.img_size;
        [self.config.in_channels, size, size]
    }

    /// Writes `config.json` and `model.safetensors` into a folder, each whole or not at all.
    ///
    /// # Errors
    /// [`Error::Weights`] or [`Error::Checkpoint`] when a file cannot be written.
    pub fn save_dir(&self, folder: impl AsRef<Path>, dtype: WeightDtype) -> Result<()> {
        let folder = folder.as_ref();
        let file = folder.join("config.json");
        let metadata = BTreeMap::from([("schema".to_owned(), SCHEMA.to_owned())]);
        Weights::of(self).write(folder.join("model.safetensors"), metadata, dtype)?;
        Ok(write_json(&file, &self.config)?)
    }

    /// Reads what [`save_dir`](Self::save_dir) wrote.
    ///
    /// # Errors
    /// When a file is absent or corrupt, or the weights do not fit the configuration.
    pub fn load_dir(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let file = folder.join("config.json");
        let config = fs::read(&file).map_err(|source| Error::Read {
            file: file.clone(),
            source,
        })?;
        let weights = Weights::read(folder.join("model.safetensors"))?;
        Self::assemble(&file, &config, &weights, device)
    }

    /// As [`load_dir`](Self::load_dir), from files that are in memory; errors call them `config.json` and
    /// `model.safetensors`.
    ///
    /// # Errors
    /// As [`load_dir`](Self::load_dir).
    pub fn from_bytes(
        config: &[u8],
        weights: impl Into<Cow<'static, [u8]>>,
        device: &Device,
    ) -> Result<Self> {
        let weights = Weights::read_bytes("model.safetensors", weights)?;
        Self::assemble(Path::new("config.json"), config, &weights, device)
    }

    fn assemble(file: &Path, config: &[u8], weights: &Weights, device: &Device) -> Result<Self> {
        let config: ClassifierConfig = serde_json::from_slice(config).map_err(json(file))?;
        let schema = weights.metadata().get("schema");
        let schema = schema.map_or("absent", |schema| schema);
        if schema != SCHEMA {
            return Err(Error::Format {
                file: weights.file().into(),
                what: "the schema",
                expected: SCHEMA.into(),
                found: schema.into(),
            });
        }
        weights.require_room(config.elements()?)?;
        Ok(weights.apply(config.init(0, device)?)?)
    }
}

fn json(file: &Path) -> impl FnOnce(serde_json::Error) -> Error {
    move |source| Error::Json {
        file: file.into(),
        line: source.line(),
        source,
    }
}
