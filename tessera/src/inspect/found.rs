//! What a file or folder is: a model, a run, weights, a picture, a calibration or tokens.

use super::Report;
use crate::error::{Error, Result, read_json};
use crate::model::{CARD_FILE, ModelCard, run};
use crate::params::ImageParams;
use crate::tokens::{MANIFEST_FILE, Manifest};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tessera_checkpoint::{CONFIG_FILE, weights_in};
use tessera_pictures::{read, read_metadata};
use tessera_quantize::Calibration;
use tessera_tokenizer::PixelTokenizer;
use tessera_weights::Which;

/// What a pipeline of diffusers has; its VAE is what can be used of it here.
const PIPELINE_FILE: &str = "model_index.json";

/// What a file or folder is, with what it says of itself; `kind` in JSON.
///
/// ```
/// use tessera::{Found, pictures};
///
/// let folder = tempfile::tempdir().expect("a folder");
/// let file = folder.path().join("gray.png");
/// let gray = pictures::Pixels::new(2, 3, pictures::Channels::Gray, vec![128; 6])?;
/// pictures::write_png(&file, &gray, &[], pictures::Existing::Keep)?;
/// match Found::at(&file, None)? {
///     Found::Picture(picture) => assert_eq!([picture.height, picture.width], [2, 3]),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), tessera::Error>(())
/// ```
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Found {
    /// A model folder.
    Model {
        /// What `model.json` says.
        info: Box<ModelCard>,
        /// The weights of each part, by their file in the folder.
        weights: BTreeMap<String, Report>,
    },
    /// The folder of a training run.
    Run {
        /// What it was started with.
        config: Value,
        /// The names of its checkpoint's files.
        checkpoints: Vec<String>,
        /// The last line of `metrics.jsonl`; null without one.
        last_metrics: Value,
    },
    /// Weights, in a file or a folder.
    Weights(Box<Report>),
    /// A PNG.
    Picture(PictureFile),
    /// What a quantizer needs to know of a tokenizer's latents.
    Calibration {
        /// What was measured.
        calibration: Box<Calibration>,
    },
    /// Files of tokens.
    Tokens {
        /// Their manifest.
        manifest: Box<Manifest>,
    },
}

/// A PNG and its texts.
#[derive(Debug, Serialize)]
pub struct PictureFile {
    /// In px.
    pub width: usize,
    /// In px.
    pub height: usize,
    /// 1 for gray, 3 for color.
    pub channels: usize,
    /// The text `parameters`, which people's programs read.
    pub parameters: Option<String>,
    /// The text [`ImageParams::KEYWORD`]; null without one, a string if it is no JSON.
    pub tessera: Value,
    /// The other texts, by their keyword.
    pub texts: BTreeMap<String, String>,
}

