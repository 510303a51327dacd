//! IDX files, the format of MNIST and its family, plain or gzipped.

use super::Dataset;
use crate::error::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use ndarray::{Array3, ArrayView2};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The type byte of an IDX file of unsigned bytes.
const UNSIGNED_BYTE: u8 = 0x08;
/// The first bytes of every gzip file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// An array of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    /// Axis lengths.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Vec<u8>,
}

impl Idx {
    /// Reads a file of `axes` axes; gzip is recognized by its content.
    ///
    /// # Errors
    /// When the file cannot be read, has another type or number of axes, or is shorter or longer than it says.
    pub fn read(path: impl AsRef<Path>, axes: usize) -> Result<Self> {
        let path = path.as_ref();
        let unreadable = || |source| Error::reading(path, source);
        let mut file = BufReader::new(File::open(path).map_err(unreadable())?);
        let zipped = file
            .fill_buf()
            .map_err(unreadable())?
            .starts_with(&GZIP_MAGIC);
        match zipped {
            true => Self::parse(path, MultiGzDecoder::new(file), axes),
            false => Self::parse(path, file, axes),
        }
    }

    fn parse(path: &Path, mut reader: impl Read, axes: usize) -> Result<Self> {
        let truncated = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::format(path, "the header", "an IDX header", "cut short")
            }
            _ => Error::reading(path, error),
        };
        let mut magic = [0; 4];
        reader.read_exact(&mut magic).map_err(truncated)?;
        let expected = [0, 0, UNSIGNED_BYTE, axes as u8];
        if magic != expected {
            let [found, expected] =
                [magic, expected].map(|m| format!("0x{:08x}", u32::from_be_bytes(m)));
            return Err(Error::format(path, "the magic number", expected, found));
        }
        let mut shape = Vec::with_capacity(axes);
        for _ in 0..axes {
            let mut length = [0; 4];
            reader.read_exact(&mut length).map_err(truncated)?;
            shape.push(u32::from_be_bytes(length) as usize);
        }
        let bytes = shape
            .iter()
            .try_fold(1_usize, |bytes, &length| bytes.checked_mul(length));
        let wrong = |found: String| {
            Error::format(
                path,
                "the data",
                format!("{} bytes for {shape:?}", shape_bytes(bytes)),
                found,
            )
        };
        let expected = bytes.ok_or_else(|| wrong("impossible".into()))?;
        // Grows with what is there, not with what the header claims; one byte more shows a longer file.
        let mut data = Vec::new();
        let limit = (expected as u64).saturating_add(1);
        reader
            .take(limit)
            .read_to_end(&mut data)
            .map_err(|source| Error::reading(path, source))?;
        match data.len() {
            found if found == expected => Ok(Self { shape, data }),
            found if found > expected => Err(wrong("more".into())),
            found => Err(wrong(format!("{found} bytes"))),
        }
    }
}

fn shape_bytes(bytes: Option<usize>) -> String {
    bytes.map_or("too many".into(), |bytes| bytes.to_string())
}

/// Which half of a data set of the MNIST family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// `train-…`
    Train,
    /// `t10k-…`
    Test,
}

/// A data set of the MNIST family: one-channel images, classes `0`, `1`, …
#[derive(Debug, Clone)]
pub struct Mnist {
    name: String,
    images: Idx,
    labels: Vec<u8>,
    class_names: Vec<String>,
}

/// Finds and reads `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]` in a folder, which names the data set.
///
/// # Errors
/// When a file is absent or malformed, or images and labels are not equally many.
pub fn load_mnist_folder(folder: impl AsRef<Path>, split: Split) -> Result<Mnist> {
    let folder = folder.as_ref();
    let images = Idx::read(find(folder, split, "images-idx3")?, 3)?;
    let labels_file = find(folder, split, "labels-idx1")?;
    let labels = Idx::read(&labels_file, 1)?.data;
    if labels.len() != images.shape[0] {
        let expected = format!("{}, one per image", images.shape[0]);
        return Err(Error::format(
            &labels_file,
            "the number of labels",
            expected,
            labels.len(),
        ));
    }
    if images.data.is_empty() {
        let expected = "images".into();
        return Err(Error::NoData {
            folder: folder.into(),
            expected,
        });
    }
    let classes = labels
        .iter()
        .max()
        .map_or(0, |&largest| usize::from(largest) + 1);
    let name = folder.canonicalize().unwrap_or_else(|_| folder.into());
    Ok(Mnist {
        name: name
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        images,
        labels,
        class_names: (0..classes).map(|class| class.to_string()).collect(),
    })
}

fn find(folder: &Path, split: Split, kind: &str) -> Result<PathBuf> {
    let split = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    let name = format!("{split}-{kind}-ubyte");
    let candidates = [folder.join(&name), folder.join(format!("{name}.gz"))];
    let found = candidates.into_iter().find(|file| file.is_file());
    found.ok_or_else(|| Error::NoData {
        folder: folder.into(),
        expected: format!("{name} or {name}.gz"),
    })
}

impl Dataset for Mnist {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index].into()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn image(&self, index: usize) -> Result<Array3<f32>> {
        let (height, width) = (self.images.shape[1], self.images.shape[2]);
        let pixels = &self.images.data[index * height * width..][..height * width];
        let pixels = ArrayView2::from_shape((height, width), pixels)
            .expect("the file was checked to hold every image whole");
        Ok(pixels
            .mapv(|byte| f32::from(byte) / 127.5 - 1.0)
            .insert_axis(ndarray::Axis(0)))
    }
}
