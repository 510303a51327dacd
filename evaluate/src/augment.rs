//! Variations of a picture that leave its class as it is.

use ndarray::{Array3, ArrayView3};
use serde::{Deserialize, Serialize};
use tessera_backend::Rng;

/// What a picture may undergo without changing its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// A shift by up to so many pixels in each direction; what is uncovered repeats the border.
    pub shift_px: usize,
    /// Being mirrored left to right, half of the time. Not for digits and letters.
    pub mirror: bool,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            shift_px: 1,
            mirror: true,
        }
    }
}

impl Augment {
    /// A random variation of an image, `[channels, height, width]`.
    pub fn apply(&self, image: ArrayView3<f32>, rng: &mut Rng) -> Array3<f32> {
        let (_, height, width) = image.dim();
        let shift = self.shift_px as isize;
        let mut draw = || rng.below(2 * self.shift_px + 1) as isize - shift;
        let (down, right) = (draw(), draw());
        let mirror = self.mirror && rng.below(2) == 1;
        let source = |at: usize, by: isize, length: usize| {
            (at as isize - by).clamp(0, length as isize - 1) as usize
        };
        Array3::from_shape_fn(image.dim(), |(channel, y, x)| {
            let x = source(x, right, width);
            let x = if mirror { width - 1 - x } else { x };
            image[[channel, source(y, down, height), x]]
        })
    }
}
