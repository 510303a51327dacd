//! A tensor that is still in its file: type, shape and place.

use crate::error::{Error, Result};
use crate::source::Source;
use half::{bf16, f16};
use safetensors::Dtype;
use std::ops::Range;
use std::sync::Arc;

/// A named tensor of a file. Its values are read when they are asked for, and not kept.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) source: Arc<Source>,
    /// The bytes of the tensor, or of the storage that it is a view of.
    pub(crate) range: Range<u64>,
    /// CRC-32 of those bytes, where the file states it.
    pub(crate) crc32: Option<u32>,
    pub(crate) view: Option<View>,
    /// Its place in the order of the file, where the format keeps one.
    pub(crate) position: Option<usize>,
    /// What the integers of so many rows are multiplied by.
    pub(crate) scales: Option<Arc<StoredTensor>>,
}

/// Which elements of a storage a tensor is made of, where they do not simply follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// Element of the storage that the first one is.
    pub offset: usize,
    /// Elements from one index to the next, per axis.
    pub strides: Vec<usize>,
}

impl StoredTensor {
    /// Its name as the file has it, with all that stands before the model's own.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn position(&self) -> Option<usize> {
        self.position
    }

    /// Whether both are the same bytes of one file.
    pub(crate) fn is_at_the_place_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source)
            && (self.dtype, &self.shape, &self.range, &self.view)
                == (other.dtype, &other.shape, &other.range, &other.view)
    }

    /// What its elements are multiplied by, where they are weights of 8 bits; see [`scale_shape`](crate::scale_shape).
    pub fn scales(&self) -> Option<&Self> {
        self.scales.as_deref()
    }

    /// The type of the elements in the file.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Axis lengths, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many elements there are.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// How many bytes the elements take.
    pub fn length(&self) -> u64 {
        (self.elements() * self.dtype.bitsize() / 8) as u64
    }

    /// The elements as they are in the file: little-endian, row-major, contiguous.
    ///
    /// # Errors
    /// When the file can no longer be read, or its checksum says that it is damaged.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        self.with_bytes(<[u8]>::to_vec)
    }

    /// The elements as f32, multiplied by their scales if they have any. Wider floats and integers are rounded to it.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes), and for a type that is no plain number.
    pub fn values(&self) -> Result<Vec<f32>> {
        let values = self.with_bytes(|bytes| to_f32(self.dtype, bytes))?;
        let mut values = values.ok_or_else(|| self.no_number())?;
        if let Some(scales) = &self.scales
            && !values.is_empty()
        {
            let scales = scales.values()?;
            let rows = values.chunks_exact_mut(self.elements() / scales.len());
            rows.zip(scales)
                .for_each(|(row, scale)| row.iter_mut().for_each(|value| *value *= scale));
        }
        Ok(values)
    }

    /// At most `most` of the elements as f32, [evenly spaced](evenly_spaced). A checksum, which is of all bytes, is not
    /// compared.
    ///
    /// # Errors
    /// As [`values`](Self::values).
    pub fn spaced_values(&self, most: usize) -> Result<Vec<f32>> {
        let (window, size) = (
            self.source.window(self.range.clone())?,
            self.dtype.bitsize() / 8,
        );
        let mut bytes = Vec::with_capacity(most.min(self.elements()) * size);
        for index in evenly_spaced(self.elements(), most) {
            let at = match &self.view {
                Some(view) => view.element(index, &self.shape),
                None => index,
            };
            bytes.extend_from_slice(&window[at * size..][..size]);
        }
        let mut values = to_f32(self.dtype, &bytes).ok_or_else(|| self.no_number())?;
        if let Some(scales) = &self.scales
            && !values.is_empty()
        {
            let scales = scales.values()?;
            let row = self.elements() / scales.len();
            for (value, index) in values.iter_mut().zip(evenly_spaced(self.elements(), most)) {
                *value *= scales[index / row];
            }
        }
        Ok(values)
    }

    fn no_number(&self) -> Error {
        let what = format!("the type of `{}`", self.name);
        let expected = "a float or an integer of 8 to 64 bits";
        let found = format!("{:?}", self.dtype);
        Error::format(self.source.name(), what, expected, found)
    }

    fn with_bytes<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let window = self.source.window(self.range.clone())?;
        if let Some(expected) = self.crc32 {
            let found = crc32fast::hash(&window);
            if found != expected {
                return Err(Error::Checksum {
                    file: self.source.name().into(),
                    what: format!("tensor `{}`", self.name),
                    expected,
                    found,
                });
            }
        }
        let Some(view) = &self.view else {
            return Ok(read(&window));
        };
        Ok(read(&view.gather(
            &window,
            &self.shape,
            self.dtype.bitsize() / 8,
        )))
    }
}

impl View {
    /// One more than the last element of the storage that a tensor of `shape` touches; `None` beyond the address space.
    pub(crate) fn reach(&self, shape: &[usize]) -> Option<usize> {
        if shape.contains(&0) {
            return Some(self.offset);
        }
        let mut last = self.offset;
        for (&length, &stride) in shape.iter().zip(&self.strides) {
            last = last.checked_add(length.checked_sub(1)?.checked_mul(stride)?)?;
        }
        last.checked_add(1)
    }

    /// The element of the storage that the one at `index`, in row-major order, is.
    fn element(&self, mut index: usize, shape: &[usize]) -> usize {
        let axes = shape.iter().zip(&self.strides).rev();
        axes.fold(self.offset, |at, (&length, &stride)| {
            let along = index % length;
            index /= length;
            at + along * stride
        })
    }

