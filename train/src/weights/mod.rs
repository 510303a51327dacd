//! Named weights: what a safetensors file holds and what a module wants, held strictly against each other.
//!
//! A name is the path of the module's fields joined by `.`, which is PyTorch's state-dict key where the fields
//! have the reference's names. Values are in PyTorch's layout: `Linear.weight` is `[out, in]` here and
//! `[in, out]` in Burn.

mod mismatch;
mod walk;

pub use mismatch::{Mismatch, Misshapen, Stray, edit_distance};
pub(crate) use walk::{NamePath, flat_tensors, host_values, track_names, with_flat_tensors};

use crate::error::{Error, Result};
use crate::safetensors_file::{self, Entry};
use burn::tensor::{bf16, f16};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// How values are stored in a file. In memory they are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightDtype {
    /// 32 bits: nothing is lost.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
}

/// One named tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Axis lengths, in PyTorch's order.
    pub shape: Vec<usize>,
    /// How the file stored it (`F32` for what never was in a file).
    pub dtype: Dtype,
    /// Row-major values.
    pub data: Vec<f32>,
}

impl Weight {
    /// A tensor made in memory.
    ///
    /// # Panics
    /// If `data` does not fill `shape`.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            data.len(),
            "values do not fill the shape {shape:?}"
        );
        Self {
            shape,
            dtype: Dtype::F32,
            data,
        }
    }
}

/// Tensors by name, in the order of the names, and the metadata of their file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    file: PathBuf,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Weight>,
}

impl Weights {
    /// Reads a safetensors file of F32, F16, BF16 or F64 tensors.
    ///
    /// # Errors
    /// When the file cannot be read, is cut short or corrupt, or holds a tensor of another type.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let unreadable = || Error::io("cannot read", path);
        let file = File::open(path).map_err(unreadable())?;
        let length = file.metadata().map_err(unreadable())?.len();
        Self::read_from(path, io::BufReader::with_capacity(1 << 20, file), length)
    }

    /// Reads a safetensors file that is in memory; `name` stands for the file in errors.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_bytes(name: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        Self::read_from(name.as_ref(), bytes, bytes.len() as u64)
    }

    fn read_from(file: &Path, reader: impl Read, length: u64) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        let metadata = safetensors_file::read(file, reader, length, |name, info, bytes| {
            let data = decode(info.dtype, bytes).ok_or_else(|| Error::Format {
                file: file.into(),
                what: "the type of a tensor",
                expected: "F32, F16, BF16 or F64".into(),
                found: format!("{:?} in `{name}`", info.dtype),
            })?;
            let weight = Weight {
                shape: info.shape.clone(),
                dtype: info.dtype,
                data,
            };
            tensors.insert(name.to_owned(), weight);
            Ok(())
        })?;
        Ok(Self {
            file: file.into(),
            metadata,
            tensors,
        })
    }

    /// Writes a safetensors file whose bytes depend on the content alone: whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(
        &self,
        path: impl AsRef<Path>,
        metadata: BTreeMap<String, String>,
        dtype: WeightDtype,
    ) -> Result<()> {
        let entries = self.tensors.iter().map(|(name, weight)| Entry {
            name,
            dtype: match dtype {
                WeightDtype::F32 => Dtype::F32,
                WeightDtype::F16 => Dtype::F16,
                WeightDtype::BF16 => Dtype::BF16,
            },
            shape: &weight.shape,
            bytes: Box::new(move |file| encode(dtype, &weight.data, file)),
        });
        safetensors_file::write(path.as_ref(), &metadata, entries.collect())
    }

    /// What the file says about itself.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The file that these weights came from; empty if they were made in memory.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Weight> {
        self.tensors.get(name)
    }

    /// Names and tensors in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Weight)> {
        self.tensors.iter().map(|(name, weight)| (&**name, weight))
    }

    /// Removes a tensor, for the buffers that a checkpoint has beside the parameters.
    pub fn take(&mut self, name: &str) -> Option<Weight> {
        self.tensors.remove(name)
    }

    /// Adds a tensor; the one that had its name is returned.
    pub fn insert(&mut self, name: impl Into<String>, weight: Weight) -> Option<Weight> {
        self.tensors.insert(name.into(), weight)
    }

    /// Removes every tensor whose name begins with `prefix` and returns them without it.
    pub fn take_prefix(&mut self, prefix: &str) -> Self {
        let (taken, kept) = std::mem::take(&mut self.tensors)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(name, _)| name.starts_with(prefix));
        self.tensors = kept;
        let unprefixed = |(name, weight): (String, Weight)| (name[prefix.len()..].into(), weight);
        Self {
            file: self.file.clone(),
            metadata: self.metadata.clone(),
            tensors: taken.into_iter().map(unprefixed).collect(),
        }
    }

    /// Adds every tensor of `other`, with `prefix` before its name.
    pub fn insert_prefixed(&mut self, prefix: &str, other: Self) {
        let prefixed = other.tensors.into_iter();
        self.tensors
            .extend(prefixed.map(|(name, weight)| (format!("{prefix}{name}"), weight)));
    }
}

pub(crate) fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Option<Vec<f32>> {
        let (values, _) = bytes.as_chunks::<N>();
        Some(values.iter().map(|&bytes| value(bytes)).collect())
    }
    match dtype {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        _ => None,
    }
}

pub(crate) fn encode(dtype: WeightDtype, values: &[f32], file: &mut dyn Write) -> io::Result<()> {
    fn each<const N: usize>(
        values: &[f32],
        file: &mut dyn Write,
        bytes: impl Fn(f32) -> [u8; N],
    ) -> io::Result<()> {
        let mut block = Vec::with_capacity(4096 * N);
        for values in values.chunks(4096) {
            block.clear();
            values.iter().for_each(|&v| block.extend(bytes(v)));
            file.write_all(&block)?;
        }
        Ok(())
    }
    match dtype {
        WeightDtype::F32 => each(values, file, f32::to_le_bytes),
        WeightDtype::F16 => each(values, file, |v| f16::from_f32(v).to_le_bytes()),
        WeightDtype::BF16 => each(values, file, |v| bf16::from_f32(v).to_le_bytes()),
    }
}
