//! A tokenizer from whatever a user has of it: a folder of ours or of diffusers, a file of weights, or a file of each
//! half.

use crate::image_tokenizer::ImageTokenizer;
use crate::pixel::PixelTokenizer;
use crate::tiny::TinyAutoencoder;
use crate::vae::{CONFIG_FILE, Diffusers, DiffusersSizes, KlVae, KlVaeConfig};
use crate::{Error, Result};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use tessera_checkpoint::{Architecture, Checkpoint, Which, weights_in, write_json};
use tessera_weights::Weights;

/// What the names of the two halves of a tiny autoencoder end with, before the ending of the file.
const HALVES: [&str; 2] = ["_encoder", "_decoder"];
/// The folder of the VAE in a pipeline of diffusers.
const PIPELINE_VAE: &str = "vae";

/// What is known of the latents of a tokenizer that has no place for it in its configuration, as [`LatentScale::save`]
/// writes it.
pub const LATENTS_FILE: &str = "latents.json";

/// A tokenizer that was found, and what is known of its latents.
#[derive(Debug)]
pub struct Opened {
    /// The network.
    pub tokenizer: Box<dyn ImageTokenizer>,
    /// The files that its weights came from: one, or one for each half.
    pub files: Vec<PathBuf>,
    /// How its latents get unit variance; `None` where that must be measured.
    pub latents: Option<LatentScale>,
}

/// `(z - mean) · scale` has unit variance over the images that a tokenizer was made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentScale {
    /// Subtracted: a value for each channel, or one for all.
    pub mean: Cow<'static, [f32]>,
    /// Multiplied with after that: as many.
    pub scale: Cow<'static, [f32]>,
}

impl LatentScale {
    /// Latents that have it already.
    pub const UNIT: Self = Self {
        mean: Cow::Borrowed(&[0.0]),
        scale: Cow::Borrowed(&[1.0]),
    };
    /// KL-16's, over ImageNet (MAR's `engine_mar.py`).
    pub const KL16: Self = Self {
        mean: Cow::Borrowed(&[0.0]),
        scale: Cow::Borrowed(&[0.2325]),
    };

    /// Writes it beside a tokenizer of ours, unless it is what is known of that anyway.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        match [Self::UNIT, Self::KL16].contains(self) {
            true => Ok(()),
            false => Ok(write_json(&folder.join(LATENTS_FILE), self)?),
        }
    }

    /// What [`save`](Self::save) wrote for latents of so many channels, if it did.
    fn read(folder: &Path, channels: usize) -> Result<Option<Self>> {
        let path = folder.join(LATENTS_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let json = std::fs::read(&path).map_err(|source| Error::reading(&path, source))?;
        let read: Self =
            serde_json::from_slice(&json).map_err(|source| Error::TokenizerConfigFile {
                path: path.clone(),
                source,
            })?;
        let count = |values: &[f32]| [1, channels].contains(&values.len());
        let usable = |scale: &f32| scale.is_finite() && *scale > 0.0;
        let fits = count(&read.mean) && count(&read.scale);
        if fits && read.mean.iter().all(|mean| mean.is_finite()) && read.scale.iter().all(usable) {
            return Ok(Some(read));
        }
        Err(Error::LatentStatistics {
            path,
            expected: format!("1 or {channels} finite numbers of each, and scales above 0"),
            found: format!("means {:?}, scales {:?}", read.mean, read.scale),
        })
    }
}

