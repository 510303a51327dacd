//! Tensors by name, in memory or still in their file.

use crate::error::Result;
use burn::tensor::{bf16, f16};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tessera_checkpoint::{
    Architecture, Checkpoint, Dtype, Entry, SCALE_SUFFIX, Shards, StateDict, StoredTensor, Which,
    evenly_spaced, scale_shape, write_shards,
};

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
    /// 8 bits and a scale per row; vectors keep 32 bits. See [`SCALE_SUFFIX`].
    Int8,
}

impl From<WeightDtype> for Dtype {
    fn from(dtype: WeightDtype) -> Self {
        match dtype {
            WeightDtype::F32 => Self::F32,
            WeightDtype::F16 => Self::F16,
            WeightDtype::BF16 => Self::BF16,
            WeightDtype::Int8 => Self::I8,
        }
    }
}

/// One named tensor: on the host, or still in its file.
#[derive(Debug, Clone)]
pub struct Weight {
    shape: Vec<usize>,
    dtype: Dtype,
    exact: bool,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    Host(Vec<f32>),
    Stored(StoredTensor),
}

impl Weight {
    /// A tensor made in memory.
    ///
    /// # Panics
    /// If `values` do not fill `shape`.
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            values.len(),
            "values do not fill the shape {shape:?}"
        );
        Self {
            shape,
            dtype: Dtype::F32,
            exact: false,
            values: Values::Host(values),
        }
    }

    /// The same, written with 32 bits whatever the file's type: for tables and other constants.
    pub fn exact(self) -> Self {
        Self {
            exact: true,
            ..self
        }
    }

    /// Axis lengths, in PyTorch's order.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How the file stores it (`F32` for what never was in a file).
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Row-major values; those of a file are read anew at every call.
    ///
    /// # Errors
    /// When the file can no longer be read, or is damaged.
    pub fn values(&self) -> Result<Cow<'_, [f32]>> {
        Ok(match &self.values {
            Values::Host(values) => Cow::Borrowed(values),
            Values::Stored(tensor) => Cow::Owned(tensor.values()?),
        })
    }

    /// At most `most` of the values, evenly spaced, the last among them; of a file little more is read.
    ///
    /// # Errors
    /// When the file can no longer be read.
    pub fn spaced_values(&self, most: usize) -> Result<Vec<f32>> {
        Ok(match &self.values {
            Values::Host(values) => evenly_spaced(values.len(), most)
                .map(|index| values[index])
                .collect(),
            Values::Stored(tensor) => tensor.spaced_values(most)?,
        })
    }

    /// The same values under other axes; `None` if they are not as many.
    pub fn reshaped(self, shape: impl Into<Vec<usize>>) -> Option<Self> {
        let shape = shape.into();
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        (elements(&shape) == elements(&self.shape)).then_some(Self { shape, ..self })
    }

    /// The type it gets in a file of `dtype`, where `None` leaves every type as it is.
    fn written_as(&self, dtype: Option<WeightDtype>) -> Dtype {
        match (dtype, self.dtype) {
            _ if self.exact => Dtype::F32,
            (Some(WeightDtype::Int8), _) if scale_shape(&self.shape).is_none() => Dtype::F32,
            (Some(dtype), _) => dtype.into(),
            (None, kept @ (Dtype::F32 | Dtype::F16 | Dtype::BF16)) => kept,
            (None, Dtype::I8) if self.stored_scales().is_some() => Dtype::I8,
            (None, _) => Dtype::F32,
        }
    }

    /// The scales that stand beside it in its file.
    fn stored_scales(&self) -> Option<&StoredTensor> {
        match &self.values {
            Values::Stored(tensor) => tensor.scales(),
            Values::Host(_) => None,
        }
    }

    /// The scales that stand beside it in a file where it is stored in 8 bits.
    fn scales(&self, name: &str) -> Entry<'_> {
        let name = format!("{name}{SCALE_SUFFIX}").into();
        match self.stored_scales() {
            Some(scales) => Entry {
                name,
                dtype: scales.dtype(),
                shape: scales.shape().into(),
                bytes: Box::new(|file| file.write_all(&scales.bytes().map_err(io::Error::other)?)),
            },
            None => Entry {
                name,
                dtype: Dtype::BF16,
                shape: scale_shape(&self.shape)
                    .expect("8 bits are for rows")
                    .into(),
                bytes: Box::new(|file| {
                    let values = self.values().map_err(io::Error::other)?;
                    let scales: Vec<f32> = rows(&self.shape, &values).map(scale).collect();
                    encode(Dtype::BF16, &scales, file)
                }),
            },
        }
    }

    fn write(&self, dtype: Dtype, file: &mut dyn Write) -> io::Result<()> {
        match &self.values {
            Values::Stored(tensor) if tensor.dtype() == dtype => {
                file.write_all(&tensor.bytes().map_err(io::Error::other)?)
            }
            _ if dtype == Dtype::I8 => {
                let values = self.values().map_err(io::Error::other)?;
                let mut rows = rows(&self.shape, &values);
                rows.try_for_each(|row| file.write_all(&integers(row)))
            }
            _ => encode(dtype, &self.values().map_err(io::Error::other)?, file),
        }
    }
}

