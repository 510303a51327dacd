//! `z += x W` for a few rows of `x`, as when one token of each image is drawn. Each weight is used once per row, so
//! reading the weights dominates. All threads read them in order, in long runs, and never copy them into panels as a
//! general matrix product does.
//!
//! An element's order of summation is that of [`Product`](super::matmul::Product): fused multiply-adds within
//! [`DEPTH`] inputs, then the parts in order, so that a row does not depend on how many rows there are.

use super::matmul::{DEPTH, Rows};
use super::simd::{self, simd};
use super::{Shared, uninit};
use rayon::prelude::*;

/// The most rows this pays for: with more, copying weights into panels does.
pub(crate) const MOST: usize = if cfg!(target_arch = "x86_64") { 16 } else { 32 };

/// Rows of the weight per pass over the sums.
const DEEP: usize = 8;
/// Columns of one vector.
const LANES: usize = 16;

/// Columns per task, so that the sums of all rows fit the first-level cache.
fn block(rows: usize) -> usize {
    match rows {
        0..=4 => 1024,
        5..=8 => 512,
        _ => 256,
    }
}

/// A part of the product: `depth` inputs by `columns` outputs.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    rows: usize,
    depth: usize,
    columns: usize,
    x: *const f32,
    x_stride: usize,
    w: *const f32,
    w_stride: usize,
}

/// `sums[rows, columns] = x w` over the part.
#[inline(always)]
fn part_body(sums: &mut [f32], part: Part) {
    let Part {
        rows,
        depth,
        columns,
        ..
    } = part;
    sums.fill(0.0);
    let (deep, wide) = (depth / DEEP * DEEP, columns / LANES * LANES);
    // SAFETY (of all reads below): `input < depth`, `row < rows` and `column < columns` lie in the caller's matrices.
    let x = |row: usize, input: usize| unsafe { *part.x.add(row * part.x_stride + input) };
    let w = |input: usize, column: usize| unsafe { part.w.add(input * part.w_stride + column) };
    for input in (0..deep).step_by(DEEP) {
        for column in (0..wide).step_by(LANES) {
            let weights: [[f32; LANES]; DEEP] =
                // SAFETY: as above, `column + LANES <= columns`.
                std::array::from_fn(|i| unsafe { *w(input + i, column).cast::<[f32; LANES]>() });
            (0..DEEP).for_each(|i| {
                fetch(
                    part.w
                        .wrapping_add((input + DEEP + i) * part.w_stride + column),
                )
            });
            for row in 0..rows {
                let at = row * columns + column;
                let sums: &mut [f32; LANES] = (&mut sums[at..at + LANES])
                    .try_into()
                    .expect("a slice of just this length");
                for (i, weights) in weights.iter().enumerate() {
                    let x = x(row, input + i);
                    for lane in 0..LANES {
                        sums[lane] = weights[lane].mul_add(x, sums[lane]);
                    }
                }
            }
        }
        edge(sums, columns, wide, rows, input..input + DEEP, x, w);
    }
    edge(sums, columns, 0, rows, deep..depth, x, w);
}
simd!(part = part_body(sums: &mut [f32], part: Part));

/// Asks for a line of weights, which the next pass over the sums reads; it may lie past their end.
#[inline(always)]
fn fetch(line: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The inputs `inputs` into the columns from `first` on, one at a time.
#[inline(always)]
fn edge(
    sums: &mut [f32],
    columns: usize,
    first: usize,
    rows: usize,
    inputs: std::ops::Range<usize>,
    x: impl Fn(usize, usize) -> f32,
    w: impl Fn(usize, usize) -> *const f32,
) {
    for input in inputs {
        for row in 0..rows {
            let x = x(row, input);
            for column in first..columns {
                let sum = &mut sums[row * columns + column];
                // SAFETY: an element of the caller's matrix.
                *sum = unsafe { *w(input, column) }.mul_add(x, *sum);
            }
        }
    }
}

/// Weights `[inputs, outputs]` in memory, `stride` values from input to input.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// As they are multiplied.
    F32(Rows<'a>),
    /// Half as much to read: widened block by block.
    Bf16 { values: &'a [u16], stride: usize },
}

/// The values of bf16.
#[inline(always)]
fn widen_body(out: &mut [f32], values: &[u16]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = f32::from_bits(u32::from(value) << 16);
    }
}
simd!(
    /// The values of bf16 as f32.
    widen = widen_body(out: &mut [f32], values: &[u16])
);

/// `z[rows, outputs] += x[rows, inputs] · w[inputs, outputs]`.
pub(crate) fn accumulate(
    z: &mut [f32],
    x: &[f32],
    w: Weights<'_>,
    [rows, outputs, inputs]: [usize; 3],
) {
    let (values, stride, width) = match w {
        Weights::F32(w) => (w.values.len(), w.stride, block(rows)),
        // A widened block stays in the second-level cache.
        Weights::Bf16 { values, stride } => (values.len(), stride, block(rows).min(256)),
    };
    assert!(z.len() == rows * outputs && x.len() == rows * inputs);
    assert!(inputs == 0 || values >= (inputs - 1) * stride + outputs);
    let (parts, blocks) = (inputs.div_ceil(DEPTH), outputs.div_ceil(width));
    let mut sums = uninit(parts * rows * outputs);
    let shared = Shared(sums.as_mut_ptr());
    (0..parts * blocks)
        .into_par_iter()
        .for_each_init(Vec::new, |wide, task| {
            let (input, column) = (task / blocks * DEPTH, task % blocks * width);
            let (depth, columns) = (DEPTH.min(inputs - input), width.min(outputs - column));
            // SAFETY: blocks of all columns before this one fill rows * column values; each task has its own place.
            let sums = unsafe {
                { shared }.part(
                    task / blocks * rows * outputs + rows * column,
                    rows * columns,
                )
            };
            let at = input * stride + column;
            let (w, w_stride) = match w {
                Weights::F32(w) => (w.values[at..].as_ptr(), stride),
                Weights::Bf16 { values, .. } => {
                    wide.resize(DEPTH * width, 0.0);
                    for (row, wide) in wide.chunks_exact_mut(width).take(depth).enumerate() {
                        widen(
                            &mut wide[..columns],
                            &values[at + row * stride..][..columns],
                        );
                    }
                    (wide.as_ptr(), width)
                }
            };
            part(
                sums,
                Part {
                    rows,
                    depth,
                    columns,
                    x: x[input..].as_ptr(),
                    x_stride: inputs,
                    w,
                    w_stride,
                },
            );
        });
    for sums in sums.chunks_exact((rows * outputs).max(1)) {
        for column in (0..outputs).step_by(width) {
            let columns = width.min(outputs - column);
            let block = &sums[rows * column..][..rows * columns];
            for (row, sums) in block.chunks_exact(columns).enumerate() {
                simd::add_assign(&mut z[row * outputs + column..][..columns], sums);
            }
        }
    }
}
