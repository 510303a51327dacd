//! `tessera inspect`: what a file or folder is and what is in it.

use crate::args::Global;
use crate::bundle::{Info, read_info};
use crate::commands::tokenize::{MANIFEST, Manifest};
use crate::output;
use crate::tokenizer::sha256_of_file;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use safetensors::tensor::Metadata;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use tessera_quantize::Calibration;
use tessera_tokenizer::{read, read_metadata};

/// The keyword of the settings that `generate` writes into a picture as JSON.
const SETTINGS: &str = "tessera";

/// Say what a file or folder is: a model, a run, weights, a picture, a calibration, tokens.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera inspect out/00000.png\n  \
    tessera inspect runs/ar/model\n  \
    tessera inspect model.safetensors --json")]
pub struct Inspect {
    /// What to look at.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What was found; `kind` in JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Found {
    Model {
        info: Box<Info>,
        weights: BTreeMap<String, Weights>,
    },
    Run {
        config: Value,
        checkpoints: Vec<String>,
        last_metrics: Value,
    },
    Safetensors(Weights),
    Picture {
        width: usize,
        height: usize,
        channels: usize,
        parameters: Option<String>,
        tessera: Value,
        texts: BTreeMap<String, String>,
    },
    Calibration {
        calibration: Box<Calibration>,
    },
    Tokens {
        manifest: Box<Manifest>,
    },
}

/// A safetensors file.
#[derive(Debug, Serialize)]
struct Weights {
    architecture: &'static str,
    parameters: usize,
    bytes: u64,
    sha256: String,
    metadata: BTreeMap<String, String>,
    tensors: Vec<TensorLine>,
}

#[derive(Debug, Serialize)]
struct TensorLine {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    #[serde(flatten)]
    found: &'a Found,
}

impl Inspect {
    /// Looks and prints.
    ///
    /// # Errors
    /// When the path does not exist, is of no known kind, or is broken.
    pub fn run(self, _: &Global) -> Result<()> {
        let found = look(&self.path)?;
        match self.json {
            true => output::json(&Report {
                schema: "tessera.inspect/v1",
                found: &found,
            }),
            false => output::text(describe(&found).join("\n")),
        }
    }
}

fn look(path: &Path) -> Result<Found> {
    ensure!(path.exists(), "{}: no such file or folder", path.display());
    if path.is_dir() {
        return look_into(path);
    }
    let mut start = [0; 16];
    let mut file =
        std::fs::File::open(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let length = file
        .read(&mut start)
        .with_context(|| format!("{}: cannot read", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match &start[..length] {
        [0x89, b'P', b'N', b'G', ..] => picture(path),
        // The length of a header that begins right after it.
        [_, _, _, _, _, 0, 0, 0, b'{', ..] => Ok(Found::Safetensors(weights(path)?)),
        _ if name.ends_with(".safetensors") => Ok(Found::Safetensors(weights(path)?)),
        _ if name == MANIFEST => look_into(
            path.parent()
                .filter(|folder| *folder != Path::new(""))
                .unwrap_or(Path::new(".")),
        ),
        [b'{', ..] => Ok(Found::Calibration {
            calibration: Box::new(Calibration::load(path)?),
        }),
        _ => bail!(
            "{}: expected a PNG, a safetensors file, a calibration or a manifest of tokens, found none of them",
            path.display()
        ),
    }
}

fn look_into(folder: &Path) -> Result<Found> {
    let has = |name: &str| folder.join(name).exists();
    if has("model.json") {
        let files = [
            "model.safetensors",
            "vae/model.safetensors",
            "judge/model.safetensors",
        ];
        let there = files.into_iter().filter(|file| has(file));
        let weights = there
            .map(|file| Ok((file.to_owned(), weights(&folder.join(file))?)))
            .collect::<Result<_>>()?;
        return Ok(Found::Model {
            info: Box::new(read_info(folder)?),
            weights,
        });
    }
    if has(MANIFEST) {
        return Ok(Found::Tokens {
            manifest: Box::new(Manifest::read(folder)?),
        });
    }
    if has("checkpoint") && has("config.json") {
        return run(folder);
    }
    if has("model.safetensors") {
        return Ok(Found::Safetensors(weights(
            &folder.join("model.safetensors"),
        )?));
    }
    bail!(
        "{}: expected model.json (a model), {MANIFEST} (tokens), checkpoint/ and config.json (a run) or model.safetensors, found none of them",
        folder.display()
    )
}

fn run(folder: &Path) -> Result<Found> {
    let config = folder.join("config.json");
    let text =
        std::fs::read(&config).with_context(|| format!("{}: cannot read", config.display()))?;
    let config =
        serde_json::from_slice(&text).with_context(|| format!("{}: not JSON", config.display()))?;
    let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    let last_metrics = metrics
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .unwrap_or_default();
    let checkpoints = crate::pictures::entries(&folder.join("checkpoint"))?;
    let names = checkpoints
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Ok(Found::Run {
        config,
        checkpoints: names
            .filter(|name| name.ends_with(".safetensors"))
            .collect(),
        last_metrics,
    })
}

/// The header of a safetensors file; the tensors stay on disk.
fn weights(path: &Path) -> Result<Weights> {
    let broken = || format!("{}: broken safetensors", path.display());
    let mut file =
        std::fs::File::open(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let bytes = file.metadata().with_context(broken)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).with_context(broken)?;
    let length = u64::from_le_bytes(length);
    ensure!(
        length <= bytes.saturating_sub(8),
        "{}: its header claims {length} bytes of {bytes}",
        broken()
    );
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).with_context(broken)?;
    let header: Metadata = serde_json::from_slice(&header).with_context(broken)?;
    let (expected, found) = (header.data_len() as u64, bytes - 8 - length);
    ensure!(
        expected == found,
        "{}: expected {expected} bytes of tensors, found {found}",
        broken()
    );
    let mut tensors: Vec<_> = header
        .tensors()
        .into_iter()
        .map(|(name, info)| TensorLine {
            name,
            dtype: format!("{:?}", info.dtype),
            shape: info.shape.clone(),
        })
        .collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Weights {
        architecture: architecture(&tensors),
        parameters: tensors
            .iter()
            .map(|tensor| tensor.shape.iter().product::<usize>())
            .sum(),
        bytes,
        sha256: sha256_of_file(path)?,
        metadata: header
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        tensors,
    })
}

/// What the names of the tensors give away.
fn architecture(tensors: &[TensorLine]) -> &'static str {
    let has = |name: &str| tensors.iter().any(|tensor| tensor.name == name);
    let kinds = [
        (
            ["model.", "exp_avg."]
                .iter()
                .all(|prefix| tensors.iter().any(|tensor| tensor.name.starts_with(prefix))),
            "checkpoint of a run",
        ),
        (
            has("quant_conv.weight") && has("decoder.conv_in.weight"),
            "kl-vae",
        ),
        (has("fake_latent") && has("mask_token"), "gen-ar"),
        (
            has("conv_in.weight") && has("project.weight") && has("head.weight"),
            "judge",
        ),
        (has("moments") && has("labels"), "cached latents"),
        (has("ids"), "tokens"),
    ];
    kinds
        .into_iter()
        .find(|kind| kind.0)
        .map_or("unknown", |kind| kind.1)
}