impl From<StoredTensor> for Weight {
    fn from(tensor: StoredTensor) -> Self {
        Self {
            shape: tensor.shape().to_vec(),
            dtype: tensor.dtype(),
            exact: false,
            values: Values::Stored(tensor),
        }
    }
}

/// Equal in shape, type and every value; values that cannot be read equal nothing.
impl PartialEq for Weight {
    fn eq(&self, other: &Self) -> bool {
        let values = |weight: &Self| weight.values().map(Cow::into_owned).ok();
        (&self.shape, self.dtype) == (&other.shape, other.dtype)
            && values(self).is_some_and(|mine| Some(mine) == values(other))
    }
}

/// Tensors by name, in the order of the names, and the metadata of their file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    pub(crate) file: PathBuf,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tensors: BTreeMap<String, Weight>,
}

impl Weights {
    /// Opens all tensors of a weights file, of any format that [`Checkpoint::open`] knows. Values stay on disk until
    /// they are asked for, so the file must stay as it is.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is no weights file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Checkpoint::open(path)?.into())
    }

    /// As [`read`](Self::read) for a file that is in memory; `name` stands for it in errors.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_bytes(
        name: impl AsRef<Path>,
        bytes: impl Into<Cow<'static, [u8]>>,
    ) -> Result<Self> {
        Ok(Checkpoint::from_bytes(name.as_ref(), bytes)?.into())
    }

    /// Opens the weights of a model: a bare state dict, or those of a training checkpoint, averaged if there is an
    /// average and `which` does not say otherwise.
    ///
    /// # Errors
    /// As [`read`](Self::read), and when the file has not what `which` asks for.
    pub fn read_model(path: impl AsRef<Path>, which: Option<Which>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let found = checkpoint.state_dict(which)?;
        Ok(Self::of_state_dict(&checkpoint, found))
    }

    /// The weights that were found in a checkpoint.
    pub fn of_state_dict(checkpoint: &Checkpoint, found: StateDict) -> Self {
        Self {
            file: checkpoint.file.clone(),
            metadata: checkpoint.metadata.clone(),
            tensors: weights(found.tensors),
        }
    }

    /// Writes a safetensors file whose bytes depend on the content alone: whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written, or a tensor that is still in its file cannot be read.
    pub fn write(
        &self,
        path: impl AsRef<Path>,
        metadata: BTreeMap<String, String>,
        dtype: WeightDtype,
    ) -> Result<()> {
        let entries = self.entries(Some(dtype));
        Ok(tessera_checkpoint::write(
            path.as_ref(),
            &metadata,
            entries,
        )?)
    }

    /// Writes `model.safetensors` into a folder, in shards where the tensors take more than `shard_bytes`. `None` for
    /// the type keeps that of every tensor. `done` is called after each.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_shards(
        &self,
        folder: &Path,
        metadata: &BTreeMap<String, String>,
        dtype: Option<WeightDtype>,
        shard_bytes: u64,
        done: impl FnMut(),
    ) -> Result<Shards> {
        let entries = self.entries(dtype);
        Ok(write_shards(
            folder,
            "model",
            metadata,
            entries,
            shard_bytes,
            done,
        )?)
    }

    fn entries(&self, dtype: Option<WeightDtype>) -> Vec<Entry<'_>> {
        let tensors = self.tensors.iter();
        tensors
            .flat_map(|(name, weight)| {
                let dtype = weight.written_as(dtype);
                let entry = Entry {
                    name: name.into(),
                    dtype,
                    shape: weight.shape().into(),
                    bytes: Box::new(move |file| weight.write(dtype, file)),
                };
                let scales = (dtype == Dtype::I8).then(|| weight.scales(name));
                [Some(entry), scales].into_iter().flatten()
            })
            .collect()
    }

    /// What the file says about itself.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The file that these weights came from; empty if they were made in memory.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The same file without its tensors.
    pub fn emptied(&self) -> Self {
        Self {
            file: self.file.clone(),
            metadata: self.metadata.clone(),
            tensors: BTreeMap::new(),
        }
    }

    /// What the weights are of, as far as their names give it away.
    pub fn guess(&self) -> Option<Architecture> {
        Architecture::of_names(self.tensors.keys().map(String::as_str))
    }

    /// The name that the file has for what is called `name` here: with the path before it, and untranslated.
    pub(crate) fn in_file<'a>(&'a self, name: &'a str) -> &'a str {
        match self.tensors.get(name).map(|weight| &weight.values) {
            Some(Values::Stored(tensor)) => tensor.name(),
            _ => name,
        }
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

impl From<Checkpoint> for Weights {
    fn from(checkpoint: Checkpoint) -> Self {
        Self {
            file: checkpoint.file,
            metadata: checkpoint.metadata,
            tensors: weights(checkpoint.tensors),
        }
    }
}

fn weights(tensors: BTreeMap<String, StoredTensor>) -> BTreeMap<String, Weight> {
    let tensors = tensors.into_iter();
    tensors
        .map(|(name, tensor)| (name, tensor.into()))
        .collect()
}

/// The runs of values that have a scale of their own.
fn rows<'a>(shape: &[usize], values: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
    let scales: usize = scale_shape(shape).map_or(1, |scales| scales.iter().product());
    values.chunks_exact((values.len() / scales).max(1))
}

/// What the integers of a row are multiplied by, so that the largest is 127; NaN if a value is not finite. It has the
/// few bits of a bf16: its product with an integer of 8 bits is exact, so what was read is written as it was.
fn scale(row: &[f32]) -> f32 {
    let largest = row
        .iter()
        .fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let finite = row.iter().all(|value| value.is_finite());
    let scale = if finite { largest / 127.0 } else { f32::NAN };
    bf16::from_f32(scale).to_f32()
}

/// A row in integers of 8 bits.
fn integers(row: &[f32]) -> Vec<u8> {
    let scale = scale(row);
    let integer = |value: &f32| (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
    row.iter()
        .map(|value| integer(value).cast_unsigned())
        .collect()
}

/// Writes values in one of the float types of 16 or 32 bits.
///
/// # Errors
/// When the file cannot be written.
pub fn encode(dtype: Dtype, values: &[f32], file: &mut dyn Write) -> io::Result<()> {
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
        Dtype::F16 => each(values, file, |v| f16::from_f32(v).to_le_bytes()),
        Dtype::BF16 => each(values, file, |v| bf16::from_f32(v).to_le_bytes()),
        _ => each(values, file, f32::to_le_bytes),
    }
}