    /// Copies the view's elements, `size` bytes each, into row-major order. The reader has checked that they exist.
    fn gather(&self, storage: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
        let elements: usize = shape.iter().product();
        let mut bytes = Vec::with_capacity(elements * size);
        let mut index = vec![0; shape.len()];
        let mut at = self.offset;
        for _ in 0..elements {
            bytes.extend_from_slice(&storage[at * size..][..size]);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                at -= self.strides[axis] * shape[axis];
                index[axis] = 0;
            }
        }
        bytes
    }
}

/// At most `most` indices of `elements` in ascending order, evenly spaced, the last one among them.
pub fn evenly_spaced(elements: usize, most: usize) -> impl Iterator<Item = usize> {
    let count = elements.min(most);
    let index = move |i: usize| ((i as u128 + 1) * elements as u128 / count as u128) as usize - 1;
    (0..count).map(index)
}

/// Numbers as f32; `None` for what is no plain number.
fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Option<Vec<f32>> {
        let (values, _) = bytes.as_chunks::<N>();
        Some(values.iter().map(|&bytes| value(bytes)).collect())
    }
    match dtype {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32),
        Dtype::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32),
        Dtype::I16 => each(bytes, |b| i16::from_le_bytes(b).into()),
        Dtype::I8 => each(bytes, |b| i8::from_le_bytes(b).into()),
        Dtype::U64 => each(bytes, |b| u64::from_le_bytes(b) as f32),
        Dtype::U32 => each(bytes, |b| u32::from_le_bytes(b) as f32),
        Dtype::U16 => each(bytes, |b| u16::from_le_bytes(b).into()),
        Dtype::F8_E4M3 => each(bytes, |[b]| e4m3_to_f32(b)),
        // The upper half of an f16.
        Dtype::F8_E5M2 => each(bytes, |[b]| f16::from_bits(u16::from(b) << 8).to_f32()),
        Dtype::U8 | Dtype::BOOL => each(bytes, |b| u8::from_le_bytes(b).into()),
        _ => None,
    }
}

/// A float of 8 bits with four of exponent and three of mantissa; it has no infinity, and one NaN of either sign.
fn e4m3_to_f32(bits: u8) -> f32 {
    let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 3 & 0xf), f32::from(bits & 7));
    let value = match (exponent, bits & 7) {
        (0xf, 7) => f32::NAN,
        (0, _) => mantissa * 2_f32.powi(-9),
        (exponent, _) => (8.0 + mantissa) * 2_f32.powi(exponent - 10),
    };
    sign * value
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The value that sign, exponent and mantissa stand for, in f64; `bias` of the exponent, `bits` of the mantissa.
    fn by_formula(byte: u8, bits: u32, bias: i32) -> f64 {
        let sign = if byte >= 128 { -1.0 } else { 1.0 };
        let exponent = i32::from((byte & 0x7f) >> bits);
        let fraction = f64::from(byte & ((1 << bits) - 1)) / f64::from(1 << bits);
        sign * match exponent {
            0 => fraction * 2_f64.powi(1 - bias),
            _ => (1.0 + fraction) * 2_f64.powi(exponent - bias),
        }
    }

    #[test]
    fn spaced_elements_are_those_of_all_elements() {
        let spaced = |elements, most| evenly_spaced(elements, most).collect::<Vec<_>>();
        assert_eq!(spaced(3, 8), [0, 1, 2]);
        assert_eq!(spaced(10, 5), [1, 3, 5, 7, 9]);
        assert_eq!(spaced(10, 3), [2, 5, 9]);
        assert_eq!(spaced(0, 3), [] as [usize; 0]);
        let bytes: Vec<u8> = (0..24).collect();
        for view in [
            None,
            Some(View {
                offset: 1,
                strides: vec![1, 6, 2],
            }),
        ] {
            let tensor = StoredTensor {
                name: "t".into(),
                dtype: Dtype::U8,
                shape: vec![2, 3, 3],
                source: Arc::new(Source::memory("file", bytes.clone())),
                range: 0..24,
                crc32: None,
                view,
                position: None,
                scales: None,
            };
            let all = tensor.values().unwrap();
            for most in [1, 4, 18, 100] {
                let expected: Vec<f32> = evenly_spaced(18, most).map(|i| all[i]).collect();
                assert_eq!(tensor.spaced_values(most).unwrap(), expected);
            }
        }
    }

    #[test]
    fn every_float_of_8_bits_is_what_its_fields_say() {
        for byte in 0..=255_u8 {
            let value = |dtype| to_f32(dtype, &[byte]).unwrap()[0];
            let (e4m3, e5m2) = (value(Dtype::F8_E4M3), value(Dtype::F8_E5M2));
            match byte & 0x7f {
                0x7f => assert!(e4m3.is_nan(), "{byte:#x}"),
                _ => assert_eq!(f64::from(e4m3), by_formula(byte, 3, 7), "{byte:#x}"),
            }
            match byte & 0x7f {
                0x7c => assert_eq!(
                    e5m2,
                    if byte >= 128 {
                        -f32::INFINITY
                    } else {
                        f32::INFINITY
                    }
                ),
                0x7d.. => assert!(e5m2.is_nan(), "{byte:#x}"),
                _ => assert_eq!(f64::from(e5m2), by_formula(byte, 2, 15), "{byte:#x}"),
            }
        }
        assert_eq!(
            to_f32(Dtype::F8_E4M3, &[0x7e, 0x01]).unwrap(),
            [448.0, 1.0 / 512.0]
        );
    }
}
