//! The one size that a model's pictures are brought to.

use crate::error::Result;
use ndarray::Array3;
use tessera_pictures::{Pixels, center_crop};

/// The size of a model's pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Square {
    /// Side in px of what the network reads.
    pub img_size: usize,
    /// Side in px of a finished picture, the center of that.
    pub picture_size: usize,
}

impl Square {
    /// A picture as the network reads it, `[channels, img_size, img_size]` in `[-1, 1]`: scaled until its shorter side
    /// is a finished picture's, center-cropped to that, as training does it, and centered on black where the network
    /// reads more.
    ///
    /// # Errors
    /// None for a picture that is not empty.
    pub fn prepare(&self, picture: &Pixels) -> Result<Array3<f32>> {
        let cropped = center_crop(picture, self.picture_size)?;
        Ok(cropped.pad(self.img_size, self.img_size)?.to_array())
    }
}
