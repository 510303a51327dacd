//! Tokenizers from wherever a user has them.

use crate::device::Device;
use crate::error::Result;
use crate::hub;
use crate::model::model_folder;
use std::path::{Path, PathBuf};
use tessera_checkpoint::{CONFIG_FILE, weights_in};
use tessera_tokenizer::{ImageTokenizer, Opened, load_tokenizer, open_tokenizer};
use tessera_weights::Which;

/// The folder of the tokenizer in a model's folder and in the run of one.
const VAE: &str = "vae";

/// A tokenizer alone, of any kind that is known: a folder, a file of weights, a model's or a run's folder, or a name in
/// the hub's cache. Of a training checkpoint `which` weights; averaged ones where there are any unless given.
///
/// # Errors
/// When a file is missing or broken, or has no such weights.
pub fn open_vae(path: &Path, which: Option<Which>, device: &Device) -> Result<Opened> {
    Ok(open_tokenizer(locate_vae(path)?, which, device.burn())?)
}

/// Where the tokenizer is: in a model's folder, in a run's, or at the path itself.
///
/// # Errors
/// When the hub's cache has none of this name.
pub(crate) fn locate_vae(path: &Path) -> Result<PathBuf> {
    let path = hub::locate(path)?;
    let model = model_folder(&path);
    // Weights that are no model's may be a tokenizer's own, whatever lies beside them.
    let own = model.is_none() && (path.is_file() || weights_in(&path).is_some());
    let inner = model.as_ref().unwrap_or(&path).join(VAE);
    Ok(match !own && inner.join(CONFIG_FILE).is_file() {
        true => inner,
        false => path,
    })
}

/// The tokenizer of a model folder, or the one that takes its place.
pub(crate) fn vae_of(
    folder: &Path,
    instead: Option<&Path>,
    device: &Device,
) -> Result<Box<dyn ImageTokenizer>> {
    match instead {
        Some(vae) => Ok(open_vae(vae, None, device)?.tokenizer),
        None => Ok(load_tokenizer(folder.join(VAE), device.burn())?),
    }
}
