//! Resampling of 8-bit pictures in fixed point, bit for bit as Pillow does it.
//!
//! The reference models were trained on pictures that Pillow resized, so a filter that is "also bicubic" would shift
//! every figure. A pass weighs the input samples under the filter, which widens with the reduction (that is the
//! antialiasing), with integer weights of 22 fractional bits; the horizontal pass comes first and is rounded to bytes
//! before the vertical one.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::pixels::{Channels, Pixels};

/// Fractional bits of a weight: 32 less 8 for the sample and 2 for the sign and the overshoot of the negative lobes.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// One half in fixed point, so that the shift rounds instead of truncating.
const HALF: i32 = 1 << (PRECISION_BITS - 1);
/// Samples below which a thread is not worth waking.
const SAMPLES_PER_TASK: usize = 1 << 15;

/// The kernel that weighs input pixels by their distance from the output pixel's center.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The mean of the pixels covered.
    Box,
    /// Keys' cubic convolution with `a = -1/2` (not the `-3/4` of some libraries).
    Bicubic,
}

impl Filter {
    /// Half the kernel's width, in pixels of the coarser grid.
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, offset: f64) -> f64 {
        const A: f64 = -0.5;
        let x = offset.abs();
        match self {
            // Half open, so that a pixel on the border of two boxes counts once.
            Self::Box => f64::from(offset > -0.5 && offset <= 0.5),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

/// The picture at `height` x `width` pixels. Equal sizes return it unchanged.
pub fn resize(picture: &Pixels, height: usize, width: usize, filter: Filter) -> Result<Pixels> {
    if height == 0 || width == 0 {
        return Err(Error::Shape {
            what: "size to resize to",
            expected: "at least 1x1".into(),
            found: format!("{height}x{width}"),
        });
    }
    Ok(resize_window(
        picture,
        (height, width),
        filter,
        0..height,
        0..width,
    ))
}

/// Rows `rows` and columns `columns` of the picture resized to `size` (height, width): what lies outside is not
/// computed.
pub(crate) fn resize_window(
    picture: &Pixels,
    size: (usize, usize),
    filter: Filter,
    rows: Range<usize>,
    columns: Range<usize>,
) -> Pixels {
    let (height, width) = (rows.len(), columns.len());
    let down = taps(picture.height(), size.0, rows, filter);
    let across = taps(picture.width(), size.1, columns, filter);
    let needed = needed(&down);
    let bands = match picture.channels() {
        Channels::Gray => horizontal::<1>(picture, needed.clone(), &across),
        Channels::Rgb => horizontal::<3>(picture, needed.clone(), &across),
    };
    let data = vertical(
        &bands,
        width * picture.channels().count(),
        needed.start,
        &down,
    );
    Pixels::from_parts(height, width, picture.channels(), data)
}

/// What one output pixel takes from an axis: input pixels from `first` on, each times its weight.
struct Tap {
    first: usize,
    weights: Vec<i32>,
}

/// The taps of output pixels `window` when `input` pixels become `output` pixels.
fn taps(input: usize, output: usize, window: Range<usize>, filter: Filter) -> Vec<Tap> {
    let scale = input as f64 / output as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let tap = |position: usize| {
        let center = (position as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let last = ((center + support + 0.5) as usize).min(input);
        let weight = |x: usize| filter.weight((x as f64 - center + 0.5) * (1.0 / stretch));
        let weights: Vec<f64> = (first..last).map(weight).collect();
        let total: f64 = weights.iter().sum();
        Tap {
            first,
            weights: weights.iter().map(|weight| fixed(weight / total)).collect(),
        }
    };
    window.map(tap).collect()
}

/// A weight in fixed point, rounded to the nearest, halves away from zero.
fn fixed(weight: f64) -> i32 {
    (weight * f64::from(1 << PRECISION_BITS) + 0.5_f64.copysign(weight)) as i32
}

/// The input pixels that any of the taps reads.
fn needed(taps: &[Tap]) -> Range<usize> {
    let first = taps.iter().map(|tap| tap.first).min();
    let end = taps.iter().map(|tap| tap.first + tap.weights.len()).max();
    first.unwrap_or(0)..end.unwrap_or(0)
}

/// A weighted sum back to a byte.
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Rows `rows` of the picture at the width of `across`.
fn horizontal<const C: usize>(picture: &Pixels, rows: Range<usize>, across: &[Tap]) -> Vec<u8> {
    let stride = across.len() * C;
    let mut bands = vec![0; rows.len() * stride];
    bands
        .par_chunks_mut(stride)
        .zip(rows)
        .with_min_len(SAMPLES_PER_TASK.div_ceil(stride))
        .for_each(|(band, y)| {
            let (row, _) = picture.row(y).as_chunks::<C>();
            for (pixel, tap) in band.as_chunks_mut::<C>().0.iter_mut().zip(across) {
                let mut sums = [HALF; C];
                for (samples, weight) in row[tap.first..].iter().zip(&tap.weights) {
                    for (sum, sample) in sums.iter_mut().zip(samples) {
                        *sum += i32::from(*sample) * weight;
                    }
                }
                *pixel = sums.map(clip);
            }
        });
    bands
}

/// The rows of `down` from `bands`, whose first row is row `top` of the picture and whose rows have `stride` samples.
fn vertical(bands: &[u8], stride: usize, top: usize, down: &[Tap]) -> Vec<u8> {
    let mut data = vec![0; down.len() * stride];
    data.par_chunks_mut(stride)
        .zip(down)
        .with_min_len(SAMPLES_PER_TASK.div_ceil(stride))
        .for_each_init(
            || vec![0; stride],
            |sums, (row, tap)| {
                sums.fill(HALF);
                for (band, weight) in bands[(tap.first - top) * stride..]
                    .chunks_exact(stride)
                    .zip(&tap.weights)
                {
                    for (sum, sample) in sums.iter_mut().zip(band) {
                        *sum += i32::from(*sample) * weight;
                    }
                }
                for (sample, sum) in row.iter_mut().zip(sums) {
                    *sample = clip(*sum);
                }
            },
        );
    data
}
