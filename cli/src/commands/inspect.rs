//! `tessera inspect`: what a file or folder is and what is in it.

use crate::args::{Global, WeightsKind};
use crate::output;
use crate::progress::loading;
use anyhow::{Result, bail};
use clap::Args;
use std::path::PathBuf;
use tessera::{ArCard, DitCard, Found, ImageParams, ModelCard, PictureFile, Which, hub};

/// Say what a file or folder is: a model, a run, weights, a picture, a calibration, tokens.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera inspect out/00000.png\n  \
    tessera inspect runs/ar/model\n  \
    tessera inspect checkpoint-last.pth --weights raw\n  \
    tessera inspect model.safetensors --check --json")]
pub struct Inspect {
    /// What to look at: a path, or org/name in the hub's cache.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Read every value of weights, make the model of them, and say how much memory that took.
    #[arg(long)]
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
                    weights.check(&path, which, &device, progress)
                })?;
            }
            _ if self.check => bail!("{}: --check is for weights", path.display()),
            _ => {}
        }
        match self.json {
            true => output::report("tessera.inspect/v1", &found),
            false => output::text(describe(&found)?.join("\n")),
        }
    }
}

fn look(path: &Path, which: Option<Which>) -> Result<Found> {
    ensure!(path.exists(), "{}: no such file or folder", path.display());
    if path.is_dir() {
        return look_into(path, which);
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
        _ if name == MANIFEST_FILE => look_into(
            path.parent()
                .filter(|folder| *folder != Path::new(""))
                .unwrap_or(Path::new(".")),
            which,
        ),
        [b'{', ..] if !name.ends_with(".index.json") => Ok(Found::Calibration {
            calibration: Box::new(Calibration::load(path)?),
        }),
        _ => Ok(Found::Weights(Box::new(WeightsReport::of(path, which)?))),
    }
}

fn look_into(folder: &Path, which: Option<Which>) -> Result<Found> {
    let has = |name: &str| folder.join(name).exists();
    if has(CARD_FILE) {
        let parts = ["", "vae", "judge"]
            .into_iter()
            .filter(|part| part.is_empty() || has(part));
        let weights = parts
            .map(|part| {
                let folder = folder.join(part);
                let report = WeightsReport::of(&folder, which)?;
                let name = weights_in(&folder).unwrap_or(folder);
                let name = name.file_name().unwrap_or_default().to_string_lossy();
                Ok((Path::new(part).join(&*name).display().to_string(), report))
            })
            .collect::<Result<_>>()?;
        return Ok(Found::Model {
            info: Box::new(ModelCard::read(folder)?),
            weights,
        });
    }
    if has(MANIFEST_FILE) {
        return Ok(Found::Tokens {
            manifest: Box::new(Manifest::read(folder)?),
        });
    }
    if has("checkpoint") && has("config.json") {
        return run(folder);
    }
    if weights_in(folder).is_some() {
        return Ok(Found::Weights(Box::new(WeightsReport::of(folder, which)?)));
    }
    bail!(
        "{}: expected {CARD_FILE} (a model), {MANIFEST_FILE} (tokens), checkpoint/ and config.json (a run) or \
         weights, found none of them",
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
    let folder = folder.join("checkpoint");
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("{}: cannot read", folder.display()))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<String>>>()
        .with_context(|| format!("{}: cannot read", folder.display()))?;
    names.sort();
    Ok(Found::Run {
        config,
        checkpoints: names
            .into_iter()
            .filter(|name| name.ends_with(".safetensors"))
            .collect(),
        last_metrics,
    })
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
            sampling,
            ..
        }) => (
            format!(
                "model {name}: pictures of {picture_size} px (inside {img_size} px), {count} classes"
            ),
            Some(format!(
                "quantizer: {} bits over ±{}",
                spread.bits, spread.range
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
    })
}
