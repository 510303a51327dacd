//! A user's data as squares of one size: photographs are center-cropped, IDX pictures padded with black.

use super::{BadPictures, Dataset, ImageFolder, Skipped, Split, load_mnist_folder};
use crate::error::{BoxError, Error, Result};
use crate::{Channels, center_crop, read};
use ndarray::{Array3, Axis, Slice};
use std::path::{Path, PathBuf};

/// Pixels kept in memory; beyond, pictures are decoded again.
const MEMORY_BYTES: usize = 2 << 30;

/// What pictures are brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Squares {
    /// Side in px.
    pub size: usize,
    /// Gray or color.
    pub channels: Channels,
    /// What becomes of a picture that cannot be read.
    pub bad_pictures: BadPictures,
}

/// A data set of squares, and what was left out of it.
pub struct SquareDataset {
    /// The pictures, `[channels, size, size]`.
    pub pictures: Box<dyn Dataset>,
    /// Pictures that were skipped, each to be warned of.
    pub skipped: Vec<Skipped>,
}

impl Squares {
    /// Opens one half of a folder: IDX files if it holds them, else pictures, of `folder/train` or `folder/test` where
    /// there are both, else of the folder itself for either half.
    ///
    /// # Errors
    /// When there is no data, none of it can be read, or IDX pictures are larger than the squares.
    pub fn open(&self, folder: &Path, split: Split) -> Result<SquareDataset> {
        match load_mnist_folder(folder, split) {
            Ok(idx) => {
                return Ok(SquareDataset {
                    pictures: Box::new(Padded::new(idx, self.size, self.channels)?),
                    skipped: Vec::new(),
                });
            }
            // No IDX files: a folder of pictures, then. Damaged ones are the user's to know of.
            Err(Error::NoData { .. }) => {}
            Err(error) => return Err(error),
        }
        let Self { size, channels, .. } = *self;
        let decode = move |path: &Path| -> Result<Array3<f32>, BoxError> {
            Ok(center_crop(&read(path, Some(channels))?, size)?.to_array())
        };
        let half = half_of(folder, split);
        let mut opened =
            ImageFolder::open(&half, Box::new(decode), self.bad_pictures, MEMORY_BYTES)?;
        let skipped = opened.take_skipped();
        Ok(SquareDataset {
            pictures: Box::new(opened),
            skipped,
        })
    }
}

/// `folder/train` or `folder/test` where there are both, else the folder itself for either half.
fn half_of(folder: &Path, split: Split) -> PathBuf {
    let halves = ["train", "test"].map(|half| folder.join(half));
    match (halves.iter().all(|half| half.is_dir()), split) {
        (false, _) => folder.into(),
        (true, Split::Train) => halves[0].clone(),
        (true, Split::Test) => halves[1].clone(),
    }
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
            return Err(Error::Shape {
                what: "pictures that are padded, never shrunk",
                expected: format!("at most {size}x{size} px"),
                found: format!("{width}x{height} px in {}", inner.name()),
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
