//! A model on disk: a folder with `config.json` and `model.safetensors`, named and laid out as PyTorch has them.
//!
//! The files are whole state dicts of the authors' module, buffers included, so that they load there as well.

use crate::{Error, GenAr, GenArConfig, Result};
use burn::tensor::Device;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use tessera_checkpoint::write_json;
use tessera_quantize::{STD_RANGE, boundaries};
use tessera_weights::{Loaded, Weight, WeightDtype, Weights};

/// What defines a model, a [`GenArConfig`] in JSON.
pub const CONFIG_FILE: &str = "config.json";
/// The weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// What the levels stand for, in the units of the released quantiser's table.
const VALUES: &str = "reconstruction_values";
/// Buffers of released checkpoints that follow from the config; no computation reads them here.
const BOUNDARIES: &str = "boundaries";
const CHANNEL_MASK: &str = "channel_mask";

/// The tensors of a state dict that are no parameters.
pub const BUFFERS: [&str; 3] = [VALUES, BOUNDARIES, CHANNEL_MASK];

impl GenAr {
    /// The state dict: every parameter, and the buffers that the authors' module has. Those are stored with 32 bits
    /// whatever the type of the file.
    pub fn weights(&self) -> Weights {
        let (levels, dims) = (self.config.levels, self.config.token_embed_dim);
        let mut weights = Weights::of(self);
        let values = weights.take(VALUES).expect("a field has this name");
        let above = |i: usize| match i % dims > i / dims {
            true => f32::NEG_INFINITY,
            false => 0.0,
        };
        let mask = (0..dims * dims).map(above).collect();
        for (name, buffer) in [
            (VALUES, values),
            (
                BOUNDARIES,
                Weight::new([levels + 1], boundaries(levels, STD_RANGE)),
            ),
            (CHANNEL_MASK, Weight::new([dims, dims], mask)),
        ] {
            weights.insert(name, buffer.exact());
        }
        weights
    }

    /// The shapes of the state dict by name; initialises nothing.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let (levels, dims) = (self.config.levels, self.config.token_embed_dim);
        let mut shapes = Weights::shapes_of(self);
        shapes.insert(BOUNDARIES.into(), vec![levels + 1]);
        shapes.insert(CHANNEL_MASK.into(), vec![dims, dims]);
        shapes
    }

    /// Writes `config.json` and `model.safetensors` into `dir`, which is made if absent; the weights come last.
    /// A `dtype` of 16 bits halves the file and rounds every weight.
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

    /// Reads what [`save_dir`](Self::save_dir) wrote, or weights in one of the field's other formats with a config
    /// beside them.
    ///
    /// # Errors
    /// A file that cannot be read, a config no model can have, tensors that are missing, unexpected or misshapen.
    pub fn load_dir(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let config = GenArConfig::load(dir.as_ref())?;
        let weights = Weights::read_model(dir, None)?;
        Self::from_weights(&config, weights, device)
    }

    /// As [`load_dir`](Self::load_dir), from the two files' contents.
    ///
    /// # Errors
    /// As `load_dir`.
    pub fn from_bytes(
        config_json: &[u8],
        safetensors: impl Into<Cow<'static, [u8]>>,
        device: &Device,
    ) -> Result<Self> {
        let config = serde_json::from_slice(config_json)
            .map_err(|source| Error::ConfigJson { path: None, source })?;
        let weights = Weights::read_bytes(WEIGHTS_FILE, safetensors)?;
        Self::from_weights(&config, weights, device)
    }

    /// A model of all `weights`; the buffers of released checkpoints are taken as such.
    ///
    /// # Errors
    /// As `load_dir`.
    pub fn from_weights(config: &GenArConfig, weights: Weights, device: &Device) -> Result<Self> {
        Self::from_weights_with(config, weights, device, &mut |_| ())
    }

    /// As [`from_weights`](Self::from_weights), telling how far it is: the largest models take seconds. Beside the
    /// model itself, one tensor at a time is in memory.
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
        if let Some(values) = weights.get(VALUES) {
            check_values(config, &values.values()?)?;
        }
        let unfilled = config.init(&vec![0.0; config.levels], 0, device);
        Ok(weights.apply_with(unfilled, progress)?)
    }
}

impl GenArConfig {
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
        serde_json::from_slice(&json).map_err(|source| Error::ConfigJson {
            path: Some(path),
            source,
        })
    }

    /// Writes `config.json` into a folder, which is made if absent.
    ///
    /// # Errors
    /// [`Error::Weights`] when it cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        Ok(write_json(&dir.as_ref().join(CONFIG_FILE), self)?)
    }
}

fn check_values(config: &GenArConfig, values: &[f32]) -> Result<()> {
    let found = match values.iter().find(|value| !value.is_finite()) {
        Some(value) => value.to_string(),
        None if values.len() != config.levels => format!("{} values", values.len()),
        None => return Ok(()),
    };
    Err(Error::Values {
        name: VALUES,
        expected: config.levels,
        found,
    })
}
