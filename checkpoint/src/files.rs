//! Files that are whole or absent: written under a temporary name in the same folder, then renamed.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use tessera_files::{Existing, create_folder};

/// The config in a model folder.
pub const CONFIG_FILE: &str = "config.json";
/// The weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Writes `path` through `write`; a kill or a power cut at any instant leaves the old file, or none, or the new one.
/// The folder is made if it does not exist.
///
/// # Errors
/// [`Error::Io`], with nothing left behind.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    Ok(tessera_files::write_atomically(
        path,
        Existing::Replace,
        write,
    )?)
}

/// Writes a value as JSON for people, with a line break at its end: whole or not at all. The folder is made if absent.
///
/// # Errors
/// [`Error::Io`]; [`Error::Json`] if the value has no form in JSON.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value).map_err(|source| Error::Json {
        file: path.into(),
        source,
    })?;
    write_atomically(path, |file| writeln!(file, "{json}"))
}

/// Reads a value from a JSON file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Json`] if the file is not the JSON of such a value.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let json = fs::read(path).map_err(Error::io("cannot read", path))?;
    serde_json::from_slice(&json).map_err(|source| Error::Json {
        file: path.into(),
        source,
    })
}

/// Removes what killed writers left in `folder`.
///
/// # Errors
/// [`Error::Io`] if it cannot be listed.
pub fn remove_temporaries(folder: &Path) -> Result<()> {
    tessera_files::remove_temporaries(folder).map_err(Error::io("cannot list", folder))
}
