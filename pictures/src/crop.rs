//! The square that the reference models see of a picture: ADM's center crop (Dhariwal and Nichol 2021, arXiv
//! 2105.05233).

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::pixels::Pixels;
use crate::resize::{Filter, resize, resize_window};

/// The middle `size` x `size` pixels of the picture scaled until its shorter side is `size`.
///
/// The picture is halved with the box filter while its shorter side is at least `2 * size`, then brought to size with
/// the bicubic one, both bit for bit as Pillow does, then cut. Smaller pictures are enlarged. A picture that is already
/// `size` x `size` is returned unchanged. `size` in pixels, not zero.
pub fn center_crop(picture: &Pixels, size: usize) -> Result<Pixels> {
    if size == 0 {
        return Err(Error::Shape {
            what: "size of a center crop",
            expected: "at least 1".into(),
            found: "0".into(),
        });
    }
    let mut picture = Cow::Borrowed(picture);
    while picture.height().min(picture.width()) / 2 >= size {
        picture = Cow::Owned(resize(
            &picture,
            picture.height() / 2,
            picture.width() / 2,
            Filter::Box,
        )?);
    }
    let shorter = picture.height().min(picture.width());
    if shorter == size {
        return picture.crop(size, size);
    }
    let scale = size as f64 / shorter as f64;
    // Python's round(): halves to even.
    let scaled = |side: usize| (side as f64 * scale).round_ties_even() as usize;
    let (height, width) = (scaled(picture.height()), scaled(picture.width()));
    let middle = |side: usize| (side - size) / 2..(side - size) / 2 + size;
    Ok(resize_window(
        &picture,
        (height, width),
        Filter::Bicubic,
        middle(height),
        middle(width),
    ))
}