impl Found {
    /// Looks at a path. The values of weights stay on disk; `which` selects those of a training checkpoint, averaged
    /// ones where there are any unless given.
    ///
    /// # Errors
    /// When the path does not exist, is of no known kind, or is broken.
    pub fn at(path: &Path, which: Option<Which>) -> Result<Self> {
        if !path.exists() {
            return Err(Error::NoPath { path: path.into() });
        }
        if path.is_dir() {
            return Self::folder(path, which);
        }
        if !path.is_file() {
            return Ok(Self::Weights(Box::new(Report::of(path, which)?)));
        }
        let mut start = [0; 16];
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let length = file.read(&mut start).map_err(Error::io("read", path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let folder = folder.unwrap_or(Path::new("."));
        match &start[..length] {
            [0x89, b'P', b'N', b'G', ..] => Ok(Self::Picture(PictureFile::read(path)?)),
            _ if describes_folder(&name, folder) => Self::folder(folder, which),
            [b'{', ..] if !name.ends_with(".index.json") => Ok(Self::Calibration {
                calibration: Box::new(Calibration::load(path)?),
            }),
            _ => Ok(Self::Weights(Box::new(Report::of(path, which)?))),
        }
    }

    fn folder(folder: &Path, which: Option<Which>) -> Result<Self> {
        std::fs::read_dir(folder).map_err(Error::io("list", folder))?;
        let has = |name: &str| folder.join(name).exists();
        match () {
            () if has(CARD_FILE) => Self::model(folder, which),
            () if has(MANIFEST_FILE) => Ok(Self::Tokens {
                manifest: Box::new(Manifest::read(folder)?),
            }),
            () if has("checkpoint") && has("config.json") => Self::run(folder),
            () if has("model/model.json") => Self::model(&folder.join("model"), which),
            () if weights_in(folder).is_some() => {
                Ok(Self::Weights(Box::new(Report::of(folder, which)?)))
            }
            () if has(PIPELINE_FILE) && weights_in(&folder.join("vae")).is_some() => Ok(
                Self::Weights(Box::new(Report::of(&folder.join("vae"), which)?)),
            ),
            () => Err(Error::UnknownFolder {
                path: folder.into(),
            }),
        }
    }

    fn model(folder: &Path, which: Option<Which>) -> Result<Self> {
        let parts = ["", "vae", "judge"].into_iter();
        // The tokenizer of pixels has a config alone.
        // A run that has not ended has its weights in checkpoints.
        let unfinished = run::around(folder).is_some() && weights_in(folder).is_none();
        let parts = parts.filter(|part| match *part {
            "" => !unfinished,
            part => folder.join(part).exists() && !is_pixels(&folder.join(part)),
        });
        let weights = parts.map(|part| {
            let folder = folder.join(part);
            let report = Report::of(&folder, which)?;
            let name = weights_in(&folder).unwrap_or(folder);
            let name = name.file_name().unwrap_or_default();
            Ok((Path::new(part).join(name).display().to_string(), report))
        });
        Ok(Self::Model {
            weights: weights.collect::<Result<_>>()?,
            info: Box::new(ModelCard::read(folder)?),
        })
    }

    fn run(folder: &Path) -> Result<Self> {
        let config = read_json(&folder.join("config.json"), "JSON")?;
        let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
        let last_metrics = metrics
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or_default();
        let folder = folder.join("checkpoint");
        let names = || -> std::io::Result<Vec<String>> {
            std::fs::read_dir(&folder)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        let mut checkpoints = names().map_err(Error::io("read", &folder))?;
        checkpoints.retain(|name| name.ends_with(".safetensors"));
        checkpoints.sort();
        Ok(Self::Run {
            config,
            checkpoints,
            last_metrics,
        })
    }
}

/// Whether a file of JSON says what the folder around it is.
fn describes_folder(name: &str, folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).exists();
    match name {
        CARD_FILE | MANIFEST_FILE => true,
        CONFIG_FILE => has(CARD_FILE) || has("checkpoint") || weights_in(folder).is_some(),
        _ => false,
    }
}

/// Whether a tokenizer's folder has no weights because it needs none.
fn is_pixels(folder: &Path) -> bool {
    let config: Result<Value> = read_json(&folder.join(CONFIG_FILE), "JSON");
    weights_in(folder).is_none()
        && config.is_ok_and(|config| config["kind"] == PixelTokenizer::KIND)
}

impl PictureFile {
    /// Reads the pixels, which must be whole, and the texts.
    ///
    /// # Errors
    /// When the file cannot be read, or is no PNG.
    pub fn read(path: &Path) -> Result<Self> {
        let mut texts: BTreeMap<_, _> = read_metadata(path)?.into_iter().collect();
        let picture = read(path, None)?;
        let params = texts.remove(ImageParams::KEYWORD);
        Ok(Self {
            width: picture.width(),
            height: picture.height(),
            channels: picture.channels().count(),
            parameters: texts.remove("parameters"),
            tessera: params
                .map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)))
                .unwrap_or_default(),
            texts,
        })
    }
}
