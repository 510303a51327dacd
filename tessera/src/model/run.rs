//! Which weights a model of a run's folder has: those of its end, or of a checkpoint while there is no end yet.

use super::card::CARD_FILE;
use crate::error::{Error, Result, read_json};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tessera_checkpoint::{CONFIG_FILE, weights_in};
use tessera_weights::Which;

/// The folder of a run's checkpoints.
const CHECKPOINTS: &str = "checkpoint";
/// The folder of what a run makes.
pub(super) const MODEL: &str = "model";
/// What `config.json` calls the runs that make a model which draws.
const KINDS: [&str; 2] = ["gen-ar", "gen-dit"];

/// Whether a folder is a run's.
fn is_run(folder: &Path) -> bool {
    folder.join(CHECKPOINTS).is_dir() && folder.join(CONFIG_FILE).is_file()
}

/// The run that a model's folder is the end of.
pub(crate) fn around(model: &Path) -> Option<&Path> {
    let run = model.parent()?;
    (model.file_name() == Some(OsStr::new(MODEL)) && is_run(run)).then_some(run)
}

/// The model's folder of the run that a checkpoint is of.
pub(super) fn of_checkpoint(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    let model = folder.parent()?.join(MODEL);
    let known = folder.file_name() == Some(OsStr::new(CHECKPOINTS));
    (known && model.join(CARD_FILE).is_file()).then_some(model)
}

/// The checkpoint to read for the model in `folder`, which was opened by `path`; none where the folder's own weights are
/// meant. A run ends with the average, so that its raw weights are those of its last checkpoint.
///
/// # Errors
/// When there is no whole checkpoint.
pub(super) fn checkpoint(
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
    match newest(run)? {
        Some(file) => Ok(Some(file)),
        None => Err(Error::NoCheckpoint { run: run.into() }),
    }
}

/// Refuses a run's folder that has no model.
///
/// # Errors
/// When it is one.
pub(super) fn require_none(path: &Path) -> Result<()> {
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
