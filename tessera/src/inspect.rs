//! What a file or folder is; what a file of weights is of, and what it takes to load it.

mod found;
mod words;

pub use found::{Found, PictureFile};

use crate::device::Device;
use crate::digest::sha256_of_file;
use crate::error::{Error, Result, read_json};
use crate::memory::peak_kib;
use crate::model::{dit_config, generator_config};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tessera_checkpoint::{Architecture, CONFIG_FILE, Dtype, StoredTensor};
use tessera_gen_ar::{BUFFERS, GenAr, GenArConfig};
use tessera_gen_dit::Dit;
use tessera_tokenizer::{KlVaeConfig, open_tokenizer, require_both_halves};
use tessera_weights::{Checkpoint, Loaded, Weights, Which};

/// A file of weights, or an index of several.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The file or folder that was looked at.
    #[serde(skip)]
    path_read: PathBuf,
    /// What the names of its tensors say it is, or `unknown`.
    #[serde(serialize_with = "named")]
    pub architecture: Option<Architecture>,
    /// How it is stored.
    pub format: String,
    /// `raw` or `ema`, of a training checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<&'static str>,
    /// Where the raw weights are in it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Where the average is, if it was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average: Option<String>,
    /// What else a training checkpoint holds, with how many tensors each part has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, usize>,
    /// What these parts are, and why they are not used, as far as that is known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, String>,
    /// Objects of a pickle that are not read, by their path: the class of each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_read: BTreeMap<String, String>,
    /// Which half of a tokenizer it is, and which is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half: Option<String>,
    /// Numbers that are trained.
    pub parameters: usize,
    /// Bytes of the tensors.
    pub bytes: u64,
    /// Of the file.
    pub sha256: String,
    /// Whether every tensor has a checksum in the file.
    pub checksums: bool,
    /// Tensors of each type.
    pub dtypes: BTreeMap<String, usize>,
    /// The sizes, as far as the shapes tell them.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub config: Value,
    /// What the file says about itself.
    pub metadata: BTreeMap<String, String>,
    /// Every tensor, in the order of the names.
    pub tensors: Vec<TensorInfo>,
    /// What [`check`](Self::check) found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
}

/// One tensor of a file.
#[derive(Debug, Serialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// How it is stored.
    pub dtype: String,
    /// Axis lengths, in PyTorch's order.
    pub shape: Vec<usize>,
}

/// What reading all values and making the model took.
#[derive(Debug, Serialize)]
pub struct Check {
    /// Time it took.
    pub seconds: f64,
    /// The most memory that the process had, in MB; where the system tells.
    pub peak_mb: Option<f64>,
    /// Whether a model was made of the weights, beside reading them.
    pub loaded: bool,
}

impl Report {
    /// Looks at the header of a file or of a folder's weights; the values stay on disk.
    ///
    /// # Errors
    /// When it is no weights file, or damaged.
    pub fn of(path: &Path, which: Option<Which>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let found = checkpoint.state_dict(which)?;
        let architecture = Architecture::of_names(found.tensors.keys().map(String::as_str));
        let weights = Weights::of_state_dict(&checkpoint, found.clone());
        let half = require_both_halves(&checkpoint.file, &weights).err();
        let mut dtypes = BTreeMap::new();
        for tensor in found.tensors.values() {
            *dtypes.entry(format!("{:?}", tensor.dtype())).or_insert(0) += 1;
        }
        let line = |(name, tensor): (&String, &StoredTensor)| TensorInfo {
            name: name.clone(),
            dtype: format!("{:?}", tensor.dtype()),
            shape: tensor.shape().to_vec(),
        };
        Ok(Self {
            path_read: path.into(),
            architecture,
            format: checkpoint.format.to_string(),
            weights: found.which.map(Which::name),
            parameters: found
                .tensors
                .iter()
                .filter(is_parameter)
                .map(|(_, tensor)| tensor.elements())
                .sum(),
            bytes: found.tensors.values().map(StoredTensor::length).sum(),
            sha256: sha256_of_file(&checkpoint.file)?,
            checksums: checkpoint.checksums,
            dtypes,
            half: half.map(|half| half.to_string()),
            config: config(path, architecture, &weights),
            metadata: checkpoint.metadata.clone(),
            tensors: found.tensors.iter().map(line).collect(),
            path: found.path,
            average: found.average,
            left_out: found.left_out,
            kinds: found.kinds,
            not_read: checkpoint.opaque,
            check: None,
        })
    }

    /// Reads every value, and makes the model of them where it is one of ours. `progress` hears how many tensors are
    /// read, then how many are loaded.
    ///
    /// # Errors
    /// A checksum that is wrong, a number that is not finite, weights that do not fit the model.
    pub fn check(
        &mut self,
        which: Option<Which>,
        device: &Device,
        progress: &mut dyn FnMut(Loaded),
    ) -> Result<()> {
        let started = Instant::now();
        let path = &*self.path_read.clone();
        let weights = Weights::read_model(path, which)?;
        for (tensors, (name, weight)) in (1..).zip(weights.iter()) {
            let values = weight.values()?;
            // The mask of a generator is infinite where it hides.
            let bad = |value: &&f32| !value.is_finite() && name != BUFFERS[2];
            if let Some(value) = values.iter().find(bad) {
                return Err(Error::Format {
                    path: weights.file().into(),
                    what: "a value of a tensor",
                    expected: "a finite number".into(),
                    found: format!("tensor `{name}` holds {value}"),
                });
            }
            progress(Loaded {
                tensors,
                of: weights.len(),
            });
        }
        let loaded = match self.architecture {
            Some(Architecture::TokenBridge) => {
                let config = generator_config(path, &weights)?;
                GenAr::from_weights_with(&config, weights, device.burn(), progress)?;
                true
            }
            Some(Architecture::Dit) => {
                let config = dit_config(path, &weights)?;
                Dit::from_weights(&config, weights, device.burn(), progress)?;
                true
            }
            Some(
                Architecture::KlVae
                | Architecture::AutoencoderKl
                | Architecture::AutoencoderTiny
                | Architecture::TinyAutoencoder,
            ) => {
                open_tokenizer(path, which, device.burn())?;
                true
            }
            _ => false,
        };
        self.check = Some(Check {
            seconds: started.elapsed().as_secs_f64(),
            peak_mb: peak_mb(),
            loaded,
        });
        Ok(())
    }

