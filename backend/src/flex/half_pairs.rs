//! bf16 by AVX-512's `vdpbf16ps`, which adds the two products of a pair of inputs to each sum of a vector: the
//! micro-kernel for panels, and a product for a few rows that reads the weights in place.

use super::half::Block;
use super::half_operands::{PANEL, ROWS};
use super::{Shared, uninit};
use rayon::prelude::*;
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_storeu_ps, _mm512_unpackhi_epi16, _mm512_unpacklo_epi16,
};

const VECTORS: usize = PANEL / 16;
/// Pairs of inputs per pass over the sums in [`accumulate_few`].
const DEEP: usize = 8;
/// Columns of one vector of weights.
const LANES: usize = 32;

/// # Safety
/// The processor has AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn halves(x: __m512i) -> __m512bh {
    // SAFETY: both are the same 64 bytes.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(x) }
}

/// `N` rows against a panel.
///
/// # Safety
/// The processor has AVX-512 BF16, and the pointers of the block hold what it says for `N` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn rows<const N: usize>(block: Block) {
    let Block {
        x,
        x_stride,
        panel,
        pairs,
        sums,
        stride,
    } = block;
    // SAFETY: the caller's contract holds for every address below.
    unsafe {
        let at = |row: usize, vector: usize| sums.add(row * stride + 16 * vector);
        let mut acc: [[__m512; VECTORS]; N] = std::array::from_fn(|row| {
            std::array::from_fn(|vector| _mm512_loadu_ps(at(row, vector)))
        });
        for pair in 0..pairs {
            let weights: [__m512bh; VECTORS] = std::array::from_fn(|vector| {
                halves(_mm512_loadu_si512(
                    panel.add(pair * 2 * PANEL + 32 * vector).cast(),
                ))
            });
            for (row, acc) in acc.iter_mut().enumerate() {
                let x = x
                    .add(row * x_stride + 2 * pair)
                    .cast::<i32>()
                    .read_unaligned();
                let x = halves(_mm512_set1_epi32(x));
                for (acc, weights) in acc.iter_mut().zip(weights) {
                    *acc = _mm512_dpbf16_ps(*acc, x, weights);
                }
            }
        }
        for (row, acc) in acc.iter().enumerate() {
            for (vector, &acc) in acc.iter().enumerate() {
                _mm512_storeu_ps(at(row, vector), acc);
            }
        }
    }
}

/// Whether [`accumulate_few`] supports these sizes.
pub(super) fn few(rows: usize, outputs: usize, inputs: usize) -> bool {
    rows <= ROWS && outputs.is_multiple_of(LANES) && inputs.is_multiple_of(2 * DEEP)
}

/// Columns of some rows: `x` in pairs, `x_stride` values apart, `w` as it lies in memory.
#[derive(Clone, Copy)]
struct Columns {
    rows: usize,
    columns: usize,
    inputs: usize,
    x: *const u16,
    x_stride: usize,
    w: *const u16,
    w_stride: usize,
}

/// `sums[rows, columns] += x w`, the columns of every 32 in the order in which two rows of weights interleave.
///
/// # Safety
/// The processor has AVX-512 BF16; the pointers hold the rows and columns; `inputs` and `columns` are multiples of
/// `2 DEEP` and `LANES`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn interleaved(sums: &mut [f32], part: Columns) {
    let Columns {
        rows,
        columns,
        inputs,
        x,
        x_stride,
        w,
        w_stride,
    } = part;
    assert!(sums.len() == rows * columns);
    for input in (0..inputs).step_by(2 * DEEP) {
        for column in (0..columns).step_by(LANES) {
            // SAFETY: the caller's contract holds for every address below.
            unsafe {
                let weights: [[__m512bh; 2]; DEEP] = std::array::from_fn(|i| {
                    let at = |input: usize| w.add(input * w_stride + column).cast();
                    let even = _mm512_loadu_si512(at(input + 2 * i));
                    let odd = _mm512_loadu_si512(at(input + 2 * i + 1));
                    [
                        halves(_mm512_unpacklo_epi16(even, odd)),
                        halves(_mm512_unpackhi_epi16(even, odd)),
                    ]
                });
                for row in 0..rows {
                    let at = sums.as_mut_ptr().add(row * columns + column);
                    let (mut low, mut high) = (_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(16)));
                    let x = x.add(row * x_stride + input);
                    for (i, [lower, higher]) in weights.into_iter().enumerate() {
                        let x = x.add(2 * i).cast::<i32>().read_unaligned();
                        let x = halves(_mm512_set1_epi32(x));
                        low = _mm512_dpbf16_ps(low, x, lower);
                        high = _mm512_dpbf16_ps(high, x, higher);
                    }
                    _mm512_storeu_ps(at, low);
                    _mm512_storeu_ps(at.add(16), high);
                }
            }
        }
    }
}

/// Where column `i` of 32 is in the interleaved order: fours alternate between the two vectors.
fn place(i: usize) -> usize {
    i / 8 * 4 + i % 4 + i % 8 / 4 * 16
}

/// `z[rows, outputs] += x weights` for sizes that [`few`] allows; `x` is `[rows, padded]` in bf16, and weights are
/// `stride` values from input to input.
pub(super) fn accumulate_few(
    z: &mut [f32],
    x: &[u16],
    weights: &[u16],
    stride: usize,
    [rows, outputs, inputs]: [usize; 3],
    padded: usize,
) {
    let vectors = outputs / LANES;
    let most = if rows <= 4 { 32 } else { 16 };
    let width = vectors.div_ceil(rayon::current_num_threads()).min(most) * LANES;
    let z = Shared(z.as_mut_ptr());
    (0..outputs.div_ceil(width))
        .into_par_iter()
        .for_each(|block| {
            let left = block * width;
            let columns = width.min(outputs - left);
            let mut sums = uninit(rows * columns);
            // SAFETY: no other task has these columns.
            let row_of = |row: usize| unsafe { { z }.part(row * outputs + left, columns) };
            for (row, sums) in sums.chunks_exact_mut(columns).enumerate() {
                for (sums, z) in sums
                    .chunks_exact_mut(LANES)
                    .zip(row_of(row).chunks_exact(LANES))
                {
                    z.iter().enumerate().for_each(|(i, &z)| sums[place(i)] = z);
                }
            }
            let part = Columns {
                rows,
                columns,
                inputs,
                x: x.as_ptr(),
                x_stride: padded,
                w: weights[left..].as_ptr(),
                w_stride: stride,
            };
            // SAFETY: the sizes were checked by the caller, the instruction by `Kernel::available`.
            unsafe { interleaved(&mut sums, part) };
            for (row, sums) in sums.chunks_exact(columns).enumerate() {
                for (sums, z) in sums
                    .chunks_exact(LANES)
                    .zip(row_of(row).chunks_exact_mut(LANES))
                {
                    z.iter_mut()
                        .enumerate()
                        .for_each(|(i, z)| *z = sums[place(i)]);
                }
            }
        });
}
