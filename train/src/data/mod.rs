//! Labelled images: a folder of pictures, files of the MNIST family, and latents that were encoded before.

mod arrays;
mod folder;
mod idx;
mod latents;

pub use arrays::{download, upload};
pub use folder::{Decoder, ImageFolder, Skipped};
pub use idx::{Idx, Mnist, Split, load_mnist_folder};
pub use latents::{LatentCache, LatentPrecision};

use crate::error::Result;
use ndarray::Array3;

/// Labelled images, by index.
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

    /// Image `index`, `[channels, height, width]` in `[-1, 1]`.
    ///
    /// # Errors
    /// When its file can no longer be read.
    fn image(&self, index: usize) -> Result<Array3<f32>>;
}
