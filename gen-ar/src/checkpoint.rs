//! Model folders: `config.json` and `model.safetensors`. The weights file is a complete state dict of the released
//! PyTorch module, buffers included, and loads there as well.

use crate::{Error, GenAr, GenArConfig, Result};
use burn::tensor::Device;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use tessera_checkpoint::{read_json, write_json};
use tessera_quantize::{STD_RANGE, boundaries};
use tessera_weights::{Loaded, Weight, WeightDtype, Weights};

pub use tessera_checkpoint::{CONFIG_FILE, WEIGHTS_FILE};

/// The values of the levels, in the units of the released quantizer's table.
const VALUES: &str = "reconstruction_values";
/// Buffers of released checkpoints that follow from the config and are not read here.
const BOUNDARIES: &str = "boundaries";
const CHANNEL_MASK: &str = "channel_mask";

/// The tensors of a state dict that are not parameters.
pub const BUFFERS: [&str; 3] = [VALUES, BOUNDARIES, CHANNEL_MASK];

impl GenAr {
    /// The state dict: every parameter, and the buffers of the released module, which stay f32 whatever the file's
    /// type.
    pub fn weights(&self) -> Weights {
        let dims = self.config.token_embed_dim;
        let mut weights = Weights::of(self);
        let values = weights.take(VALUES).expect("a field has this name");
        weights.insert(VALUES, values.exact());
        let above = |i: usize| match i % dims > i / dims {
            true => f32::NEG_INFINITY,
            false => 0.0,
        };
        let mask = Weight::new([dims, dims], (0..dims * dims).map(above).collect());
        if self.is_released_shape() {
            let levels = self.config.levels;
            let boundaries = Weight::new([levels + 1], boundaries(levels, STD_RANGE));
            weights.insert(BOUNDARIES, boundaries.exact());
            weights.insert(CHANNEL_MASK, mask.exact());
        }
        weights
    }

    /// Whether the released module has a place for such weights. It knows one width for all dimensions, which the head
    /// predicts one at a time.
    fn is_released_shape(&self) -> bool {
        self.config.channel_levels.is_empty() && self.config.dims_per_step == 1
    }

    /// The shapes of the state dict by name, without initializing a parameter.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let (levels, dims) = (self.config.levels, self.config.token_embed_dim);
        let mut shapes = Weights::shapes_of(self);
        if self.is_released_shape() {
            shapes.insert(BOUNDARIES.into(), vec![levels + 1]);
            shapes.insert(CHANNEL_MASK.into(), vec![dims, dims]);
        }
        shapes
    }

    /// Writes `config.json`, then `model.safetensors`, into `dir`, which is created if absent. A `dtype` of 16 bits
    /// halves the file and rounds every weight.
    ///
    /// # Errors
    /// [`Error::Weights`] when a file cannot be written.
    pub fn save_dir(&self, dir: impl AsRef<Path>, dtype: WeightDtype) -> Result<()> {
        let dir = dir.as_ref();
        self.config.save(dir)?;
        Ok(self
            .weights()
            .write(dir.join(WEIGHTS_FILE), BTreeMap::new(), dtype)?)
    }

    /// Loads a folder written by [`save_dir`](Self::save_dir), or one with a config and weights of another supported
    /// format.
    ///
    /// # Errors
    /// A file that cannot be read, an invalid config, tensors that are missing, unexpected or of a wrong shape.
    pub fn load_dir(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let config = GenArConfig::load(dir.as_ref())?;
        let weights = Weights::read_model(dir, None)?;
        Self::from_weights(&config, weights, device)
    }

    /// [`load_dir`](Self::load_dir) from the contents of the two files.
    ///
    /// # Errors
    /// As `load_dir`.
    pub fn from_bytes(
        config_json: &[u8],
        safetensors: impl Into<Cow<'static, [u8]>>,
        device: &Device,
    ) -> Result<Self> {
        let config =
            serde_json::from_slice(config_json).map_err(|source| Error::ConfigJson { source })?;
        let weights = Weights::read_bytes(WEIGHTS_FILE, safetensors)?;
        Self::from_weights(&config, weights, device)
    }

    /// A model with all of `weights`, which may include the buffers of released checkpoints.
    ///
    /// # Errors
    /// As `load_dir`.
    pub fn from_weights(config: &GenArConfig, weights: Weights, device: &Device) -> Result<Self> {
        Self::from_weights_with(config, weights, device, &mut |_| ())
    }

    /// [`from_weights`](Self::from_weights) with a progress callback: large models take seconds. Beside the model,
    /// only one tensor at a time is in memory.
    ///
    /// # Errors
    /// As `load_dir`.
    pub fn from_weights_with(
        config: &GenArConfig,
        mut weights: Weights,
        device: &Device,
        progress: &mut dyn FnMut(Loaded),
    ) -> Result<Self> {
        config.validate()?;
        weights.take(BOUNDARIES);
        weights.take(CHANNEL_MASK);
        weights.require_room(config.elements())?;
        if let Some(values) = weights.get(VALUES) {
            check_values(config, &values.values()?)?;
        }
        Ok(weights.apply_with(config.unfilled(device), progress)?)
    }
}

impl GenArConfig {
    /// Reads `config.json` in a folder.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is absent or not the JSON of a config.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        Ok(read_json(&dir.as_ref().join(CONFIG_FILE))?)
    }

    /// Writes `config.json` into a folder, which is created if absent.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        Ok(write_json(&dir.as_ref().join(CONFIG_FILE), self)?)
    }
}

fn check_values(config: &GenArConfig, values: &[f32]) -> Result<()> {
    let found = match values.iter().find(|value| !value.is_finite()) {
        Some(value) => value.to_string(),
        None if values.len() != config.level_values() => format!("{} values", values.len()),
        None => return Ok(()),
    };
    Err(Error::Values {
        name: VALUES,
        expected: config.level_values(),
        found,
    })
}
