//! `act(x W + b)` and its backward pass.

use super::matmul::{Matrix, matmul};
use super::simd::{self, simd};
use super::{Shared, contiguous, dims, few_rows, filled, half, tensor, values};
use crate::ops::Activation;
use ::half::slice::HalfFloatSliceExt;
use burn::backend::flex::FlexTensor;
use burn::tensor::bf16;
use rayon::prelude::*;

/// Values per task in passes that go over memory once.
pub(crate) const CHUNK: usize = 1 << 14;

/// The bias in every row.
fn prefill(z: &mut [f32], b: &[f32]) {
    for row in z.chunks_exact_mut(b.len().max(1)) {
        row.copy_from_slice(b);
    }
}

/// `z = x W + b`: `[rows, in]`, `[in, out]`, `[out]` to `[rows, out]`.
fn affine(x: &[f32], w: &[f32], b: &[f32], rows: usize) -> Vec<f32> {
    let (inputs, outputs) = (w.len() / b.len().max(1), b.len());
    filled(rows * outputs, |z| {
        prefill(z, b);
        if rows <= few_rows::MOST && simd::fused() {
            return few_rows::accumulate(z, x, w, [rows, outputs, inputs]);
        }
        // One row alone would take gemm's matrix-vector path, which sums in another order: give it a companion.
        if rows == 1 {
            let (x, mut pair) = ([x, x].concat(), [b, b].concat());
            product(&mut pair, &x, w, [2, outputs, inputs]);
            return z.copy_from_slice(&pair[..outputs]);
        }
        product(z, x, w, [rows, outputs, inputs]);
    })
}

/// `z += x w` through gemm.
fn product(z: &mut [f32], x: &[f32], w: &[f32], [rows, outputs, inputs]: [usize; 3]) {
    // SAFETY: the sizes are those of the slices, and `z` is initialised.
    unsafe {
        matmul(
            [rows, outputs, inputs],
            z.as_mut_ptr(),
            outputs,
            true,
            Matrix::rows(x, inputs),
            Matrix::rows(w, outputs),
            true,
        );
    }
}

/// Two kernels of one elementwise function, `y = f(x)` and `g ← g · f'(x)`.
macro_rules! elementwise {
    ($forward:ident, $forward_body:ident, $f:expr, $backward:ident, $backward_body:ident, $slope:expr) => {
        #[inline(always)]
        fn $forward_body(y: &mut [f32], x: &[f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = $f(x);
            }
        }
        simd!($forward = $forward_body(y: &mut [f32], x: &[f32]));

        #[inline(always)]
        fn $backward_body(dx: &mut [f32], g: &[f32], x: &[f32]) {
            for ((dx, &g), &x) in dx.iter_mut().zip(g).zip(x) {
                *dx = g * $slope(x);
            }
        }
        simd!($backward = $backward_body(dx: &mut [f32], g: &[f32], x: &[f32]));
    };
}
elementwise!(
    gelu,
    gelu_body,
    simd::gelu,
    gelu_backward,
    gelu_backward_body,
    simd::gelu_slope
);
elementwise!(
    silu,
    silu_body,
    simd::silu,
    silu_backward,
    silu_backward_body,
    simd::silu_slope
);

#[inline(always)]
fn gelu_in_place_body(x: &mut [f32]) {
    for x in x {
        *x = simd::gelu(*x);
    }
}
simd!(gelu_in_place = gelu_in_place_body(x: &mut [f32]));

#[inline(always)]
fn silu_in_place_body(x: &mut [f32]) {
    for x in x {
        *x = simd::silu(*x);
    }
}
simd!(silu_in_place = silu_in_place_body(x: &mut [f32]));

/// x ← act(x).
pub(crate) fn activate(x: &mut [f32], act: Activation) {
    let row = match act {
        Activation::None => return,
        Activation::Gelu => gelu_in_place,
        Activation::Silu => silu_in_place,
    };
    x.par_chunks_mut(CHUNK).for_each(row);
}

/// act(x).
pub(crate) fn activated(x: &[f32], act: Activation) -> Vec<f32> {
    let row = match act {
        Activation::None => return x.to_vec(),
        Activation::Gelu => gelu,
        Activation::Silu => silu,
    };
    filled(x.len(), |y| {
        y.par_chunks_mut(CHUNK)
            .zip(x.par_chunks(CHUNK))
            .for_each(|(y, x)| row(y, x));
    })
}

/// g · act'(z).
pub(crate) fn activate_backward(g: &[f32], z: &[f32], act: Activation) -> Vec<f32> {
    let row = match act {
        Activation::None => return g.to_vec(),
        Activation::Gelu => gelu_backward,
        Activation::Silu => silu_backward,
    };
    filled(g.len(), |dx| {
        dx.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(z.par_chunks(CHUNK))
            .for_each(|((dx, g), z)| row(dx, g, z));
    })
}

/// The activation alone.
pub(crate) fn activation(x: FlexTensor, act: Activation) -> FlexTensor {
    let shape = burn::backend::TensorMetadata::shape(&x);
    tensor(activated(values(&contiguous(&x)), act), shape)
}

/// Gradient of the activation alone.
pub(crate) fn activation_backward(x: &FlexTensor, g: &FlexTensor, act: Activation) -> FlexTensor {
    let shape = burn::backend::TensorMetadata::shape(x);
    let (x, g) = (contiguous(x), contiguous(g));
    tensor(activate_backward(values(&g), values(&x), act), shape)
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
    if keep {
        let y = activated(&z, act);
        return (tensor(y, [rows, outputs]), Some(tensor(z, [rows, outputs])));
    }
    activate(&mut z, act);
    (tensor(z, [rows, outputs]), None)
}

/// [`linear`] without a backward pass, the weights being bf16: see [`half`].
pub(crate) fn linear_half(
    x: &FlexTensor,
    w: &FlexTensor,
    b: &FlexTensor,
    act: Activation,
) -> FlexTensor {
    let ([rows, inputs], [_, outputs]) = (dims(x), dims(w));
    // Columns cut out of a weight are read where they are.
    let w = match w.layout().strides() {
        [stride, 1] if *stride >= outputs as isize => w.clone(),
        _ => w.to_contiguous(),
    };
    let (x, b) = (contiguous(x), contiguous(b));
    let layout = w.layout();
    let weights = half::Weights {
        values: w.storage::<bf16>()[layout.start_offset()..].reinterpret_cast(),
        stride: layout.strides()[0].unsigned_abs(),
    };
    let mut z = filled(rows * outputs, |z| prefill(z, values(&b)));
    let sizes = [rows, outputs, inputs];
    half::accumulate(half::Kernel::best(), &mut z, values(&x), weights, sizes);
    activate(&mut z, act);
    tensor(z, [rows, outputs])
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
    let scaled = z.map(|z| activate_backward(values(&g), values(&contiguous(z)), act));
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
