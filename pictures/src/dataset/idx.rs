//! IDX files, the format of MNIST and its family, plain or gzipped.

use super::Dataset;
use crate::error::{Error, Result};
use crate::room::reserve;
use crate::walk::text_of;
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

/// The most that a byte of a gzip file unpacks to, and what any file may.
const MOST_UNPACKED: u64 = 1032;
const ANY_UNPACKED: u64 = 1 << 16;

/// An IDX file whose header is read.
struct Opened {
    path: PathBuf,
    shape: Vec<usize>,
    /// What the header says of the data's length.
    bytes: usize,
    data: Box<dyn Read>,
}

impl Idx {
    /// Reads a file of `axes` axes; gzip is recognized by its content.
    ///
    /// # Errors
    /// When the file cannot be read, has another type or number of axes, or is shorter or longer than it says, which is
    /// known without unpacking it where its length alone tells.
    pub fn read(path: impl AsRef<Path>, axes: usize) -> Result<Self> {
        Opened::open(path.as_ref(), axes)?.read()
    }
}

impl Opened {
    fn open(path: &Path, axes: usize) -> Result<Self> {
        let unreadable = |source| Error::reading(path, source);
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(Error::format(
                path,
                "this",
                "a file",
                "a folder, a pipe or a device",
            ));
        }
        let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
        let zipped = file
            .fill_buf()
            .map_err(unreadable)?
            .starts_with(&GZIP_MAGIC);
        let mut data: Box<dyn Read> = match zipped {
            true => Box::new(MultiGzDecoder::new(file)),
            false => Box::new(file),
        };
        let shape = header(path, &mut data, axes)?;
        let header_bytes = (4 + 4 * axes) as u64;
        let bytes = shape
            .iter()
            .try_fold(1_usize, |bytes, &length| bytes.checked_mul(length));
        let there = match zipped {
            true => metadata
                .len()
                .saturating_mul(MOST_UNPACKED)
                .saturating_add(ANY_UNPACKED),
            false => metadata.len().saturating_sub(header_bytes),
        };
        match bytes {
            Some(bytes) if bytes as u64 <= there => Ok(Self {
                path: path.into(),
                shape,
                bytes,
                data,
            }),
            _ => {
                let most = if zipped { "at most " } else { "" };
                Err(wrong(path, &shape, bytes, format!("{most}{there} bytes")))
            }
        }
    }

    fn read(self) -> Result<Idx> {
        let failed = |source| Error::reading(&self.path, source);
        let mut data = Vec::new();
        // One byte more shows a longer file.
        let reserved = reserve(&mut data, self.bytes + 1);
        reserved.map_err(|_| failed(std::io::ErrorKind::OutOfMemory.into()))?;
        self.data
            .take(self.bytes as u64 + 1)
            .read_to_end(&mut data)
            .map_err(failed)?;
        let found = match data.len() {
            found if found == self.bytes => {
                return Ok(Idx {
                    shape: self.shape,
                    data,
                });
            }
            found if found > self.bytes => "more".into(),
            found => format!("{found} bytes"),
        };
        Err(wrong(&self.path, &self.shape, Some(self.bytes), found))
    }
}

/// The axis lengths.
fn header(path: &Path, reader: &mut impl Read, axes: usize) -> Result<Vec<usize>> {
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
    Ok(shape)
}

fn wrong(path: &Path, shape: &[usize], bytes: Option<usize>, found: String) -> Error {
    let bytes = bytes.map_or("too many".into(), |bytes| bytes.to_string());
    Error::format(
        path,
        "the data",
        format!("{bytes} bytes for {shape:?}"),
        found,
    )
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

/// Finds and reads `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]` in a folder, which names the data set. The names
/// with a point in place of the second hyphen will do, and `raw/`, where torchvision puts them.
///
/// # Errors
/// When a file is absent or malformed, or images and labels are not equally many, which is known before the images are
/// unpacked.
pub fn load_mnist_folder(folder: impl AsRef<Path>, split: Split) -> Result<Mnist> {
    let folder = folder.as_ref();
    let (images_file, labels_file) = find(folder, split)?.ok_or_else(|| Error::NoData {
        folder: folder.into(),
        expected: names(split, IMAGES),
        found: String::new(),
    })?;
    let images = Opened::open(&images_file, 3)?;
    let labels = Opened::open(&labels_file, 1)?;
    if labels.shape[0] != images.shape[0] {
        let expected = format!("{}, one per image", images.shape[0]);
        return Err(Error::format(
            &labels_file,
            "the number of labels",
            expected,
            labels.shape[0],
        ));
    }
    if images.bytes == 0 {
        return Err(Error::NoData {
            folder: folder.into(),
            expected: "images".into(),
            found: String::new(),
        });
    }
    let labels = labels.read()?.data;
    let images = images.read()?;
    let classes = labels
        .iter()
        .max()
        .map_or(0, |&largest| usize::from(largest) + 1);
    let name = folder.canonicalize().unwrap_or_else(|_| folder.into());
    Ok(Mnist {
        name: text_of(name.file_name().unwrap_or_default()),
        images,
        labels,
        class_names: (0..classes).map(|class| class.to_string()).collect(),
    })
}

const IMAGES: &str = "images-idx3";
const LABELS: &str = "labels-idx1";
/// Where a folder may hold IDX files: itself, and what torchvision makes.
const PLACES: [&str; 5] = ["", "raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw"];

/// The files of images and of labels, if there are any.
///
/// # Errors
/// When there is one without the other, one half of the data without the wanted, or IDX files under other names.
pub(super) fn find(folder: &Path, split: Split) -> Result<Option<(PathBuf, PathBuf)>> {
    let places = PLACES.map(|place| match place {
        "" => folder.into(),
        place => folder.join(place),
    });
    for folder in places {
        let no = |expected: String, found: String| {
            Err(Error::NoData {
                folder: folder.clone(),
                expected,
                found: format!("; it holds {found}"),
            })
        };
        let name = |file: &Path| text_of(file.file_name().unwrap_or_default());
        match (file(&folder, split, IMAGES), file(&folder, split, LABELS)) {
            (Some(images), Some(labels)) => return Ok(Some((images, labels))),
            (Some(images), None) => return no(names(split, LABELS), name(&images)),
            (None, Some(labels)) => return no(names(split, IMAGES), name(&labels)),
            (None, None) => {}
        }
        let other = [Split::Train, Split::Test]
            .into_iter()
            .find_map(|other| file(&folder, other, IMAGES));
        if let Some(other) = other.or_else(|| any(&folder)) {
            return no(names(split, IMAGES), name(&other));
        }
    }
    Ok(None)
}

fn file(folder: &Path, split: Split, kind: &str) -> Option<PathBuf> {
    let plain = format!("{}-{kind}-ubyte", split.prefix());
    let dotted = format!("{}-{}-ubyte", split.prefix(), kind.replacen('-', ".", 1));
    let zipped = |name: &String| format!("{name}.gz");
    let names = [zipped(&plain), zipped(&dotted), plain, dotted];
    names
        .iter()
        .rev()
        .map(|name| folder.join(name))
        .find(|file| file.is_file())
}

fn names(split: Split, kind: &str) -> String {
    let name = format!("{}-{kind}-ubyte", split.prefix());
    format!("{name} or {name}.gz")
}

/// A file that says by its name that it is of IDX, whatever it is called besides.
fn any(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| entry.ok());
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with('.') && name.trim_end_matches(".gz").ends_with("idx3-ubyte")
        })
        .collect();
    files.sort();
    files.into_iter().next()
}

impl Split {
    /// What the names of its files begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "t10k",
        }
    }
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
