//! Files that are whole or absent: written under a temporary name in the same folder, then renamed.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// The config in a model folder.
pub const CONFIG_FILE: &str = "config.json";
/// The weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// What the names of unfinished files begin with.
const TEMPORARY: &str = ".tessera-tmp-";

/// Writes `path` through `write`; a kill at any instant leaves the old file, or none, or the new one.
/// The folder is made if it does not exist.
///
/// # Errors
/// [`Error::Io`], with nothing left behind.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let failed = || Error::io("cannot write", path);
    fs::create_dir_all(folder).map_err(failed())?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        // The default of a temporary file, owner only, would stay with the finished one.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(folder).map_err(failed())?;
    let mut buffer = BufWriter::with_capacity(1 << 20, temporary.as_file());
    write(&mut buffer)
        .and_then(|()| buffer.flush())
        .map_err(failed())?;
    drop(buffer);
    // Without it a power cut may keep the new name and lose the bytes.
    temporary.as_file().sync_all().map_err(failed())?;
    temporary
        .persist(path)
        .map_err(|error| failed()(error.error))?;
    Ok(())
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
/// [`Error::Io`].
pub fn remove_temporaries(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("cannot list", folder))? {
        let entry = entry.map_err(Error::io("cannot list", folder))?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            let path = entry.path();
            fs::remove_file(&path).map_err(Error::io("cannot remove", &path))?;
        }
    }
    Ok(())
}
