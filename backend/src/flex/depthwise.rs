//! Depthwise convolution: each channel by itself, so that there is no matrix to multiply and a pixel of memory is worth
//! a dozen multiplications. A channel is copied, clamped and padded, into a scratch that stays in cache, one part for
//! every phase of the stride; there, the pixels under one tap of the kernel are contiguous for all outputs at once.

use super::simd::simd;
use super::{Shared, contiguous, dims, filled, tensor, values};
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

/// Outputs that are summed in registers.
const LANES: usize = 64;

/// Sizes of one convolution.
pub(crate) struct Geometry {
    input: [usize; 2],
    output: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    /// Zeros above and to the left.
    pad: [usize; 2],
    bounds: [f32; 2],
}

impl Geometry {
    /// Rows and columns of one phase.
    fn phase(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.output[axis] + (self.kernel[axis] - 1) / self.stride[axis])
    }

    /// What the scratch holds: all phases, and what the last outputs read beyond.
    fn scratch_len(&self) -> usize {
        let [rows, columns] = self.phase();
        self.stride[0] * self.stride[1] * rows * columns + columns + LANES
    }

    /// The place in the scratch that tap `(y, x)` reads for the first output.
    fn offset(&self, y: usize, x: usize) -> usize {
        let ([rows, columns], [sy, sx]) = (self.phase(), self.stride);
        (y % sy * sx + x % sx) * rows * columns + y / sy * columns + x / sx
    }
}

#[inline(always)]
fn clamp(x: f32, [low, high]: [f32; 2]) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// One channel: `y` is the output, `taps` the kernel with the offset of each.
#[inline(always)]
fn channel_body(
    y: &mut [f32],
    x: &[f32],
    taps: &[(usize, f32)],
    bias: f32,
    geometry: &Geometry,
    scratch: &mut [f32],
) {
    let ([height, width], [out_height, out_width]) = (geometry.input, geometry.output);
    let ([rows, columns], [sy, sx]) = (geometry.phase(), geometry.stride);
    scratch.fill(0.0);
    for (row, line) in x.chunks_exact(width).enumerate().take(height) {
        let at = row + geometry.pad[0];
        if at / sy >= rows {
            break;
        }
        for phase in 0..sx {
            // The first pixel of the phase, and its column.
            let first = (phase + sx - geometry.pad[1] % sx) % sx;
            let column = (first + geometry.pad[1]) / sx;
            if first >= width || column >= columns {
                continue;
            }
            let start = (at % sy * sx + phase) * rows * columns + at / sy * columns;
            let to = &mut scratch[start + column..start + columns];
            if sx == 1 {
                for (to, &x) in to.iter_mut().zip(line) {
                    *to = clamp(x, geometry.bounds);
                }
            } else {
                for (to, &x) in to.iter_mut().zip(line[first..].iter().step_by(sx)) {
                    *to = clamp(x, geometry.bounds);
                }
            }
        }
    }
    // Outputs lie as the scratch does, with columns between the rows that nobody reads.
    for start in (0..out_height * columns).step_by(LANES) {
        let mut sums = [bias; LANES];
        for &(offset, weight) in taps {
            let pixels = &scratch[start + offset..][..LANES];
            for lane in 0..LANES {
                sums[lane] = pixels[lane].mul_add(weight, sums[lane]);
            }
        }
        for sum in &mut sums {
            *sum = clamp(*sum, geometry.bounds);
        }
        let end = (start + LANES).min(out_height * columns);
        let mut at = start;
        while at < end {
            let (row, column) = (at / columns, at % columns);
            let until = end.min((row + 1) * columns);
            if column < out_width {
                let count = (until - at).min(out_width - column);
                y[row * out_width + column..][..count]
                    .copy_from_slice(&sums[at - start..][..count]);
            }
            at = until;
        }
    }
}
simd!(
    /// One channel.
    channel = channel_body(
        y: &mut [f32], x: &[f32], taps: &[(usize, f32)], bias: f32, geometry: &Geometry, scratch: &mut [f32]
    )
);

/// `[batch, channels, h, w]`, `[channels, 1, kh, kw]`, `[channels]`; zero padding `[top, left, bottom, right]`.
pub(crate) fn depthwise(
    [x, w, b]: [&FlexTensor; 3],
    stride: [usize; 2],
    [top, left, bottom, right]: [usize; 4],
    bounds: [f32; 2],
) -> FlexTensor {
    let [batch, channels, height, width] = dims(x);
    let [_, _, kh, kw] = dims(w);
    let output = [
        (height + top + bottom - kh) / stride[0] + 1,
        (width + left + right - kw) / stride[1] + 1,
    ];
    let geometry = Geometry {
        input: [height, width],
        output,
        kernel: [kh, kw],
        stride,
        pad: [top, left],
        bounds,
    };
    let (x, w, b) = (contiguous(x), contiguous(w), contiguous(b));
    let (x, w, b) = (values(&x), values(&w), values(&b));
    let places = (0..kh * kw).map(|tap| geometry.offset(tap / kw, tap % kw));
    let taps: Vec<(usize, f32)> = (0..channels)
        .flat_map(|channel| places.clone().zip(w[channel * kh * kw..].iter().copied()))
        .collect();
    let (plane, out_plane) = (height * width, output[0] * output[1]);
    let y = filled(batch * channels * out_plane, |y| {
        let y = Shared(y.as_mut_ptr());
        (0..batch * channels).into_par_iter().for_each_init(
            || vec![0.0; geometry.scratch_len()],
            |scratch, job| {
                let index = job % channels;
                // SAFETY: each job has its own plane.
                let y = unsafe { { y }.part(job * out_plane, out_plane) };
                let x = &x[job * plane..][..plane];
                let taps = &taps[index * kh * kw..][..kh * kw];
                channel(y, x, taps, b[index], &geometry, scratch);
            },
        );
    });
    tensor(y, [batch, channels, output[0], output[1]])
}
