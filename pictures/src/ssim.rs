//! SSIM: whether a picture has the structure of its original (Wang, Bovik, Sheikh and Simoncelli 2004).

use ndarray::Array2;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::pixels::{Pixels, plane};

/// Pixels on a side of the window.
const WINDOW: usize = 11;
/// Standard deviation of the window's Gaussian, in pixels.
const SIGMA: f64 = 1.5;
/// `(K1 L)^2` with `K1 = 0.01` and `L = 255`: keeps the luminance term finite in the dark.
const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
/// `(K2 L)^2` with `K2 = 0.03` and `L = 255`: keeps the contrast term finite on flat ground.
const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);

/// Mean structural similarity, 1 for identical pictures.
///
/// An 11x11 Gaussian window of deviation 1.5 px, population (not sample) variances, `K1 = 0.01`, `K2 = 0.03`, peak 255;
/// the mean over the positions where the window fits into the picture, taken per channel and then over channels
/// (scikit-image's `structural_similarity` with `gaussian_weights=True, use_sample_covariance=False, data_range=255,
/// channel_axis=-1`). For SSIM of the luma, as some papers give it, convert with [`Pixels::to_channels`] first. Unequal
/// shapes, or a side under 11 px, are errors. The figure of a set of pictures is the mean of the pictures' figures.
pub fn ssim(a: &Pixels, b: &Pixels) -> Result<f64> {
    a.expect_same_shape(b, "second picture of an SSIM")?;
    if a.height().min(a.width()) < WINDOW {
        return Err(Error::Shape {
            what: "pictures of an SSIM",
            expected: format!("at least {WINDOW}x{WINDOW}"),
            found: format!("{}x{}", a.height(), a.width()),
        });
    }
    let channels = a.channels().count();
    let total: f64 = (0..channels)
        .map(|channel| channel_ssim(&plane(a, channel), &plane(b, channel)))
        .sum();
    Ok(total / channels as f64)
}

/// The mean over one channel.
///
/// # Shapes
/// - `x`, `y`: `[height, width]`, in `[0, 255]`
fn channel_ssim(x: &Array2<f64>, y: &Array2<f64>) -> f64 {
    let (height, width) = x.dim();
    let window = gaussian();
    let rows: Vec<f64> = (0..=height - WINDOW)
        .into_par_iter()
        .map_init(
            || vec![[0.0; 5]; width],
            |moments, top| row_ssim(x, y, top, &window, moments),
        )
        .collect();
    // Summed in order, so that the figure does not depend on the number of threads.
    rows.iter().sum::<f64>() / (rows.len() * (width - WINDOW + 1)) as f64
}

/// The sum over the windows whose first row is `top`. The Gaussian separates: `moments` holds, per column, the window's
/// columns already summed.
fn row_ssim(
    x: &Array2<f64>,
    y: &Array2<f64>,
    top: usize,
    window: &[f64; WINDOW],
    moments: &mut [[f64; 5]],
) -> f64 {
    moments.fill([0.0; 5]);
    for (line, weight) in window.iter().enumerate() {
        for ((x, y), moment) in x
            .row(top + line)
            .iter()
            .zip(y.row(top + line))
            .zip(&mut *moments)
        {
            add(moment, &[*x, *y, x * x, y * y, x * y], *weight);
        }
    }
    moments
        .windows(WINDOW)
        .map(|columns| {
            let mut moment = [0.0; 5];
            columns
                .iter()
                .zip(window)
                .for_each(|(column, weight)| add(&mut moment, column, *weight));
            similarity(moment)
        })
        .sum()
}

/// `sum += weight * term`, for all five moments.
fn add(sum: &mut [f64; 5], term: &[f64; 5], weight: f64) {
    sum.iter_mut()
        .zip(term)
        .for_each(|(sum, term)| *sum += weight * term);
}

/// Eq. (13) of the paper, from the window's means of `x`, `y`, `x^2`, `y^2` and `xy`.
fn similarity([x, y, xx, yy, xy]: [f64; 5]) -> f64 {
    let (variance_x, variance_y, covariance) = (xx - x * x, yy - y * y, xy - x * y);
    ((2.0 * x * y + C1) * (2.0 * covariance + C2))
        / ((x * x + y * y + C1) * (variance_x + variance_y + C2))
}

/// The window along one axis; its weights sum to one.
fn gaussian() -> [f64; WINDOW] {
    let middle = (WINDOW / 2) as f64;
    let weights: [f64; WINDOW] =
        std::array::from_fn(|position| (-0.5 * ((position as f64 - middle) / SIGMA).powi(2)).exp());
    let total: f64 = weights.iter().sum();
    weights.map(|weight| weight / total)
}
