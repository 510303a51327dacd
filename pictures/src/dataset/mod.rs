//! Labeled pictures by index: a folder of pictures, files of the MNIST family, and squares of one size made of either.

mod crops;
mod folder;
mod idx;
mod square;

pub use crops::Crops;
pub use folder::{BadPictures, Decoder, FolderOptions, ImageFolder, Skipped};
pub use idx::{Idx, Mnist, Split, load_mnist_folder};
pub use square::{Padded, SquareDataset, Squares};

use crate::error::{Error, Result};
use ndarray::{Array3, Array4, Axis, stack};

/// Labeled images, by index.
pub trait Dataset: Send + Sync {
    /// What the data set is called.
    fn name(&self) -> &str;

    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of image `index`, an index into [`class_names`](Self::class_names).
    fn label(&self, index: usize) -> usize;

    /// The names of the classes.
    fn class_names(&self) -> &[String];

    /// Height and width in px that pictures had before they were padded, if they were: what lies beside is none of
    /// theirs.
    fn padded_from(&self) -> Option<[usize; 2]> {
        None
    }

    /// Image `index`, `[channels, height, width]` in `[-1, 1]`.
    ///
    /// # Errors
    /// When its file can no longer be read.
    fn image(&self, index: usize) -> Result<Array3<f32>>;
}

/// The images of a data set at these indices, `[images, channels, height, width]` in `[-1, 1]`.
///
/// # Errors
/// When an image cannot be read or has another shape than the first.
pub fn batch(dataset: &dyn Dataset, indices: &[usize]) -> Result<Array4<f32>> {
    let images = indices.iter().map(|&index| dataset.image(index));
    let images: Vec<_> = images.collect::<Result<_>>()?;
    let views: Vec<_> = images.iter().map(|image| image.view()).collect();
    let shape = |(channels, height, width)| [channels, height, width];
    let Some(first) = images.first().map(|image| shape(image.dim())) else {
        return Ok(Array4::zeros([0; 4]));
    };
    stack(Axis(0), &views).map_err(|_| {
        let mut shapes = images.iter().map(|image| shape(image.dim()));
        Error::ImageShape {
            expected: first,
            found: shapes.find(|&found| found != first).unwrap_or(first),
        }
    })
}

/// At most `wanted` of `available` indices, evenly spaced, so that data in the order of their classes give all classes.
pub fn spaced(available: usize, wanted: usize) -> Vec<usize> {
    let count = wanted.min(available);
    (0..count).map(|i| i * available / count).collect()
}

/// The first images of a data set.
pub struct First {
    /// The whole data set.
    pub all: Box<dyn Dataset>,
    /// How many of its images there are; at most all.
    pub count: usize,
}

impl Dataset for First {
    fn name(&self) -> &str {
        self.all.name()
    }

    fn len(&self) -> usize {
        self.count
    }

    fn label(&self, index: usize) -> usize {
        self.all.label(index)
    }

    fn class_names(&self) -> &[String] {
        self.all.class_names()
    }

    fn padded_from(&self) -> Option<[usize; 2]> {
        self.all.padded_from()
    }

    fn image(&self, index: usize) -> Result<Array3<f32>> {
        self.all.image(index)
    }
}