    /// The same for a person.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![self.summary()];
        lines.extend(self.half.clone());
        lines.extend(self.weights.map(|which| self.place(which)));
        lines.extend(self.left_out.iter().map(|(part, count)| {
            let kind = self.kinds.get(part);
            let kind = kind.map_or(String::new(), |kind| format!(": {kind}"));
            format!("beside them: `{part}`, {count} tensors{kind}")
        }));
        lines.extend(
            self.not_read
                .iter()
                .map(|(path, class)| format!("not read: `{path}`, a {class}")),
        );
        let dtypes: Vec<_> = self
            .dtypes
            .iter()
            .map(|(dtype, count)| format!("{count} {dtype}"))
            .collect();
        let checksums = if self.checksums { "with" } else { "without" };
        lines.push(format!(
            "types: {}, {checksums} checksums",
            dtypes.join(", ")
        ));
        lines.push(format!("sha256 {}", self.sha256));
        if let Some(Check {
            seconds,
            peak_mb,
            loaded,
        }) = &self.check
        {
            let done = if *loaded { "read and loaded" } else { "read" };
            let peak = peak_mb.map_or(String::new(), |mb| {
                format!(", at most {mb:.0} MB of memory")
            });
            lines.push(format!(
                "whole: every tensor {done} in {seconds:.1} s{peak}"
            ));
        }
        lines.extend((!self.config.is_null()).then(|| format!("config: {}", self.config)));
        lines.extend(
            self.metadata
                .iter()
                .map(|(key, text)| format!("{key}: {text}")),
        );
        let width = self
            .tensors
            .iter()
            .map(|tensor| tensor.name.len())
            .max()
            .unwrap_or(0);
        lines.extend(
            self.tensors
                .iter()
                .map(|TensorInfo { name, dtype, shape }| {
                    format!("  {name:width$}  {dtype} {shape:?}")
                }),
        );
        lines
    }

    /// Where the weights are.
    fn place(&self, which: &str) -> String {
        let at = match (&*self.path, &self.average) {
            ("", None) => String::new(),
            ("", Some(average)) => format!(" at `{average}`"),
            (raw, None) => format!(" at `{raw}`"),
            (raw, Some(average)) => format!(" at `{average}`, over `{raw}`"),
        };
        format!("weights: {which}{at}, of a training checkpoint")
    }

    /// The first line of it.
    pub fn summary(&self) -> String {
        format!(
            "{}, {}: {} tensors, {} parameters, {:.1} MB",
            self.architecture.map_or("unknown", Architecture::name),
            self.format,
            self.tensors.len(),
            self.parameters,
            self.bytes as f64 / 1e6
        )
    }
}

/// Parts of a checkpoint with the number of their tensors, in words.
pub fn counted(parts: &BTreeMap<String, usize>) -> String {
    let part = |(part, count): (&String, &usize)| format!("{part} ({count} tensors)");
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// Buffers are no parameters: neither the generator's tables nor counters.
fn is_parameter((name, tensor): &(&String, &StoredTensor)) -> bool {
    let float = matches!(
        tensor.dtype(),
        Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F8_E4M3 | Dtype::F8_E5M2
    );
    (float || tensor.scales().is_some()) && !BUFFERS.contains(&name.as_str())
}

/// The sizes of an architecture of ours: those of the config beside the weights, else as far as the shapes tell them;
/// `null` where they do not.
fn config(path: &Path, architecture: Option<Architecture>, weights: &Weights) -> Value {
    let config = match architecture {
        Some(Architecture::TokenBridge) => {
            GenArConfig::infer(weights).ok().map(serde_json::to_value)
        }
        Some(Architecture::KlVae) => Some(sizes_of_vae(path, weights)),
        _ => None,
    };
    config.and_then(Result::ok).unwrap_or_default()
}

/// The sizes of a KL-VAE. Shapes tell neither the side of its pictures nor where that has attention.
fn sizes_of_vae(path: &Path, weights: &Weights) -> serde_json::Result<Value> {
    if path.is_dir()
        && let Ok(config) = read_json::<KlVaeConfig>(&path.join(CONFIG_FILE), "sizes of a VAE")
    {
        return serde_json::to_value(config);
    }
    let Ok(config) = KlVaeConfig::infer(weights) else {
        return Ok(Value::Null);
    };
    let mut config = serde_json::to_value(config)?;
    if let Some(fields) = config.as_object_mut() {
        fields.retain(|field, _| !field.ends_with("resolution") && !field.ends_with("resolutions"));
    }
    Ok(config)
}

/// The most memory that this process ever had, in MB.
fn peak_mb() -> Option<f64> {
    let kib = peak_kib()? as f64;
    Some(kib * 1.024 / 1000.0)
}

/// An architecture by its name.
fn named<S: serde::Serializer>(
    architecture: &Option<Architecture>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(architecture.map_or("unknown", Architecture::name))
}
