//! Tokenizers from wherever a user has them.

use crate::device::Device;
use crate::error::Result;
use crate::hub;
use std::path::Path;
use tessera_tokenizer::{ImageTokenizer, Opened, load_tokenizer, open_tokenizer};

/// A tokenizer alone, of any kind that is known: a folder, a file of weights, or a name in the hub's cache.
///
/// # Errors
/// When a file is missing or broken.
pub fn open_vae(path: &Path, device: &Device) -> Result<Opened> {
    Ok(open_tokenizer(hub::locate(path)?, None, device.burn())?)
}

/// The tokenizer of a model folder, or the one that takes its place.
pub(crate) fn vae_of(
    folder: &Path,
    instead: Option<&Path>,
    device: &Device,
) -> Result<Box<dyn ImageTokenizer>> {
    match instead {
        Some(vae) => Ok(open_vae(vae, device)?.tokenizer),
        None => Ok(load_tokenizer(folder.join("vae"), device.burn())?),
    }
}