/// Opens a tokenizer: a folder that [`ImageTokenizer::save_dir`] or diffusers wrote, or a file of weights of any
/// format. Of a tiny autoencoder in two files, `…_encoder` and `…_decoder`, either is given, or their common name,
/// which need not exist: `taef2.safetensors`.
///
/// # Errors
/// When there is no such file, it is no tokenizer's, or its tensors do not fit together.
pub fn open_tokenizer(
    path: impl AsRef<Path>,
    which: Option<Which>,
    device: &Device,
) -> Result<Opened> {
    let path = path.as_ref();
    if path.is_dir() {
        return open_folder(path, which, device);
    }
    if let Some(halves) = halves(path) {
        return open_halves(halves, which, device);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    if weights_in(folder).as_deref() == Some(path) && folder.join(CONFIG_FILE).is_file() {
        return open_folder(folder, which, device);
    }
    of_weights(path, None, which, device)
}

fn open_halves(halves: [PathBuf; 2], which: Option<Which>, device: &Device) -> Result<Opened> {
    let [encoder, decoder] = halves
        .each_ref()
        .map(|half| Weights::read_model(half, which));
    let weights = TinyAutoencoder::merge(encoder?, decoder?);
    Ok(Opened {
        tokenizer: Box::new(TinyAutoencoder::from_weights(weights, device)?),
        files: halves.into(),
        latents: Some(LatentScale::UNIT),
    })
}

fn open_folder(folder: &Path, which: Option<Which>, device: &Device) -> Result<Opened> {
    let config = folder.join(CONFIG_FILE);
    if !config.is_file() {
        let inner = folder.join(PIPELINE_VAE);
        if inner.join(CONFIG_FILE).is_file() {
            return open_folder(&inner, which, device);
        }
        if let Some(halves) = halves_in(folder) {
            return open_halves(halves, which, device);
        }
        return of_weights(folder, None, which, device);
    }
    let json = std::fs::read(&config).map_err(|source| Error::reading(&config, source))?;
    let json: Value =
        serde_json::from_slice(&json).map_err(|source| Error::TokenizerConfigFile {
            path: config.clone(),
            source,
        })?;
    if json.get("_class_name").is_some() {
        return of_weights(folder, Some((&config, &json)), which, device);
    }
    let tokenizer = load_tokenizer(folder, device)?;
    let kl16 =
        serde_json::from_value(json).is_ok_and(|config: KlVaeConfig| config == KlVaeConfig::kl16());
    let said = LatentScale::read(folder, tokenizer.latent_channels())?;
    Ok(Opened {
        latents: said.or(match tokenizer.resolution() {
            None => Some(LatentScale::UNIT),
            Some(_) => kl16.then_some(LatentScale::KL16),
        }),
        tokenizer,
        files: weights_in(folder).into_iter().collect(),
    })
}

/// Weights whose names and shapes say what they are, with diffusers' configuration if there is one.
fn of_weights(
    path: &Path,
    config: Option<(&Path, &Value)>,
    which: Option<Which>,
    device: &Device,
) -> Result<Opened> {
    let checkpoint = Checkpoint::open(path)?;
    let file = checkpoint.file.clone();
    let found = checkpoint.state_dict_of(which, Architecture::is_tokenizer)?;
    let weights = Weights::of_state_dict(&checkpoint, found);
    require_both_halves(&file, &weights)?;
    let config = config
        .map(|(path, json)| Diffusers::parse(path, json))
        .transpose()?;
    let tiny = |weights: &Weights| {
        weights
            .iter()
            .any(|(name, _)| name.starts_with("decoder.layers.") || name.starts_with("decoder.1."))
    };
    let (tokenizer, latents): (Box<dyn ImageTokenizer>, _) = match config {
        Some(Diffusers::Tiny) => (
            Box::new(TinyAutoencoder::from_weights(weights, device)?),
            Some(LatentScale::UNIT),
        ),
        Some(Diffusers::Kl { sizes, latents }) => {
            let vae = KlVae::from_diffusers(weights, &sizes, device)?;
            let (channels, latents) = (vae.latent_channels(), latents);
            if let Some(found) = latents.as_ref().map(|latents| latents.mean.len())
                && ![1, channels].contains(&found)
            {
                return Err(Error::LatentStatistics {
                    path: file.with_file_name(CONFIG_FILE),
                    expected: format!("{channels} values, one of each channel"),
                    found: found.to_string(),
                });
            }
            (Box::new(vae), latents)
        }
        None if tiny(&weights) => (
            Box::new(TinyAutoencoder::from_weights(weights, device)?),
            Some(LatentScale::UNIT),
        ),
        None if Diffusers::named(&weights) => (
            Box::new(KlVae::from_diffusers(
                weights,
                &DiffusersSizes::default(),
                device,
            )?),
            None,
        ),
        None => {
            let config = KlVaeConfig::infer(&weights)?;
            let weights = KlVae::without_training_parts(weights);
            let latents = (config == KlVaeConfig::kl16()).then_some(LatentScale::KL16);
            (
                Box::new(KlVae::from_weights(&config, &weights, device)?),
                latents,
            )
        }
    };
    Ok(Opened {
        tokenizer,
        files: vec![file],
        latents,
    })
}

/// The files of both halves, if the path is one of them or would be their common name.
fn halves(path: &Path) -> Option<[PathBuf; 2]> {
    let ending = path.extension()?.to_str()?;
    let stem = path.file_stem()?.to_str()?;
    let common = match HALVES.iter().find_map(|half| stem.strip_suffix(half)) {
        Some(common) => common,
        None if path.exists() => return None,
        None => stem,
    };
    let halves = HALVES.map(|half| path.with_file_name(format!("{common}{half}.{ending}")));
    halves.iter().all(|half| half.is_file()).then_some(halves)
}

/// The files of both halves in a folder that has no other weights.
fn halves_in(folder: &Path) -> Option<[PathBuf; 2]> {
    if weights_in(folder).is_some() {
        return None;
    }
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut found: Vec<_> = entries.filter_map(|entry| halves(&entry.path())).collect();
    found.sort();
    found.dedup();
    match &mut found[..] {
        [halves] => Some(std::mem::take(halves)),
        _ => None,
    }
}

/// Names that tensors of one half of a KL-VAE begin with, by the reference and by diffusers, also where the half was
/// saved by itself; then those of the other half, and of what is no VAE.
const KL_HALVES: [(&str, &str, [&str; 2], &[&str]); 8] = [
    (
        "encoder",
        "decoder",
        ["encoder.down.0.", "encoder.mid."],
        &["decoder."],
    ),
    (
        "encoder",
        "decoder",
        ["encoder.down_blocks.0.", "encoder.mid_block."],
        &["decoder."],
    ),
    (
        "decoder",
        "encoder",
        ["decoder.up.0.", "decoder.mid."],
        &["encoder."],
    ),
    (
        "decoder",
        "encoder",
        ["decoder.up_blocks.0.", "decoder.mid_block."],
        &["encoder."],
    ),
    (
        "encoder",
        "decoder",
        ["down.0.block.", "mid.attn_1."],
        &["up.", "temb."],
    ),
    (
        "encoder",
        "decoder",
        ["down_blocks.0.resnets.", "mid_block."],
        &["up_blocks.", "time_"],
    ),
    (
        "decoder",
        "encoder",
        ["up.0.block.", "mid.attn_1."],
        &["down.", "temb."],
    ),
    (
        "decoder",
        "encoder",
        ["up_blocks.0.resnets.", "mid_block."],
        &["down_blocks.", "time_"],
    ),
];

/// Refuses one half of a tokenizer: of a tiny autoencoder, whose other half is not beside it, or of a KL-VAE.
///
/// # Errors
/// [`Error::HalfOfTiny`], [`Error::HalfOfKl`].
pub fn require_both_halves(file: &Path, weights: &Weights) -> Result<()> {
    let begin = |start: &str| weights.iter().any(|(name, _)| name.starts_with(start));
    let kl = KL_HALVES.iter().find(|(_, _, all, none)| {
        all.iter().all(|start| begin(start)) && !none.iter().any(|start| begin(start))
    });
    if let Some((found, missing, ..)) = kl {
        return Err(Error::HalfOfKl {
            path: file.into(),
            found,
            missing,
        });
    }
    let (found, missing) = match weights.guess() {
        Some(Architecture::TinyEncoder) => (HALVES[0], HALVES[1]),
        Some(Architecture::TinyDecoder) => (HALVES[1], HALVES[0]),
        _ => return Ok(()),
    };
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let ending = file.extension().unwrap_or_default().to_string_lossy();
    let other = match stem.strip_suffix(found) {
        Some(common) => file.with_file_name(format!("{common}{missing}.{ending}")),
        None => file.with_file_name(format!("…{missing}.{ending}")),
    };
    Err(Error::HalfOfTiny {
        path: file.into(),
        found: &found[1..],
        missing: &missing[1..],
        other,
    })
}

/// The tokenizer in a folder, whichever it is: `config.json` tells.
///
/// # Errors
/// When a file is missing or broken, the two do not fit together, or the kind is unknown.
pub fn load_tokenizer(
    folder: impl AsRef<Path>,
    device: &Device,
) -> Result<Box<dyn ImageTokenizer>> {
    /// All that is read here of a `config.json`; a KL-VAE's has no kind.
    #[derive(Deserialize)]
    struct Kind {
        kind: Option<String>,
    }
    let folder = folder.as_ref();
    let path = folder.join(CONFIG_FILE);
    let config = std::fs::read(&path).map_err(|source| Error::reading(&path, source))?;
    let kind = match serde_json::from_slice(&config) {
        Ok(Kind { kind }) => kind,
        Err(source) => return Err(Error::TokenizerConfigFile { path, source }),
    };
    match kind.as_deref() {
        None => Ok(Box::new(KlVae::load_dir(folder, device)?)),
        Some(PixelTokenizer::KIND) => Ok(Box::new(PixelTokenizer::load_dir(folder, device)?)),
        Some(TinyAutoencoder::KIND) => Ok(Box::new(TinyAutoencoder::load_dir(folder, device)?)),
        Some(other) => Err(Error::TokenizerKind {
            path,
            expected: TinyAutoencoder::KIND,
            found: other.into(),
        }),
    }
}
