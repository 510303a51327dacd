//! Files that are whole or absent: written under a temporary name in the same folder, then renamed.

use crate::error::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use tessera_files::Existing;

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

/// Writes a folder of files that belong together, as [`tessera_files::write_folder_atomically`] does: whole or not at
/// all, whatever kills its writer. `owns` says by name which entries of a folder to be replaced go with it.
///
/// # Errors
/// Those of `write`, and [`Error::Io`].
pub fn write_folder_atomically<T, E: From<Error>>(
    path: &Path,
    existing: Existing,
    owns: impl Fn(&OsStr) -> bool,
    write: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    enum Failed<E> {
        Write(E),
        Place(tessera_files::Error),
    }
    impl<E> From<tessera_files::Error> for Failed<E> {
        fn from(error: tessera_files::Error) -> Self {
            Self::Place(error)
        }
    }
    let write = |aside: &Path| write(aside).map_err(Failed::Write);
    tessera_files::write_folder_atomically(path, existing, owns, write).map_err(|error| match error
    {
        Failed::Write(error) => error,
        Failed::Place(error) => Error::from(error).into(),
    })
}

/// Makes a folder with all above it, so that a power cut does not lose them.
///
/// # Errors
/// [`Error::Io`].
pub fn create_folder(path: &Path) -> Result<()> {
    Ok(tessera_files::create_folder(path)?)
}

/// The names in a folder that count: without hidden ones. None if nothing is at `path`.
///
/// # Errors
/// [`Error::Io`].
pub fn visible_entries(path: &Path) -> Result<Vec<OsString>> {
    Ok(tessera_files::visible_entries(path)?)
}

/// Whether nothing is at `path`, or a folder that has no [`visible_entries`].
///
/// # Errors
/// [`Error::Io`].
pub fn is_vacant(path: &Path) -> Result<bool> {
    Ok(tessera_files::is_vacant(path)?)
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
