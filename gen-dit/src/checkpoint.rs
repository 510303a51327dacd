//! Model folders: `config.json` and `model.safetensors`, a state dict with DiT's names.

use crate::{Dit, DitConfig, Result};
use burn::tensor::Device;
use std::collections::BTreeMap;
use std::path::Path;
use tessera_checkpoint::{read_json, write_json};
use tessera_moe::threshold_name;
use tessera_weights::{Loaded, WeightDtype, Weights};

pub use tessera_checkpoint::{CONFIG_FILE, WEIGHTS_FILE};

impl Dit {
    /// The state dict. Thresholds stay f32 whatever the file's type, because scores are compared with them.
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

    /// The shapes of the state dict by name, without initializing a parameter.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        Weights::shapes_of(self)
    }

    /// Writes `config.json`, then `model.safetensors`, into `dir`, which is created if absent.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) when a file cannot be written.
    pub fn save_dir(&self, dir: impl AsRef<Path>, dtype: WeightDtype) -> Result<()> {
        let dir = dir.as_ref();
        self.config.save(dir)?;
        let weights = self.weights();
        Ok(weights.write(dir.join(WEIGHTS_FILE), BTreeMap::new(), dtype)?)
    }

    /// Loads a folder written by [`save_dir`](Self::save_dir), or one with a config and weights of another supported
    /// format.
    ///
    /// # Errors
    /// A file that cannot be read, an invalid config, tensors that are missing, unexpected or of a wrong shape.
    pub fn load_dir(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let config = DitConfig::load(dir.as_ref())?;
        let weights = Weights::read_model(dir, None)?;
        Self::from_weights(&config, weights, device, &mut |_| ())
    }

    /// A model with all of `weights`, with a progress callback.
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
        weights.require_room(config.elements())?;
        Ok(weights.apply_with(config.init(0, device), progress)?)
    }
}

/// The prefix of a block's parameter names.
pub(crate) fn block_name(block: usize) -> String {
    format!("blocks.{block}")
}

impl DitConfig {
    /// Reads `config.json` in a folder.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) if it is absent or not the JSON of a config.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        Ok(read_json(&dir.as_ref().join(CONFIG_FILE))?)
    }

    /// Writes `config.json` into a folder, which is created if absent.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) if it cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        Ok(write_json(&dir.as_ref().join(CONFIG_FILE), self)?)
    }
}
