//! Latents encoded once, for training without the tokenizer: mean and log-variance of every image's posterior, or its
//! latents where a tokenizer gives no distribution.

use crate::error::{Error, Result};
use ndarray::{Array3, Array4, ArrayView3, Axis};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tessera_backend::Rng;
use tessera_checkpoint::{Checkpoint, Dtype, Entry};
use tessera_weights::encode;

/// The layout of the file.
const SCHEMA: &str = "tessera.latents/v1";
/// The range that a KL-VAE clamps its log-variance to.
const LOGVAR: (f32, f32) = (-30.0, 20.0);

/// The standard deviation of a log-variance, within the bounds of a KL-VAE.
fn std_of(logvar: f32) -> f32 {
    (0.5 * logvar.clamp(LOGVAR.0, LOGVAR.1)).exp()
}

/// How a cache stores its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatentPrecision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits: half the size, 11 significant bits.
    F16,
}

/// What a cache has of every image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LatentKind {
    /// A distribution: mean and log-variance.
    #[default]
    Posterior,
    /// Latents as they are, of a tokenizer without distributions.
    Point,
}

impl LatentKind {
    /// The tensor's name in a file; that of mirrored images ends with [`FLIPPED`].
    fn tensor(self) -> &'static str {
        match self {
            Self::Posterior => "moments",
            Self::Point => "latents",
        }
    }
}

/// What the name of a tensor of mirrored images ends with.
const FLIPPED: &str = "_flip";

/// The latents of a data set's images, in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentCache {
    /// What `moments` are.
    pub kind: LatentKind,
    /// Of posteriors mean, then log-variance: `[images, 2 channels, height, width]`; of points the latents `[images,
    /// channels, height, width]`. Unscaled.
    pub moments: Array4<f32>,
    /// The same of the images mirrored left to right.
    pub moments_flip: Option<Array4<f32>>,
    /// The class of every image.
    pub labels: Vec<u32>,
    /// The names of the classes.
    pub class_names: Vec<String>,
    /// Where the latents come from (the tokenizer, its weights, the image size); checked by whoever reads it.
    pub provenance: Value,
}

impl LatentCache {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// `[channels, height, width]` of one latent.
    pub fn latent_shape(&self) -> [usize; 3] {
        let (_, moments, height, width) = self.moments.dim();
        let channels = match self.kind {
            LatentKind::Posterior => moments / 2,
            LatentKind::Point => moments,
        };
        [channels, height, width]
    }

    /// Mean and log-variance of image `index`, each `[channels, height, width]`; of the mirrored image if `flip` is
    /// set and the cache has it. Points have no log-variance.
    pub fn posterior(
        &self,
        index: usize,
        flip: bool,
    ) -> (ArrayView3<'_, f32>, Option<ArrayView3<'_, f32>>) {
        let moments = match (&self.moments_flip, flip) {
            (Some(flipped), true) => flipped,
            _ => &self.moments,
        };
        let of_image = moments.index_axis(Axis(0), index);
        match self.kind {
            LatentKind::Posterior => {
                let [channels, ..] = self.latent_shape();
                let (mean, logvar) = of_image.split_at(Axis(0), channels);
                (mean, Some(logvar))
            }
            LatentKind::Point => (of_image, None),
        }
    }

    /// A draw from the posterior of image `index`, or its latents: `[channels, height, width]`, unscaled.
    pub fn sample(&self, index: usize, flip: bool, rng: &mut Rng) -> Array3<f32> {
        let (mean, logvar) = self.posterior(index, flip);
        let Some(logvar) = logvar else {
            return mean.to_owned();
        };
        ndarray::Zip::from(mean)
            .and(logvar)
            .map_collect(|&mean, &logvar| mean + std_of(logvar) * rng.normal())
    }

    /// The standard deviation of image `index`'s posterior, as [`posterior`](Self::posterior) has it: `[channels,
    /// height, width]`, unscaled. Points have none.
    pub fn posterior_std(&self, index: usize, flip: bool) -> Option<Array3<f32>> {
        let (_, logvar) = self.posterior(index, flip);
        logvar.map(|logvar| logvar.mapv(std_of))
    }

