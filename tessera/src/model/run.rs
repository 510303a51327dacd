//! Where a model's folder is, and which weights it has in a run: those of the end, or of a checkpoint before there is
//! one.

use crate::error::{Error, Result, read_json};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tessera_checkpoint::{CONFIG_FILE, weights_in};
use tessera_weights::Which;

/// The file that makes a folder a model's.
pub const CARD_FILE: &str = "model.json";
/// The folder of a run's checkpoints.
const CHECKPOINTS: &str = "checkpoint";
/// The folder of what a run makes.
const MODEL: &str = "model";
/// What `config.json` calls the runs that make a model which draws.
const KINDS: [&str; 2] = ["gen-ar", "gen-dit"];

/// The folder with a model's card: the path itself, `model` in a run's folder, or the folder around the path if that is
/// the card, the config or the weights of a model's folder, or a checkpoint of a run's.
pub fn model_folder(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return folder_around(path).or_else(|| of_checkpoint(path));
    }
    let folders = [path.to_owned(), path.join(MODEL)];
    folders
        .into_iter()
        .find(|folder| folder.join(CARD_FILE).is_file())
}

/// The model's folder that a file is a part of.
fn folder_around(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    let folder = match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    };
    let name = file.file_name()?;
    let described = [CARD_FILE, CONFIG_FILE].iter().any(|known| name == *known);
    let weights = || weights_in(folder).is_some_and(|weights| weights.file_name() == Some(name));
    (folder.join(CARD_FILE).is_file() && (described || weights())).then(|| folder.to_owned())
}

/// Whether a folder is a run's.
pub(crate) fn is_run(folder: &Path) -> bool {
    folder.join(CHECKPOINTS).is_dir() && folder.join(CONFIG_FILE).is_file()
}

/// The run that a model's folder is the end of, by the folder's name or, where that does not tell (`.`, a link), by its
/// place.
pub(crate) fn around(model: &Path) -> Option<PathBuf> {
    let by_name = |model: &Path| {
        let run = model.parent()?;
        (model.file_name() == Some(OsStr::new(MODEL)) && is_run(run)).then(|| run.to_owned())
    };
    by_name(model).or_else(|| by_name(&model.canonicalize().ok()?))
}

/// The model's folder of the run that a checkpoint is of.
fn of_checkpoint(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    let model = folder.parent()?.join(MODEL);
    let known = folder.file_name() == Some(OsStr::new(CHECKPOINTS));
    (known && model.join(CARD_FILE).is_file()).then_some(model)
}

/// The checkpoint to read for the model in `folder`, which was opened by `path`; none where the folder's own weights
/// are meant. A run ends with the average, so that its raw weights are those of its last checkpoint.
///
/// # Errors
/// When there is no whole checkpoint.
pub(crate) fn checkpoint(
    path: &Path,
    folder: &Path,
    which: Option<Which>,
) -> Result<Option<PathBuf>> {
    let Some(run) = around(folder) else {
        return Ok(None);
    };
    if path.is_file() && of_checkpoint(path).as_deref() == Some(folder) {
        return Ok(Some(path.into()));
    }
    if weights_in(folder).is_some() && which != Some(Which::Raw) {
        return Ok(None);
    }
    match newest(&run)? {
        Some(file) => Ok(Some(file)),
        None => Err(Error::NoCheckpoint { run }),
    }
}

/// Refuses a run's folder that has no model.
///
/// # Errors
/// When it is one.
pub(crate) fn require_none(path: &Path) -> Result<()> {
    if !is_run(path) {
        return Ok(());
    }
    let config: serde_json::Value = read_json(&path.join(CONFIG_FILE), "JSON")?;
    let kind = config["kind"].as_str().unwrap_or("unknown kind");
    if !KINDS.contains(&kind) {
        return Err(Error::Format {
            path: path.into(),
            what: "kind of the run",
            expected: KINDS.join(" or "),
            found: kind.into(),
        });
    }
    Err(match newest(path)? {
        Some(newest) => Error::Unfinished {
            run: path.into(),
            newest,
        },
        None => Error::NoCheckpoint { run: path.into() },
    })
}

#[cfg(feature = "train")]
fn newest(run: &Path) -> Result<Option<PathBuf>> {
    Ok(tessera_train::newest_whole(run)?.map(|(_, file)| file))
}

/// Only trainings know which checkpoint is whole.
#[cfg(not(feature = "train"))]
fn newest(_: &Path) -> Result<Option<PathBuf>> {
    Ok(None)
}
