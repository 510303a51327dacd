//! A user's data as squares of one size: photographs are center-cropped, IDX pictures padded with black.

use super::{
    BadPictures, Crops, Dataset, FolderOptions, ImageFolder, Skipped, Split, idx, load_mnist_folder,
};
use crate::error::{BoxError, Error, Result};
use crate::walk::{LeftOut, counted, is_hidden};
use crate::{Channels, center_crop, read};
use ndarray::{Array3, Axis, Slice};
use std::path::{Path, PathBuf};

/// Pixels kept in memory; beyond, pictures are decoded again.
const MEMORY_BYTES: usize = 2 << 30;

/// How much larger than its crops a picture is kept, so that a window of it is not enlarged.
const WINDOWED: usize = 2;

/// What pictures are brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Squares {
    /// Side in px.
    pub size: usize,
    /// Gray or color.
    pub channels: Channels,
    /// What becomes of a picture that cannot be read.
    pub bad_pictures: BadPictures,
    /// How often each picture is there, once at least: with more, its center crop is followed by windows of it, see
    /// [`Crops`].
    pub crops: usize,
}

/// Classes that a summary names.
const CLASSES: usize = 5;

/// A data set of squares, and what was left out of it.
pub struct SquareDataset {
    /// The pictures, `[channels, size, size]`.
    pub pictures: Box<dyn Dataset>,
    /// Pictures that were skipped, each to be warned of.
    pub skipped: Vec<Skipped>,
    /// Sub-folders that are no classes because they hold no picture, each to be warned of.
    pub empty: Vec<Skipped>,
    /// What lies in the folder besides pictures.
    pub left_out: LeftOut,
}

impl SquareDataset {
    /// What there is, in a line for people: how many pictures, their classes, and what was left out.
    pub fn summary(&self) -> String {
        let names = self.pictures.class_names();
        let more = if names.len() > CLASSES { ", …" } else { "" };
        let named = names[..names.len().min(CLASSES)].join(", ");
        let classes = if names.len() == 1 { "class" } else { "classes" };
        let left_out = match self.left_out.is_empty() {
            true => String::new(),
            false => format!("; left out: {}", self.left_out),
        };
        format!(
            "{} in {} {classes} ({named}{more}){left_out}",
            counted(self.pictures.len()),
            names.len()
        )
    }
}

impl Squares {
    /// Opens one half of a folder: IDX files if it holds them, else pictures, of `folder/train` or `folder/test` (or
    /// `val`, `valid`, `validation`) where there are both, else of the folder itself for either half. The classes of a
    /// test half are those of the training half. A folder that holds `train/` alone is that.
    ///
    /// # Errors
    /// When there is no data, none of it can be read, or IDX pictures are larger than the squares or to be cropped.
    pub fn open(&self, folder: &Path, split: Split) -> Result<SquareDataset> {
        expect_folder(folder)?;
        if idx::find(folder, split)?.is_some() {
            if self.crops > 1 {
                return Err(Error::IdxCrops(folder.into()));
            }
            let idx = load_mnist_folder(folder, split)?;
            return Ok(SquareDataset {
                pictures: Box::new(Padded::new(idx, self.size, self.channels)?),
                skipped: Vec::new(),
                empty: Vec::new(),
                left_out: LeftOut::default(),
            });
        }
        let Self { channels, .. } = *self;
        let size = match self.crops {
            0 | 1 => self.size,
            _ => self.size * WINDOWED,
        };
        let decode = move |path: &Path| -> Result<Array3<f32>, BoxError> {
            Ok(center_crop(&read(path, Some(channels))?, size)?.to_array())
        };
        let (root, classes_of) = match (halves_of(folder), split) {
            (None, _) => (folder.into(), None),
            (Some((train, _)), Split::Train) => (train, None),
            (Some((train, test)), Split::Test) => (test, Some(train)),
        };
        let options = FolderOptions {
            bad_pictures: self.bad_pictures,
            memory_bytes: MEMORY_BYTES,
            classes_of,
        };
        let mut opened = ImageFolder::open(&root, Box::new(decode), &options)?;
        let (skipped, empty, left_out) = opened.take_left_out();
        Ok(SquareDataset {
            pictures: match self.crops {
                0 | 1 => Box::new(opened),
                count => Box::new(Crops {
                    all: Box::new(opened),
                    count,
                    size: self.size,
                }),
            },
            skipped,
            empty,
            left_out,
        })
    }
}

/// The folders of the training half and of the other, where there are both. A training half alone is both.
fn halves_of(folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let train = folder.join("train");
    if !train.is_dir() {
        return None;
    }
    let others = ["test", "val", "valid", "validation"].map(|half| folder.join(half));
    if let Some(other) = others.into_iter().find(|half| half.is_dir()) {
        return Some((train, other));
    }
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut visible =
        entries.filter(|entry| !is_hidden(&entry.file_name()) && entry.path().is_dir());
    visible.nth(1).is_none().then(|| (train.clone(), train))
}

/// Fails with what `path` is, if that is no folder.
fn expect_folder(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path).map_err(|source| Error::reading(path, source))?;
    if metadata.is_dir() {
        return Ok(());
    }
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let found = if ends(&[
        ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".zip", ".7z", ".rar",
    ]) {
        "an archive, which is not read yet; unpack it and give its folder"
    } else if ends(&["-ubyte", "-ubyte.gz"]) {
        "a single IDX file; give the folder that it lies in"
    } else if ends(&[
        ".parquet",
        ".arrow",
        ".h5",
        ".hdf5",
        ".lmdb",
        ".tfrecord",
        ".npz",
        ".npy",
    ]) {
        "a table, which is not read; give a folder of pictures or of IDX files"
    } else {
        "a file; give a folder of pictures or of IDX files"
    };
    Err(Error::NoFolder {
        path: path.into(),
        found,
    })
}

/// Pictures centered on a black square, gray ones on all channels.
#[derive(Debug)]
pub struct Padded<D> {
    inner: D,
    size: usize,
    channels: usize,
}

impl<D: Dataset> Padded<D> {
    /// The pictures of `inner` as squares of `size` px.
    ///
    /// # Errors
    /// When they are larger, or the first cannot be read.
    pub fn new(inner: D, size: usize, channels: Channels) -> Result<Self> {
        let (_, height, width) = inner.image(0)?.dim();
        if height > size || width > size {
            return Err(Error::LargerThanSquare {
                name: inner.name().into(),
                width,
                height,
                size,
            });
        }
        Ok(Self {
            inner,
            size,
            channels: channels.count(),
        })
    }
}

impl<D: Dataset> Dataset for Padded<D> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn label(&self, index: usize) -> usize {
        self.inner.label(index)
    }

    fn class_names(&self) -> &[String] {
        self.inner.class_names()
    }

    fn padded_from(&self) -> Option<[usize; 2]> {
        let (_, height, width) = self.inner.image(0).ok()?.dim();
        Some([height, width])
    }

    fn image(&self, index: usize) -> Result<Array3<f32>> {
        let image = self.inner.image(index)?;
        let (_, height, width) = image.dim();
        let mut square = Array3::from_elem((self.channels, self.size, self.size), -1.0);
        let (top, left) = ((self.size - height) / 2, (self.size - width) / 2);
        let mut inner = square.view_mut();
        inner.slice_axis_inplace(Axis(1), Slice::from(top..top + height));
        inner.slice_axis_inplace(Axis(2), Slice::from(left..left + width));
        inner.assign(&image);
        Ok(square)
    }
}
