//! SHA-256 of what a result was made with.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tessera_pictures::dataset::{Dataset, spaced};

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

/// Values of images that a digest of a data set reads, so that it takes a second at most where reading is decoding.
const DIGESTED: usize = 1 << 26;

/// SHA-256 of a data set: the names of its classes, its labels, and its images, each value rounded to 8 bits. Of images
/// with more values than 2^26 together as many are read, evenly spaced.
///
/// # Errors
/// When an image cannot be read.
pub fn sha256_of_data(data: &dyn Dataset) -> Result<String> {
    let mut hasher = Sha256::new();
    for name in data.class_names() {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
    }
    hasher.update((data.len() as u64).to_le_bytes());
    for index in 0..data.len() {
        hasher.update((data.label(index) as u64).to_le_bytes());
    }
    if !data.is_empty() {
        let values = data.image(0)?.len().max(1);
        for index in spaced(data.len(), (DIGESTED / values).max(1)) {
            let image = data.image(index)?;
            let (channels, height, width) = image.dim();
            for side in [channels, height, width] {
                hasher.update((side as u64).to_le_bytes());
            }
            let levels = image
                .iter()
                .map(|value| (value * 127.5 + 127.5).round() as u8);
            hasher.update(levels.collect::<Vec<u8>>());
        }
    }
    Ok(hexadecimal(&hasher.finalize()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The last part of a path, in words: what to call a model that has no name of its own.
pub fn base_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.into());
    let name = whole.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
