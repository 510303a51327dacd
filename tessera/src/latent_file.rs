//! Latents of a data set in a file, so that training encodes its images once.

use crate::error::{Error, Result};
use ndarray::Array4;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tessera_checkpoint::{Checkpoint, Dtype, Entry, write};
use tessera_weights::encode;

/// The layout of the file.
const SCHEMA: &str = "tessera.means/v1";
const UPRIGHT: &str = "latents";
const MIRRORED: &str = "latents_mirrored";

/// The latents of every image of a data set, one each: means, where a tokenizer gives distributions.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentFile {
    /// `[images, channels, height, width]`, unscaled.
    pub latents: Array4<f32>,
    /// The same of the images mirrored left to right.
    pub mirrored: Option<Array4<f32>>,
    /// What they are of: the tokenizer's weights, the data, the size of the images.
    pub provenance: Value,
}

impl LatentFile {
    /// Writes the file: whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let parts = [
            (UPRIGHT, Some(&self.latents)),
            (MIRRORED, self.mirrored.as_ref()),
        ];
        let parts: Vec<_> = parts
            .into_iter()
            .filter_map(|(name, part)| Some((name, part?.as_standard_layout())))
            .collect();
        let entries = parts.iter().map(|(name, part)| Entry {
            name: (*name).into(),
            dtype: Dtype::F32,
            shape: part.shape().into(),
            bytes: Box::new(move |file| {
                let values = part.as_slice().expect("it is in standard layout");
                encode(Dtype::F32, values, file)
            }),
        });
        let metadata = BTreeMap::from([
            ("schema".to_owned(), SCHEMA.to_owned()),
            ("provenance".to_owned(), self.provenance.to_string()),
        ]);
        Ok(write(path, &metadata, entries.collect())?)
    }

    /// Reads the file, if it is of `provenance`; `None` if it is of anything else.
    ///
    /// # Errors
    /// When it is none, or damaged.
    pub fn read(path: &Path, provenance: &Value) -> Result<Option<Self>> {
        let Checkpoint {
            metadata, tensors, ..
        } = Checkpoint::open(path)?;
        let said = metadata
            .get("provenance")
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        if metadata.get("schema").is_none_or(|schema| schema != SCHEMA)
            || said.as_ref() != Some(provenance)
        {
            return Ok(None);
        }
        let part = |name: &str| -> Result<Option<Array4<f32>>> {
            let Some(tensor) = tensors.get(name) else {
                return Ok(None);
            };
            let wrong = || Error::Invalid {
                what: "latents of a file",
                expected: "4 axes".into(),
                found: format!("{:?}", tensor.shape()),
            };
            let &[images, channels, height, width] = tensor.shape() else {
                return Err(wrong());
            };
            let shape = (images, channels, height, width);
            let part = Array4::from_shape_vec(shape, tensor.values()?);
            Ok(Some(part.map_err(|_| wrong())?))
        };
        let mirrored = part(MIRRORED)?;
        Ok(part(UPRIGHT)?.map(|latents| Self {
            latents,
            mirrored,
            provenance: provenance.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn latents_are_read_as_they_were_written_and_only_as_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latents.safetensors");
        let latents = Array4::from_shape_fn((2, 3, 4, 5), |(i, c, h, w)| {
            (i * 1000 + c * 100 + h * 10 + w) as f32
        });
        let mut file = LatentFile {
            mirrored: Some(latents.mapv(|value| -value)),
            latents,
            provenance: json!({ "data": "a" }),
        };
        for mirrored in [file.mirrored.clone(), None] {
            file.mirrored = mirrored;
            file.write(&path).unwrap();
            let found = LatentFile::read(&path, &file.provenance).unwrap();
            assert_eq!(found.as_ref(), Some(&file));
        }
        let other = LatentFile::read(&path, &json!({ "data": "b" })).unwrap();
        assert_eq!(other, None);
    }
}
