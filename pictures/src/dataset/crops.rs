//! Several crops of every picture: more to train on where there are few.

use super::Dataset;
use crate::error::Result;
use crate::resize::{Filter, resize_window};
use crate::{Pixels, center_crop};
use ndarray::Array3;

/// The smallest window's side as a share of the picture's.
const SMALLEST: f64 = 0.85;

/// Every picture of a data set `count` times, side by side: the whole picture, then windows of it whose side, 0.85 to 1
/// of the picture's, and place follow from the index alone. All are brought to one size.
pub struct Crops {
    /// The pictures, larger than [`size`](Self::size) so that a window of one has all its pixels.
    pub all: Box<dyn Dataset>,
    /// Crops of each picture, at least 1.
    pub count: usize,
    /// Side of a crop in px.
    pub size: usize,
}

impl Dataset for Crops {
    fn name(&self) -> &str {
        self.all.name()
    }

    fn len(&self) -> usize {
        self.all.len() * self.count
    }

    fn label(&self, index: usize) -> usize {
        self.all.label(index / self.count)
    }

    fn class_names(&self) -> &[String] {
        self.all.class_names()
    }

    fn image(&self, index: usize) -> Result<Array3<f32>> {
        let picture = Pixels::from_array(self.all.image(index / self.count)?.view())?;
        if index.is_multiple_of(self.count) {
            return Ok(center_crop(&picture, self.size)?.to_array());
        }
        let [share, top, left] = [0, 1, 2].map(|which| uniform(index as u64, which));
        // The window is the crop: so the whole picture is brought to what makes the window as large as that.
        let whole = self.size as f64 / (SMALLEST + (1.0 - SMALLEST) * share);
        let whole = whole.round() as usize;
        let at = |start: f64| {
            let first = ((whole - self.size + 1) as f64 * start) as usize;
            first..first + self.size
        };
        let filter = Filter::Bicubic;
        Ok(resize_window(&picture, (whole, whole), filter, at(top), at(left)).to_array())
    }
}

/// A number in 0..1 that belongs to an index (SplitMix64's output function, Steele, Lea and Flood 2014).
fn uniform(index: u64, which: u64) -> f64 {
    let mut z = (3 * index + which + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pictures of 32 px, each with a ramp of brightness to the right and downward.
    struct Ramps;

    impl Dataset for Ramps {
        fn name(&self) -> &str {
            "ramps"
        }

        fn len(&self) -> usize {
            2
        }

        fn label(&self, index: usize) -> usize {
            index
        }

        fn class_names(&self) -> &[String] {
            &[]
        }

        fn image(&self, index: usize) -> Result<Array3<f32>> {
            let value = |(_, y, x): (usize, usize, usize)| (x + y + index) as f32 / 32.0 - 1.0;
            Ok(Array3::from_shape_fn((3, 32, 32), value))
        }
    }

    fn crops(count: usize) -> Crops {
        Crops {
            all: Box::new(Ramps),
            count,
            size: 16,
        }
    }

    #[test]
    fn the_first_crop_is_the_picture_and_the_others_are_windows_of_it() {
        let (one, many) = (crops(1), crops(5));
        assert_eq!((one.len(), many.len()), (2, 10));
        for picture in 0..2 {
            let whole = one.image(picture).unwrap();
            assert_eq!(many.image(5 * picture).unwrap(), whole);
            for crop in 1..5 {
                let index = 5 * picture + crop;
                assert_eq!(many.label(index), picture);
                let window = many.image(index).unwrap();
                assert_eq!(window.dim(), (3, 16, 16));
                assert_eq!(
                    window,
                    crops(5).image(index).unwrap(),
                    "the same every time"
                );
                // A window of 0.85 to 1 of the ramp is that much less steep, and within it.
                let rise = |image: &Array3<f32>| image[[0, 8, 14]] - image[[0, 8, 1]];
                let share = rise(&window) / rise(&whole);
                assert!((0.83..=1.02).contains(&share), "{share}");
                let range = |image: &Array3<f32>| (image[[0, 0, 0]], image[[0, 15, 15]]);
                let ((least, most), (low, high)) = (range(&whole), range(&window));
                assert!(
                    low >= least - 0.05 && high <= most + 0.05,
                    "{low}..{high} of {least}..{most}"
                );
            }
        }
    }

    #[test]
    fn windows_lie_all_over_the_picture() {
        let corner = |index| crops(200).image(index).unwrap()[[0, 0, 0]];
        let corners: Vec<f32> = (1..200).map(corner).collect();
        let least = corners.iter().copied().fold(f32::INFINITY, f32::min);
        let most = corners.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // 0.15 of the side both ways is 9.6 steps of the ramp, 0.3.
        assert!(most - least > 0.2, "{least} to {most}");
    }
}
