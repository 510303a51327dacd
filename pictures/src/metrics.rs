//! PSNR: how far a picture is from its original, sample by sample.

use ndarray::{ArrayView3, Zip};

use crate::error::{Error, Result};
use crate::pixels::Pixels;

/// The largest sample of an 8-bit picture.
const PEAK_BYTE: f64 = 255.0;
/// The width of `[-1, 1]`.
const PEAK_UNIT: f64 = 2.0;

/// Peak signal-to-noise ratio in dB, `10 log10(255^2 / MSE)`, the mean squared error being over all samples of all
/// channels. Identical pictures give infinity; unequal shapes are an error.
///
/// The figure of a set of pictures is the mean of the pictures' PSNR in dB, as papers give it (not the PSNR of the mean
/// error, which is lower). A set that holds an identical pair therefore has no finite mean: say so rather than drop the
/// pair.
///
/// ```
/// use tessera_pictures::{Channels, Pixels, psnr};
///
/// let black = Pixels::new(1, 4, Channels::Gray, vec![0, 0, 0, 0])?;
/// let close = Pixels::new(1, 4, Channels::Gray, vec![0, 0, 0, 2])?;
/// assert!((psnr(&black, &close)? - 48.1308).abs() < 1e-4); // the mean squared error is 1
/// # Ok::<(), tessera_pictures::Error>(())
/// ```
pub fn psnr(a: &Pixels, b: &Pixels) -> Result<f64> {
    a.expect_same_shape(b, "second picture of a PSNR")?;
    let square = |(a, b): (&u8, &u8)| u64::from(a.abs_diff(*b)).pow(2);
    let total: u64 = a.data().iter().zip(b.data()).map(square).sum();
    Ok(decibels(total as f64 / a.data().len() as f64, PEAK_BYTE))
}

/// [`psnr`] of pictures that are not rounded to bytes: `10 log10(2^2 / MSE)`, summed in f64. Not a number anywhere in
/// them is an error.
///
/// # Shapes
/// - `a`, `b`: `[channels, height, width]`, in `[-1, 1]`
pub fn psnr_array(a: ArrayView3<'_, f32>, b: ArrayView3<'_, f32>) -> Result<f64> {
    if a.dim() != b.dim() || a.is_empty() {
        return Err(Error::Shape {
            what: "second picture of a PSNR",
            expected: format!("{:?}, not empty", a.shape()),
            found: format!("{:?}", b.shape()),
        });
    }
    for (what, array) in [
        ("first picture of a PSNR", &a),
        ("second picture of a PSNR", &b),
    ] {
        if let Some(((c, y, x), value)) = array.indexed_iter().find(|(_, value)| !value.is_finite())
        {
            return Err(Error::NotFinite {
                what,
                value: *value,
                index: [c, y, x],
            });
        }
    }
    let square = |total: f64, a: &f32, b: &f32| total + (f64::from(*a) - f64::from(*b)).powi(2);
    let total = Zip::from(a).and(b).fold(0.0, square);
    Ok(decibels(total / a.len() as f64, PEAK_UNIT))
}

fn decibels(mean_squared_error: f64, peak: f64) -> f64 {
    10.0 * (peak * peak / mean_squared_error).log10()
}
