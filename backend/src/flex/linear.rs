//! `act(x W + b)` and its backward pass.

use super::matmul::{Matrix, matmul};
use super::simd::{self, simd};
use super::{Shared, contiguous, dims, filled, tensor, values};
use crate::ops::Activation;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

/// Values per task in passes that go over memory once.
pub(crate) const CHUNK: usize = 1 << 14;

/// `z = x W + b`: `[rows, in]`, `[in, out]`, `[out]` to `[rows, out]`.
fn affine(x: &[f32], w: &[f32], b: &[f32], rows: usize) -> Vec<f32> {
    let (inputs, outputs) = (w.len() / b.len(), b.len());
    // One row alone would take gemm's matrix-vector path, which sums in another order: give it a companion.
    let padded;
    let (x, computed) = if rows == 1 {
        padded = [x, &vec![0.0; inputs]].concat();
        (padded.as_slice(), 2)
    } else {
        (x, rows)
    };
    let mut z = filled(computed * outputs, |z| {
        for row in z.chunks_exact_mut(outputs) {
            row.copy_from_slice(b);
        }
        // SAFETY: shapes were checked by the caller; `z` was just filled with the bias.
        unsafe {
            matmul(
                [computed, outputs, inputs],
                z.as_mut_ptr(),
                outputs,
                true,
                Matrix::rows(x, inputs),
                Matrix::rows(w, outputs),
                true,
            );
        }
    });
    z.truncate(rows * outputs);
    z
}

#[inline(always)]
fn gelu_body(x: &mut [f32]) {
    for x in x {
        *x = simd::gelu(*x);
    }
}
simd!(gelu_row = gelu_body(x: &mut [f32]));

#[inline(always)]
fn silu_body(x: &mut [f32]) {
    for x in x {
        *x *= simd::sigmoid(*x);
    }
}
simd!(silu_row = silu_body(x: &mut [f32]));

#[inline(always)]
fn gelu_slope_body(g: &mut [f32], z: &[f32]) {
    for (g, &z) in g.iter_mut().zip(z) {
        *g *= simd::gelu_slope(z);
    }
}
simd!(gelu_slope_row = gelu_slope_body(g: &mut [f32], z: &[f32]));

#[inline(always)]
fn silu_slope_body(g: &mut [f32], z: &[f32]) {
    for (g, &z) in g.iter_mut().zip(z) {
        *g *= simd::silu_slope(z);
    }
}
simd!(silu_slope_row = silu_slope_body(g: &mut [f32], z: &[f32]));

/// x ← act(x).
pub(crate) fn activate(x: &mut [f32], act: Activation) {
    let row = match act {
        Activation::None => return,
        Activation::Gelu => gelu_row,
        Activation::Silu => silu_row,
    };
    x.par_chunks_mut(CHUNK).for_each(row);
}

/// g ← g · act'(z).
pub(crate) fn activate_backward(g: &mut [f32], z: &[f32], act: Activation) {
    let row = match act {
        Activation::None => return,
        Activation::Gelu => gelu_slope_row,
        Activation::Silu => silu_slope_row,
    };
    g.par_chunks_mut(CHUNK)
        .zip(z.par_chunks(CHUNK))
        .for_each(|(g, z)| row(g, z));
}

/// The activation alone.
pub(crate) fn activation(x: FlexTensor, act: Activation) -> FlexTensor {
    let shape = burn::backend::TensorMetadata::shape(&x);
    let mut y = values(&contiguous(&x)).to_vec();
    activate(&mut y, act);
    tensor(y, shape)
}

/// Gradient of the activation alone.
pub(crate) fn activation_backward(x: &FlexTensor, g: &FlexTensor, act: Activation) -> FlexTensor {
    let shape = burn::backend::TensorMetadata::shape(x);
    let mut dx = values(&contiguous(g)).to_vec();
    activate_backward(&mut dx, values(&contiguous(x)), act);
    tensor(dx, shape)
}

/// Forward: the output and, where the backward pass needs it, what went into the activation.
pub(crate) fn linear(
    x: &FlexTensor,
    w: &FlexTensor,
    b: &FlexTensor,
    act: Activation,
    keep: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    let ([rows, _], [_, outputs]) = (dims(x), dims(w));
    let (x, w, b) = (contiguous(x), contiguous(w), contiguous(b));
    let mut z = affine(values(&x), values(&w), values(&b), rows);
    if act == Activation::None {
        return (tensor(z, [rows, outputs]), None);
    }
    let kept = keep.then(|| tensor(z.clone(), [rows, outputs]));
    activate(&mut z, act);
    (tensor(z, [rows, outputs]), kept)
}

/// Backward: gradients of `x`, `w` and `b`, each only where `wanted`.
pub(crate) fn linear_backward(
    x: &FlexTensor,
    w: &FlexTensor,
    z: Option<&FlexTensor>,
    g: FlexTensor,
    act: Activation,
    wanted: [bool; 3],
) -> [Option<FlexTensor>; 3] {
    let ([rows, inputs], [_, outputs]) = (dims(x), dims(w));
    let (x, w, g) = (contiguous(x), contiguous(w), contiguous(&g));
    let scaled = z.map(|z| {
        let mut g = values(&g).to_vec();
        activate_backward(&mut g, values(&contiguous(z)), act);
        g
    });
    let g = scaled.as_deref().unwrap_or_else(|| values(&g));
    let (x, w) = (
        Matrix::rows(values(&x), inputs),
        Matrix::rows(values(&w), outputs),
    );
    let grad = Matrix::rows(g, outputs);
    let product = |shape: [usize; 3], a: Matrix, b: Matrix| {
        let data = filled(shape[0] * shape[1], |out| {
            // SAFETY: the shapes of x, w and g fit each other, and gemm overwrites `out`.
            unsafe { matmul(shape, out.as_mut_ptr(), shape[1], false, a, b, true) }
        });
        tensor(data, [shape[0], shape[1]])
    };
    [
        wanted[0].then(|| product([rows, inputs, outputs], grad, w.t())),
        wanted[1].then(|| product([inputs, outputs, rows], x.t(), grad)),
        wanted[2].then(|| tensor(column_sums(g, outputs), [outputs])),
    ]
}

/// Sum over rows, in blocks of a fixed size whose sums are added in order.
pub(crate) fn column_sums(g: &[f32], columns: usize) -> Vec<f32> {
    const ROWS: usize = 256;
    let blocks = g.len().div_ceil(ROWS * columns).max(1);
    let mut partial = vec![0.0_f32; blocks * columns];
    let shared = Shared(partial.as_mut_ptr());
    g.par_chunks(ROWS * columns)
        .enumerate()
        .for_each(|(block, rows)| {
            // SAFETY: each block has its own row of partial sums.
            let sums = unsafe { { shared }.part(block * columns, columns) };
            for row in rows.chunks_exact(columns) {
                simd::add_assign(sums, row);
            }
        });
    let (first, rest) = partial.split_at_mut(columns);
    for sums in rest.chunks_exact(columns) {
        simd::add_assign(first, sums);
    }
    partial.truncate(columns);
    partial
}
