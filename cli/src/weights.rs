//! What `inspect` says of a file of weights, and what it takes to load it.

use crate::dit;
use crate::progress::Progress;
use crate::tokenizer::sha256_of_file;
use anyhow::{Result, bail};
use burn::tensor::Device;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use tessera_checkpoint::{Dtype, StoredTensor, guess};
use tessera_gen_ar::{BUFFERS, CONFIG_FILE, GenAr, GenArConfig};
use tessera_tokenizer::{KlVaeConfig, open_tokenizer};
use tessera_train::{Checkpoint, Weights, Which};

/// A file of weights, or an index of several.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What the names say it is.
    pub architecture: &'static str,
    /// How it is stored.
    pub format: String,
    /// `raw` or `ema`, of a training checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<&'static str>,
    /// What else a training checkpoint holds, with how many tensors each part has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    left_out: BTreeMap<String, usize>,
    /// Numbers that are trained.
    pub parameters: usize,
    /// Bytes of the tensors.
    bytes: u64,
    /// Of the file.
    pub sha256: String,
    /// Whether every tensor has a checksum in the file.
    checksums: bool,
    /// Tensors of each type.
    dtypes: BTreeMap<String, usize>,
    /// The sizes, as far as the shapes tell them.
    #[serde(skip_serializing_if = "Value::is_null")]
    config: Value,
    metadata: BTreeMap<String, String>,
    tensors: Vec<Tensor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Check>,
}

#[derive(Debug, Serialize)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

/// What reading all values and making the model took.
#[derive(Debug, Serialize)]
struct Check {
    seconds: f64,
    /// The most memory that the process had, in MB; where the system tells.
    peak_mb: Option<f64>,
    /// Whether a model was made of the weights, beside reading them.
    loaded: bool,
}

impl Report {
    /// Looks at the header of a file or of a folder's weights; the values stay on disk.
    ///
    /// # Errors
    /// When it is no weights file, or damaged.
    pub fn of(path: &Path, which: Option<Which>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let found = checkpoint.state_dict(which)?;
        let architecture = guess(found.tensors.keys().map(String::as_str));
        let mut dtypes = BTreeMap::new();
        for tensor in found.tensors.values() {
            *dtypes.entry(format!("{:?}", tensor.dtype())).or_insert(0) += 1;
        }
        let line = |(name, tensor): (&String, &StoredTensor)| Tensor {
            name: name.clone(),
            dtype: format!("{:?}", tensor.dtype()),
            shape: tensor.shape().to_vec(),
        };
        Ok(Self {
            architecture: architecture.unwrap_or("unknown"),
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
            config: config(architecture, &checkpoint, &found),
            metadata: checkpoint.metadata.clone(),
            tensors: found.tensors.iter().map(line).collect(),
            left_out: found.left_out,
            check: None,
        })
    }

    /// Reads every value, and makes the model of them where it is one of ours.
    ///
    /// # Errors
    /// A checksum that is wrong, a number that is not finite, weights that do not fit the model.
    pub fn check(
        &mut self,
        path: &Path,
        which: Option<Which>,
        device: &Device,
        quiet: bool,
    ) -> Result<()> {
        let started = Instant::now();
        let weights = Weights::read_model(path, which)?;
        let quiet = quiet || !takes_long(&weights);
        let mut progress = Progress::new("check", "tensors", weights.len() as u64, quiet);
        for (done, (name, weight)) in (1..).zip(weights.iter()) {
            let values = weight.values()?;
            // The mask of a generator is infinite where it hides.
            if let Some(value) = values
                .iter()
                .find(|value| !value.is_finite() && name != BUFFERS[2])
            {
                bail!(
                    "{}: tensor `{name}` holds {value}",
                    weights.file().display()
                );
            }
            progress.set(done, "");
        }
        progress.finish();
        let loaded = match self.architecture {
            "TokenBridge generator" => {
                let config = generator_config(path, &weights)?;
                let mut progress = Progress::new("load", "tensors", weights.len() as u64, quiet);
                GenAr::from_weights_with(&config, weights, device, &mut |loaded| {
                    progress.set(loaded.tensors as u64, "");
                })?;
                progress.finish();
                true
            }
            "DiT" => {
                dit::model(&dit::config_of(path, &weights)?, weights, quiet, device)?;
                true
            }
            "KL-VAE"
            | "AutoencoderKL (diffusers)"
            | "AutoencoderTiny (diffusers)"
            | "tiny autoencoder" => {
                open_tokenizer(path, which, device)?;
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
        lines.extend(
            self.weights
                .map(|which| format!("weights: {which}, of a training checkpoint")),
        );
        if !self.left_out.is_empty() {
            lines.push(format!("beside them: {}", counted(&self.left_out)));
        }
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
                .map(|Tensor { name, dtype, shape }| format!("  {name:width$}  {dtype} {shape:?}")),
        );
        lines
    }

    /// The first line of it.
    pub fn summary(&self) -> String {
        format!(
            "{}, {}: {} tensors, {} parameters, {:.1} MB",
            self.architecture,
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

/// The sizes of a generator: from the config beside its weights, else from their shapes.
///
/// # Errors
/// When there is no config and the shapes do not tell, or the config is broken.
pub fn generator_config(path: &Path, weights: &Weights) -> Result<GenArConfig> {
    let folder = match path.is_dir() {
        true => path,
        false => path.parent().unwrap_or(Path::new("")),
    };
    match folder.join(CONFIG_FILE).is_file() {
        true => Ok(GenArConfig::load(folder)?),
        false => Ok(GenArConfig::infer(weights)?),
    }
}

/// Whether so many tensors take long enough to show how far it is.
pub fn takes_long(weights: &Weights) -> bool {
    const LARGE_BYTES: usize = 100_000_000;
    let elements = weights
        .iter()
        .map(|(_, weight)| weight.shape().iter().product::<usize>());
    elements.sum::<usize>() > LARGE_BYTES / size_of::<f32>()
}

/// Buffers are no parameters: neither the generator's tables nor counters.
fn is_parameter((name, tensor): &(&String, &StoredTensor)) -> bool {
    let float = matches!(
        tensor.dtype(),
        Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16
    );
    float && !BUFFERS.contains(&name.as_str())
}

/// The sizes of an architecture of ours, `null` where the shapes do not tell them.
fn config(
    architecture: Option<&str>,
    checkpoint: &Checkpoint,
    found: &tessera_checkpoint::StateDict,
) -> Value {
    let weights = Weights::of_state_dict(checkpoint, found.clone());
    let config = match architecture {
        Some("TokenBridge generator") => {
            GenArConfig::infer(&weights).ok().map(serde_json::to_value)
        }
        Some("KL-VAE") => KlVaeConfig::infer(&weights).ok().map(serde_json::to_value),
        _ => None,
    };
    config.and_then(Result::ok).unwrap_or_default()
}

/// The most memory that this process ever had, in MB.
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1.024 / 1000.0)
}
