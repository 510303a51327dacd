//! `tessera inspect`: what a file or folder is and what is in it.

use crate::args::{Global, WeightsKind};
use crate::output;
use crate::progress::loading;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::PathBuf;
use tessera::{
    ArCard, DitCard, Found, ImageParams, ModelCard, PictureFile, Which, hub, model_folder,
    require_parts,
};

/// Say what a file or folder is: a model, a run, weights, a picture, a calibration, tokens.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera inspect out/00000.png\n  \
    tessera inspect runs/ar/model\n  \
    tessera inspect checkpoint-last.pth --weights raw\n  \
    tessera inspect model.safetensors --verify --json")]
pub struct Inspect {
    /// What to look at: a path, or org/name in the hub's cache.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Read every value of weights, make the model of them, and say how much memory that took.
    #[arg(long = "verify", alias = "check")]
    check: bool,
    /// Which weights of a training checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND")]
    weights: Option<WeightsKind>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Looks and prints.
    ///
    /// # Errors
    /// When the path does not exist, is of no known kind, or is broken.
    pub fn run(self, global: &Global) -> Result<()> {
        let path = hub::locate(&self.path)?;
        let which = self.weights.map(Which::from);
        let mut found = Found::at(&path, which)?;
        match &mut found {
            Found::Weights(weights) if self.check => {
                let device = global.open()?;
                loading(global.quiet, |progress| {
                    weights.check(which, &device, progress)
                })?;
            }
            Found::Model { weights, .. } if self.check => {
                let device = global.open()?;
                for part in weights.values_mut() {
                    loading(global.quiet, |progress| {
                        part.check(which, &device, progress)
                    })?;
                }
                if let Some(folder) = model_folder(&path) {
                    require_parts(&folder).with_context(|| format!("in {}", folder.display()))?;
                }
            }
            _ if self.check => bail!("{}: --verify is for weights", path.display()),
            _ => {}
        }
        match self.json {
            true => output::report("tessera.inspect/v1", &found),
            false => output::text(described(&describe(&found)?)),
        }
    }
}

/// What a line says of patches, where tokens are some.
fn in_patches(patch_size: usize) -> String {
    match patch_size {
        1 => String::new(),
        side => format!(", patches of {side} x {side} latents"),
    }
}

/// A model's card, in lines.
fn card(card: &ModelCard) -> Result<Vec<String>> {
    let count = card.class_names().len();
    let classes = format!("classes: {}", card.class_names().join(", "));
    let (head, quantizer, sampling) = match card {
        ModelCard::Ar(ArCard {
            name,
            img_size,
            picture_size,
            quantizer: spread,
            patch_size,
            sampling,
            ..
        }) => (
            format!(
                "model {name}: pictures of {picture_size} px (inside {img_size} px), {count} classes"
            ),
            Some(format!(
                "quantizer: {} bits over ±{}{}",
                spread.bits_in_words(),
                spread.range,
                in_patches(*patch_size)
            )),
            serde_json::to_string(sampling)?,
        ),
        ModelCard::Dit(DitCard {
            name,
            img_size,
            sampling,
            ..
        }) => (
            format!("diffusion transformer {name}: pictures of {img_size} px, {count} classes"),
            None,
            serde_json::to_string(sampling)?,
        ),
    };
    let mut lines = vec![head, classes];
    lines.extend(quantizer);
    lines.push(format!("sampling: {sampling}"));
    Ok(lines)
}

/// The lines as a terminal shows them. What breaks a line is in names and texts of the file: none may forge another,
/// so that what follows a break is indented.
fn described(lines: &[String]) -> String {
    let shown = lines.iter().map(|line| {
        let parts = line.split('\n').map(|part| output::shown(part).to_string());
        parts.collect::<Vec<_>>().join("\n  ")
    });
    shown.collect::<Vec<_>>().join("\n")
}

/// What was found, in lines.
fn describe(found: &Found) -> Result<Vec<String>> {
    Ok(match found {
        Found::Model { info, weights } => {
            let mut lines = card(info)?;
            lines.extend(weights.iter().map(|(file, weights)| {
                format!("{file}: {}, sha256 {}", weights.summary(), weights.sha256)
            }));
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
        Found::Weights(weights) => weights.describe(),
        Found::Picture(PictureFile {
            width,
            height,
            channels,
            parameters,
            tessera,
            texts,
        }) => {
            let mut lines = vec![format!("PNG, {width}x{height} px, {channels} channel(s)")];
            lines.extend(parameters.clone());
            lines.extend(
                (!tessera.is_null()).then(|| format!("{}: {tessera:#}", ImageParams::KEYWORD)),
            );
            lines.extend(texts.iter().map(|(key, text)| format!("{key}: {text}")));
            lines.extend((lines.len() == 1).then(|| "no metadata".into()));
            lines
        }
        Found::Calibration { calibration } => {
            vec![calibration.to_string().trim_end().into()]
        }
        Found::Tokens { manifest } => {
            let [height, width] = manifest.grid;
            let bits = manifest.quantizer.bits_in_words();
            vec![
                format!(
                    "tokens of {} pictures in {} file(s)",
                    manifest.pictures.len(),
                    manifest.shards.len()
                ),
                format!(
                    "{height} x {width} tokens of {} dimensions, {bits} bits{}",
                    manifest.dimensions,
                    in_patches(manifest.patch_size)
                ),
                format!(
                    "model {}, vae sha256 {}",
                    manifest.model, manifest.vae_sha256
                ),
            ]
        }
    })
}
