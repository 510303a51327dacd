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
    /// A picture as the network reads it, `[channels, img_size, img_size]` in `[-1, 1]`: center-cropped where it is
    /// larger than a finished picture, and centered on black.
    ///
    /// # Errors
    /// None for a picture that is not empty.
    pub fn prepare(&self, picture: &Pixels) -> Result<Array3<f32>> {
        let fits = picture.height().max(picture.width()) <= self.picture_size;
        let cropped = match fits {
            true => None,
            false => Some(center_crop(picture, self.picture_size)?),
        };
        let picture = cropped.as_ref().unwrap_or(picture);
        Ok(picture.pad(self.img_size, self.img_size)?.to_array())
    }
}