fn picture(path: &Path) -> Result<Found> {
    let mut texts: BTreeMap<_, _> = read_metadata(path)?.into_iter().collect();
    let picture = read(path, None)?;
    let settings = texts.remove(SETTINGS);
    Ok(Found::Picture {
        width: picture.width(),
        height: picture.height(),
        channels: picture.channels().count(),
        parameters: texts.remove("parameters"),
        // Text that is no JSON is shown as it is.
        tessera: settings
            .map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)))
            .unwrap_or_default(),
        texts,
    })
}

/// What was found, in lines.
fn describe(found: &Found) -> Vec<String> {
    match found {
        Found::Model { info, weights } => {
            let Info {
                name,
                img_size,
                picture_size,
                class_names,
                quantizer,
                sampling,
                ..
            } = &**info;
            let mut lines = vec![
                format!(
                    "model {name}: pictures of {picture_size} px (inside {img_size} px), {} classes",
                    class_names.len()
                ),
                format!("classes: {}", class_names.join(", ")),
                format!(
                    "quantiser: {} bits over ±{}",
                    quantizer.bits, quantizer.range
                ),
                format!(
                    "sampling: {}",
                    serde_json::to_string(sampling).unwrap_or_default()
                ),
            ];
            lines.extend(weights.iter().map(
                |(
                    file,
                    Weights {
                        architecture,
                        parameters,
                        sha256,
                        ..
                    },
                )| {
                    format!("{file}: {architecture}, {parameters} parameters, sha256 {sha256}")
                },
            ));
            lines
        }
        Found::Run {
            config,
            checkpoints,
            last_metrics,
        } => vec![
            format!(
                "run of {}",
                config["kind"].as_str().unwrap_or("unknown kind")
            ),
            format!("checkpoints: {}", checkpoints.join(", ")),
            format!("last metrics: {last_metrics}"),
            format!("config: {config:#}"),
        ],
        Found::Safetensors(weights) => describe_weights(weights),
        Found::Picture {
            width,
            height,
            channels,
            parameters,
            tessera,
            texts,
        } => {
            let mut lines = vec![format!("PNG, {width}x{height} px, {channels} channel(s)")];
            lines.extend(parameters.clone());
            lines.extend((!tessera.is_null()).then(|| format!("{SETTINGS}: {tessera:#}")));
            lines.extend(texts.iter().map(|(key, text)| format!("{key}: {text}")));
            lines.extend((lines.len() == 1).then(|| "no metadata".into()));
            lines
        }
        Found::Calibration { calibration } => {
            vec![super::calibrate::describe(calibration).trim_end().into()]
        }
        Found::Tokens { manifest } => {
            let ([height, width], bits) = (manifest.grid, manifest.quantizer.bits);
            vec![
                format!(
                    "tokens of {} pictures in {} file(s)",
                    manifest.pictures.len(),
                    manifest.shards.len()
                ),
                format!(
                    "{height} x {width} tokens of {} dimensions, {bits} bits",
                    manifest.dimensions
                ),
                format!(
                    "model {}, vae sha256 {}",
                    manifest.model, manifest.vae_sha256
                ),
            ]
        }
    }
}

fn describe_weights(weights: &Weights) -> Vec<String> {
    let Weights {
        architecture,
        parameters,
        bytes,
        sha256,
        metadata,
        tensors,
    } = weights;
    let mut lines = vec![
        format!(
            "{architecture}: {} tensors, {parameters} parameters, {bytes} bytes",
            tensors.len()
        ),
        format!("sha256 {sha256}"),
    ];
    lines.extend(metadata.iter().map(|(key, text)| format!("{key}: {text}")));
    lines.extend(
        tensors
            .iter()
            .map(|TensorLine { name, dtype, shape }| format!("  {name}  {dtype} {shape:?}")),
    );
    lines
}
