//! A VAE in a folder: its sizes as JSON beside its weights under the reference's names.

use super::config::KlVaeConfig;
use super::model::KlVae;
use crate::{Error, Result};
use burn::tensor::Device;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use tessera_checkpoint::write_json;
use tessera_weights::{WeightDtype, Weights};

/// The sizes, a [`KlVaeConfig`] in JSON.
pub const CONFIG_FILE: &str = "config.json";
/// The weights, as safetensors in PyTorch's layout.
pub const WEIGHTS_FILE: &str = "model.safetensors";

impl KlVae {
    /// A network with these weights: all of them, in all of its parameters.
    ///
    /// # Errors
    /// When the sizes make no network, or name other tensors or shapes than the weights have.
    pub fn from_weights(config: &KlVaeConfig, weights: &Weights, device: &Device) -> Result<Self> {
        weights.require_room(config.elements()?)?;
        // Parameters draw their initial value at first use, so this seed is never used.
        Ok(weights.apply(config.init(0, device)?)?)
    }

    /// Loads the contents of [`CONFIG_FILE`] and [`WEIGHTS_FILE`] from memory.
    ///
    /// # Errors
    /// As [`load_dir`](Self::load_dir).
    pub fn from_bytes(
        config: &[u8],
        weights: impl Into<Cow<'static, [u8]>>,
        device: &Device,
    ) -> Result<Self> {
        let config = parse(Path::new(CONFIG_FILE), config)?;
        Self::from_weights(
            &config,
            &Weights::read_bytes(WEIGHTS_FILE, weights)?,
            device,
        )
    }

    /// Loads what [`save_dir`](Self::save_dir) wrote.
    ///
    /// # Errors
    /// When a file is missing or broken, or the two do not fit together.
    pub fn load_dir(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = folder.as_ref().join(CONFIG_FILE);
        let config = std::fs::read(&path).map_err(|source| Error::reading(&path, source))?;
        let config = parse(&path, &config)?;
        Self::from_weights(&config, &Weights::read_model(folder, None)?, device)
    }

    /// Writes [`CONFIG_FILE`] and [`WEIGHTS_FILE`] into a folder, which is made if need be. The bytes depend
    /// on the sizes and the weights alone.
    ///
    /// # Errors
    /// When a file cannot be written; the one that was there is then still whole.
    pub fn save_dir(&self, folder: impl AsRef<Path>, dtype: WeightDtype) -> Result<()> {
        save(folder.as_ref(), self.config(), &Weights::of(self), dtype)
    }
}

/// Writes the two files of a tokenizer, the sizes last.
pub(crate) fn save(
    folder: &Path,
    config: &impl Serialize,
    weights: &Weights,
    dtype: WeightDtype,
) -> Result<()> {
    // Other readers of safetensors ask for the layout.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    weights.write(folder.join(WEIGHTS_FILE), metadata, dtype)?;
    Ok(write_json(&folder.join(CONFIG_FILE), config)?)
}

fn parse(path: &Path, json: &[u8]) -> Result<KlVaeConfig> {
    serde_json::from_slice(json).map_err(|source| Error::VaeConfigFile {
        path: path.into(),
        source,
    })
}
