//! A model on disk: a folder with `config.json` and `model.safetensors`, named as DiT's state dict is.

use crate::{Dit, DitConfig, Error, Result};
use burn::tensor::Device;
use std::collections::BTreeMap;
use std::path::Path;
use tessera_checkpoint::write_json;
use tessera_moe::threshold_name;
use tessera_weights::{Loaded, WeightDtype, Weights};

/// What defines a model, a [`DitConfig`] in JSON.
pub const CONFIG_FILE: &str = "config.json";
/// The weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";

impl Dit {
    /// The state dict. Thresholds keep 32 bits in files of 16: scores are held against them.
    pub fn weights(&self) -> Weights {
        let mut weights = Weights::of(self);
        for layer in 0..self.config.depth {
            let name = threshold_name(&block_name(layer));
            if let Some(threshold) = weights.take(&name) {
                weights.insert(name, threshold.exact());
            }
        }
        weights
    }

    /// The shapes of the state dict by name; initialises nothing.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        Weights::shapes_of(self)
    }

    /// Writes `config.json` and `model.safetensors` into `dir`, which is made if absent; the weights come last.
    ///
    /// # Errors
    /// [`Error::Weights`] when a file cannot be written.
    pub fn save_dir(&self, dir: impl AsRef<Path>, dtype: WeightDtype) -> Result<()> {
        let dir = dir.as_ref();
        self.config.save(dir)?;
        let weights = self.weights();
        Ok(weights.write(dir.join(WEIGHTS_FILE), BTreeMap::new(), dtype)?)
    }

    /// Reads what [`save_dir`](Self::save_dir) wrote, or weights in one of the field's other formats with a config
    /// beside them.
    ///
    /// # Errors
    /// A file that cannot be read, a config no model can have, tensors that are missing, unexpected or misshapen.
    pub fn load_dir(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let config = DitConfig::load(dir.as_ref())?;
        let weights = Weights::read_model(dir, None)?;
        Self::from_weights(&config, weights, device, &mut |_| ())
    }

    /// A model of all `weights`, telling how far it is.
    ///
    /// # Errors
    /// As `load_dir`.
    pub fn from_weights(
        config: &DitConfig,
        weights: Weights,
        device: &Device,
        progress: &mut dyn FnMut(Loaded),
    ) -> Result<Self> {
        config.validate()?;
        Ok(weights.apply_with(config.init(0, device), progress)?)
    }
}

/// What the names of a block's parameters begin with.
pub(crate) fn block_name(block: usize) -> String {
    format!("blocks.{block}")
}

impl DitConfig {
    /// Reads `config.json` in a folder.
    ///
    /// # Errors
    /// When it is absent or not the JSON of a config.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().join(CONFIG_FILE);
        let json = std::fs::read(&path).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        serde_json::from_slice(&json).map_err(|source| Error::ConfigJson { path, source })
    }

    /// Writes `config.json` into a folder, which is made if absent.
    ///
    /// # Errors
    /// [`Error::Weights`] when it cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        Ok(write_json(&dir.as_ref().join(CONFIG_FILE), self)?)
    }
}
