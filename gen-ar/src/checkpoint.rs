//! A model on disk: a folder with `config.json` and `model.safetensors`, named and laid out as PyTorch has them.

use crate::{Error, GenAr, GenArConfig, Result};
use burn::tensor::Device;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use tessera_quantize::{Quantizer, QuantizerConfig, Table};
use tessera_train::{Weight, WeightDtype, Weights, write_atomically};

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "model.safetensors";
/// What the levels stand for, in the normalised units that the generator embeds.
const VALUES: &str = "token_values";
/// The same in released checkpoints: in the units of the quantiser's table, for its default range.
const RELEASED_VALUES: &str = "reconstruction_values";
/// Buffers of released checkpoints that follow from the config, or that nothing reads.
const RELEASED_BUFFERS: [&str; 2] = ["boundaries", "channel_mask"];

impl GenAr {
    /// The parameters by name.
    pub fn weights(&self) -> Weights {
        Weights::of(self)
    }

    /// Writes `config.json` and `model.safetensors` into `dir`, which is made if absent; the weights come last.
    /// A `dtype` of 16 bits halves the file and rounds every weight.
    ///
    /// # Errors
    /// [`Error::Weights`] when a file cannot be written.
    pub fn save_dir(&self, dir: impl AsRef<Path>, dtype: WeightDtype) -> Result<()> {
        let dir = dir.as_ref();
        let json =
            serde_json::to_string_pretty(&self.config).expect("a config has string keys only");
        write_atomically(&dir.join(CONFIG_FILE), |file| writeln!(file, "{json}"))?;
        Ok(self
            .weights()
            .write(dir.join(WEIGHTS_FILE), BTreeMap::new(), dtype)?)
    }

    /// Reads what [`save_dir`](Self::save_dir) wrote, or a released checkpoint's tensors with a config beside them.
    ///
    /// # Errors
    /// A file that cannot be read, a config no model can have, tensors that are missing, unexpected or misshapen.
    pub fn load_dir(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = dir.as_ref().join(CONFIG_FILE);
        let json = std::fs::read(&path).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        let config = serde_json::from_slice(&json).map_err(|source| Error::ConfigJson {
            path: Some(path),
            source,
        })?;
        Self::from_weights(
            &config,
            Weights::read(dir.as_ref().join(WEIGHTS_FILE))?,
            device,
        )
    }

    /// As [`load_dir`](Self::load_dir), from the two files' contents.
    ///
    /// # Errors
    /// As `load_dir`.
    pub fn from_bytes(config_json: &[u8], safetensors: &[u8], device: &Device) -> Result<Self> {
        let config = serde_json::from_slice(config_json)
            .map_err(|source| Error::ConfigJson { path: None, source })?;
        Self::from_weights(
            &config,
            Weights::read_bytes(WEIGHTS_FILE, safetensors)?,
            device,
        )
    }

    /// A model of all `weights`; the buffers of released checkpoints are taken as such.
    ///
    /// # Errors
    /// As `load_dir`.
    pub fn from_weights(
        config: &GenArConfig,
        mut weights: Weights,
        device: &Device,
    ) -> Result<Self> {
        config.validate()?;
        for name in RELEASED_BUFFERS {
            weights.take(name);
        }
        if let Some(table) = weights.take(RELEASED_VALUES)
            && weights.get(VALUES).is_none()
        {
            let values = released_values(config, table)?;
            weights.insert(VALUES, Weight::new([values.len()], values));
        }
        if let Some(values) = weights.get(VALUES) {
            check_values(VALUES, config, &values.data)?;
        }
        let unfilled = config.init(&vec![0.0; config.levels], 0, device);
        Ok(weights.apply(unfilled)?)
    }
}

/// The normalised values of a released checkpoint's table: its quantiser ranges over ± 5.
fn released_values(config: &GenArConfig, table: Weight) -> Result<Vec<f32>> {
    check_values(RELEASED_VALUES, config, &table.data)?;
    let table = Table::from_values(table.data)?;
    let bits = table.bits();
    Ok(Quantizer::with_table(
        QuantizerConfig {
            bits,
            ..Default::default()
        },
        table,
    )?
    .values()
    .to_vec())
}

fn check_values(name: &'static str, config: &GenArConfig, values: &[f32]) -> Result<()> {
    let found = match values.iter().find(|value| !value.is_finite()) {
        Some(value) => value.to_string(),
        None if values.len() != config.levels => format!("{} values", values.len()),
        None => return Ok(()),
    };
    Err(Error::Values {
        name,
        expected: config.levels,
        found,
    })
}
