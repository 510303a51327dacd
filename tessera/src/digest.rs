//! SHA-256 of what a result was made with.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    std::io::copy(&mut file, &mut hasher).map_err(Error::io("read", path))?;
    Ok(hexadecimal(&hasher.finalize()))
}

/// SHA-256 of one file, or of several files' digests.
///
/// # Errors
/// When one cannot be read.
pub fn sha256_of_files(files: &[PathBuf]) -> Result<String> {
    let digests: Vec<String> = files
        .iter()
        .map(|file| sha256_of_file(file))
        .collect::<Result<_>>()?;
    Ok(match &digests[..] {
        [one] => one.clone(),
        several => sha256(several.concat().as_bytes()),
    })
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The last part of a path, in words: what to call a model that has no name of its own.
pub fn base_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.into());
    let name = whole.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