    /// Writes the cache: whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] when the parts do not agree with each other.
    pub fn write(&self, path: impl AsRef<Path>, precision: LatentPrecision) -> Result<()> {
        let path = path.as_ref();
        self.check(path)?;
        let dtype = match precision {
            LatentPrecision::F32 => Dtype::F32,
            LatentPrecision::F16 => Dtype::F16,
        };
        let name = self.kind.tensor();
        let parts = [
            (name.to_owned(), Some(&self.moments)),
            (format!("{name}{FLIPPED}"), self.moments_flip.as_ref()),
        ];
        let parts: Vec<_> = parts
            .into_iter()
            .filter_map(|(name, part)| Some((name, part?.as_standard_layout())))
            .collect();
        let labels = [self.labels.len()];
        let mut entries = vec![Entry {
            name: "labels".into(),
            dtype: Dtype::U32,
            shape: (&labels).into(),
            bytes: Box::new(|file| {
                let bytes: Vec<u8> = self
                    .labels
                    .iter()
                    .flat_map(|label| label.to_le_bytes())
                    .collect();
                file.write_all(&bytes)
            }),
        }];
        for (name, part) in &parts {
            let values = part
                .as_slice()
                .expect("it was brought into standard layout");
            entries.push(Entry {
                name: name.into(),
                dtype,
                shape: part.shape().into(),
                bytes: Box::new(move |file| encode(dtype, values, file)),
            });
        }
        let metadata = BTreeMap::from([
            ("schema".to_owned(), SCHEMA.to_owned()),
            (
                "class_names".to_owned(),
                Value::from(self.class_names.clone()).to_string(),
            ),
            ("provenance".to_owned(), self.provenance.to_string()),
        ]);
        Ok(tessera_checkpoint::write(path, &metadata, entries)?)
    }

    /// Reads a cache.
    ///
    /// # Errors
    /// When the file is not a whole latent cache.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let Checkpoint {
            metadata, tensors, ..
        } = Checkpoint::open(path)?;
        let mut parts = BTreeMap::new();
        let mut labels = None;
        for (name, tensor) in tensors {
            let wrong = |expected| {
                let found = format!("`{name}`, {:?} {:?}", tensor.dtype(), tensor.shape());
                Error::format(path, "a tensor", expected, found)
            };
            match (&*name, tensor.dtype(), tensor.shape()) {
                ("labels", Dtype::U32, [_]) => {
                    let bytes = tensor.bytes()?;
                    let (values, _) = bytes.as_chunks::<4>();
                    labels = Some(values.iter().map(|&b| u32::from_le_bytes(b)).collect());
                }
                (
                    "moments" | "moments_flip" | "latents" | "latents_flip",
                    Dtype::F32 | Dtype::F16,
                    &[n, c, h, w],
                ) => {
                    let part = Array4::from_shape_vec((n, c, h, w), tensor.values()?);
                    let part = part.map_err(|_| wrong("a shape that its values fill"))?;
                    parts.insert(name, part);
                }
                _ => {
                    return Err(wrong(
                        "moments, moments_flip, latents, latents_flip (F32 or F16, 4 axes) or labels (U32)",
                    ));
                }
            }
        }
        let field = |key: &'static str| {
            let absent = || {
                Error::format(
                    path,
                    "the metadata",
                    format!("a field `{key}`"),
                    "without it",
                )
            };
            metadata.get(key).ok_or_else(absent)
        };
        if field("schema")? != SCHEMA {
            return Err(Error::format(path, "the schema", SCHEMA, field("schema")?));
        }
        let bad_json = |source| Error::Json {
            file: path.into(),
            line: 1,
            source,
        };
        let absent = |what| Error::format(path, "the content", what, "without it");
        let kind = match parts.contains_key(LatentKind::Point.tensor()) {
            true => LatentKind::Point,
            false => LatentKind::Posterior,
        };
        let name = kind.tensor();
        let moments = parts.remove(name);
        let cache = Self {
            kind,
            moments: moments.ok_or_else(|| absent("`moments` or `latents`"))?,
            moments_flip: parts.remove(&*format!("{name}{FLIPPED}")),
            labels: labels.ok_or_else(|| absent("`labels`"))?,
            class_names: serde_json::from_str(field("class_names")?).map_err(bad_json)?,
            provenance: serde_json::from_str(field("provenance")?).map_err(bad_json)?,
        };
        cache.check(path)?;
        Ok(cache)
    }

    /// The parts must agree with each other.
    fn check(&self, path: &Path) -> Result<()> {
        let (images, channels, ..) = self.moments.dim();
        if self.labels.len() != images {
            let expected = format!("{images}, one per image");
            return Err(Error::format(
                path,
                "the number of labels",
                expected,
                self.labels.len(),
            ));
        }
        if self.kind == LatentKind::Posterior && channels % 2 != 0 {
            let expected = "even: mean and log-variance";
            return Err(Error::format(
                path,
                "the number of channels",
                expected,
                channels,
            ));
        }
        if let Some(flipped) = self
            .moments_flip
            .as_ref()
            .filter(|f| f.dim() != self.moments.dim())
        {
            let expected = format!("{:?}", self.moments.shape());
            let found = format!("{:?}", flipped.shape());
            return Err(Error::format(
                path,
                "the shape of `moments_flip`",
                expected,
                found,
            ));
        }
        let classes = self.class_names.len();
        match self.labels.iter().find(|&&label| label as usize >= classes) {
            Some(label) => {
                let expected = format!("less than the number of classes, {classes}");
                Err(Error::format(path, "a label", expected, label))
            }
            None => Ok(()),
        }
    }
}
