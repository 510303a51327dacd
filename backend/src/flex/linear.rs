//! `act(x W + b)` and its backward pass.

use super::elementwise::{activate, activate_backward, activated};
use super::few_rows::{self, Weights as Stored};
use super::half_operands::{self, Features, Weights};
use super::matmul::{Matrix, Product, Rows, Threads};
#[cfg(target_arch = "x86_64")]
use super::panel_product;
use super::simd;
use super::{Shared, contiguous, dims, filled, half, half_product, tensor, uninit, values};
use crate::arguments::Activation;
use crate::backward::{LinearInputs, LinearSaved};
#[cfg(target_arch = "x86_64")]
use crate::instructions::Instructions;
use crate::panels;
use crate::precision::autocasting;
use ::half::slice::HalfFloatSliceExt;
use ::half::vec::HalfBitsVecExt;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, TensorData, bf16};
use rayon::prelude::*;

/// The bias in every row.
fn prefill(z: &mut [f32], b: &[f32]) {
    /// Values per task.
    const TASK: usize = 1 << 16;
    let outputs = b.len().max(1);
    z.par_chunks_mut(outputs * TASK.div_ceil(outputs))
        .for_each(|z| {
            z.chunks_exact_mut(outputs)
                .for_each(|row| row.copy_from_slice(b))
        });
}

/// `z = x W + b`: `[rows, in]`, `[in, out]`, `[out]` to `[rows, out]`.
fn affine(x: &[f32], w: Rows<'_>, b: &[f32], [rows, inputs]: [usize; 2]) -> Vec<f32> {
    filled(rows * b.len(), |z| {
        affine_into(z, x, w, b, [rows, inputs], Threads::All);
    })
}

/// [`affine`] into memory that may be uninitialized; `threads` apply to many rows.
pub(crate) fn affine_into(
    z: &mut [f32],
    x: &[f32],
    w: Rows<'_>,
    b: &[f32],
    [rows, inputs]: [usize; 2],
    threads: Threads,
) {
    let outputs = b.len();
    prefill(z, b);
    if accumulated(z, x, Stored::F32(w), [rows, outputs, inputs], threads) {
        return;
    }
    // One row or column alone would take gemm's matrix-vector path, which sums in another order: give it a companion.
    if outputs == 1 {
        let values: Vec<_> = (0..inputs)
            .flat_map(|input| [w.values[input * w.stride]; 2])
            .collect();
        let (values, stride) = (&values[..], 2);
        let mut pair = uninit(2 * rows);
        let twice = Rows { values, stride };
        affine_into(&mut pair, x, twice, &[b[0]; 2], [rows, inputs], threads);
        let pairs = pair.chunks_exact(2);
        return z.iter_mut().zip(pairs).for_each(|(z, pair)| *z = pair[0]);
    }
    if rows == 1 {
        let (x, mut pair) = ([x, x].concat(), [b, b].concat());
        product(&mut pair, &x, w, [2, outputs, inputs], threads);
        return z.copy_from_slice(&pair[..outputs]);
    }
    product(z, x, w, [rows, outputs, inputs], threads);
}

/// `z += x w`, if a kernel of ours is faster than a general product of these sizes; whether there is one.
fn accumulated(
    z: &mut [f32],
    x: &[f32],
    w: Stored<'_>,
    sizes @ [rows, ..]: [usize; 3],
    threads: Threads,
) -> bool {
    if !simd::fused() {
        return false;
    }
    if rows <= few_rows::MOST {
        few_rows::accumulate(z, x, w, sizes);
        return true;
    }
    #[cfg(target_arch = "x86_64")]
    if rows <= panel_product::MOST {
        panel_product::accumulate(z, x, w, sizes, threads);
        return true;
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = threads;
    false
}

/// `z += x w` through gemm.
fn product(
    z: &mut [f32],
    x: &[f32],
    w: Rows<'_>,
    [rows, outputs, inputs]: [usize; 3],
    threads: Threads,
) {
    // SAFETY: the sizes are those of the slices, and `z` is initialized.
    unsafe {
        Product {
            sizes: [rows, outputs, inputs],
            a: Matrix::rows(x, inputs),
            b: w.into(),
            threads,
        }
        .accumulate(z.as_mut_ptr(), outputs);
    }
}

/// A matrix with contiguous rows, copied only if it has none: a slice of columns of a weight is read in place.
fn in_rows(matrix: &FlexTensor) -> FlexTensor {
    match matrix.layout().strides() {
        [stride, 1] if *stride >= 0 => matrix.clone(),
        _ => contiguous(matrix),
    }
}

/// The rows of a matrix that [`in_rows`] returned.
fn rows_of(matrix: &FlexTensor) -> Rows<'_> {
    let layout = matrix.layout();
    Rows {
        values: &matrix.storage::<f32>()[layout.start_offset()..],
        stride: layout.strides()[0].unsigned_abs(),
    }
}

/// The preactivations `x w + b`: `[rows, out]`.
fn preactivations(x: &FlexTensor, w: &FlexTensor, b: &FlexTensor) -> Vec<f32> {
    let sizes @ [rows, inputs] = dims(x);
    let packed = panels::are(dims(w), inputs);
    assert_eq!(
        dims(b),
        [panels::outputs(dims(w), inputs)],
        "a bias for each output"
    );
    let (x, w, b) = (contiguous(x), in_rows(w), contiguous(b));
    let (x, w, b) = (values(&x), rows_of(&w), values(&b));
    #[cfg(target_arch = "x86_64")]
    if packed {
        return filled(rows * b.len(), |z| {
            prefill(z, b);
            let (panels, sizes) = (&w.values[..inputs * b.len()], [rows, b.len(), inputs]);
            panel_product::accumulate_packed(z, x, panels, sizes, Threads::All);
        });
    }
    assert!(!packed, "weights in panels on x86-64 alone");
    let Some(kernel) = half::Kernel::of(autocasting()) else {
        return affine(x, w, b, sizes);
    };
    filled(rows * b.len(), |z| {
        let Rows { values, stride } = w;
        let (x, w) = (Features::Rows(x), Weights::WideRows { values, stride });
        let sizes = [rows, b.len(), inputs];
        half_product::multiply(kernel, z, x, w, sizes, Some(b), Activation::None);
    })
}

/// The output, without the preactivations.
pub(crate) fn linear(
    x: &FlexTensor,
    w: &FlexTensor,
    b: &FlexTensor,
    act: Activation,
) -> FlexTensor {
    let ([rows, _], [outputs]) = (dims(x), dims(b));
    let mut z = preactivations(x, w, b);
    activate(&mut z, act);
    tensor(z, [rows, outputs])
}

/// The output and, if there is an activation, the preactivations for the backward pass.
pub(crate) fn linear_with_saved(
    x: &FlexTensor,
    w: &FlexTensor,
    b: &FlexTensor,
    act: Activation,
) -> (FlexTensor, Option<FlexTensor>) {
    let ([rows, _], [outputs]) = (dims(x), dims(b));
    let z = preactivations(x, w, b);
    if act == Activation::None {
        return (tensor(z, [rows, outputs]), None);
    }
    let y = activated(&z, act);
    (tensor(y, [rows, outputs]), Some(tensor(z, [rows, outputs])))
}

/// [`linear`] with bf16 weights, for inference: see [`half`].
pub(crate) fn linear_half(
    x: &FlexTensor,
    w: &FlexTensor,
    b: &FlexTensor,
    act: Activation,
) -> FlexTensor {
    let ([rows, inputs], [columns]) = (dims(x), dims(b));
    let (x, b) = (contiguous(x), contiguous(b));
    // A slice of columns of a weight is read in place.
    let w = match w.layout().strides() {
        [stride, 1] if *stride >= dims::<2>(w)[1] as isize => w.clone(),
        _ => w.to_contiguous(),
    };
    let (layout, outputs) = (w.layout(), panels::outputs(dims(&w), inputs));
    assert_eq!(columns, outputs, "a bias for each output");
    let weights: &[u16] = w.storage::<bf16>()[layout.start_offset()..].reinterpret_cast();
    let stride = layout.strides()[0].unsigned_abs();
    let Some(kernel) = half::Kernel::best() else {
        let mut z = affine_widened(values(&x), weights, stride, values(&b), [rows, inputs]);
        activate(&mut z, act);
        return tensor(z, [rows, outputs]);
    };
    let weights = match panels::are(dims(&w), inputs) {
        true => Weights::Panels(&weights[..inputs * outputs]),
        false => Weights::Rows {
            values: weights,
            stride,
        },
    };
    let (sizes, x) = ([rows, outputs, inputs], Features::Rows(values(&x)));
    let z = filled(rows * outputs, |z| {
        half_product::multiply(kernel, z, x, weights, sizes, Some(values(&b)), act);
    });
    tensor(z, [rows, outputs])
}

/// [`affine`] with bf16 weights where no instruction multiplies them: widened, then as in f32.
fn affine_widened(
    x: &[f32],
    weights: &[u16],
    stride: usize,
    b: &[f32],
    [rows, inputs]: [usize; 2],
) -> Vec<f32> {
    let (outputs, sizes) = (b.len(), [rows, b.len(), inputs]);
    let w = Stored::Bf16 {
        values: weights,
        stride,
    };
    let mut z = filled(rows * outputs, |z| prefill(z, b));
    if accumulated(&mut z, x, w, sizes, Threads::All) {
        return z;
    }
    let wide = filled(inputs * outputs, |wide| {
        wide.par_chunks_mut(outputs.max(1))
            .zip(weights.par_chunks(stride))
            .for_each(|(wide, weights)| few_rows::widen(wide, &weights[..outputs]));
    });
    let wide = Rows {
        values: &wide,
        stride: outputs,
    };
    affine(x, wide, b, [rows, inputs])
}

/// A weight in [panels](crate::panels), if it can be and a kernel reads them.
pub(crate) fn packed(w: FlexTensor) -> FlexTensor {
    let sizes @ [inputs, outputs] = dims(&w);
    if !panels::possible(sizes) {
        return w;
    }
    let shape = [outputs / panels::PANEL, inputs * panels::PANEL];
    match w.dtype() {
        DType::BF16 if half::Kernel::best().is_some() => {
            let w = w.to_contiguous();
            let values: &[u16] =
                w.storage::<bf16>()[w.layout().start_offset()..].reinterpret_cast();
            let panels = half_operands::packed(&values[..inputs * outputs], sizes);
            let panels: Vec<bf16> = panels.reinterpret_into();
            FlexTensor::from_data(TensorData::new(panels, shape))
        }
        // With fewer registers a general product is faster for many rows.
        #[cfg(target_arch = "x86_64")]
        DType::F32 if Instructions::used() >= Instructions::Avx512 => {
            tensor(panel_product::packed(values(&contiguous(&w)), sizes), shape)
        }
        _ => w,
    }
}

/// Backward: the gradients of those inputs that need one.
pub(crate) fn linear_backward(
    LinearSaved { x, w, z, precision }: LinearSaved<FlexTensor>,
    g: FlexTensor,
    act: Activation,
    needs_grad: LinearInputs<bool>,
) -> LinearInputs<Option<FlexTensor>> {
    let ([rows, inputs], [_, outputs]) = (dims(&x), dims(&w));
    let (x, w, g) = (contiguous(&x), in_rows(&w), contiguous(&g));
    let scaled = z.map(|z| activate_backward(values(&g), values(&contiguous(&z)), act));
    let g = scaled.as_deref().unwrap_or_else(|| values(&g));
    let bias = |needed: bool| needed.then(|| tensor(column_sums(g, outputs), [outputs]));
    if let Some(kernel) = half::Kernel::of(precision) {
        let Rows {
            values: weights,
            stride,
        } = rows_of(&w);
        let transposed = Weights::WideColumns {
            values: weights,
            stride,
        };
        let gradient = Weights::WideRows {
            values: g,
            stride: outputs,
        };
        let product = |x, w, [rows, columns, depth]: [usize; 3]| {
            let z = filled(rows * columns, |z| {
                let sizes = [rows, columns, depth];
                half_product::multiply(kernel, z, x, w, sizes, None, Activation::None);
            });
            tensor(z, [rows, columns])
        };
        let (g, x) = (Features::Rows(g), Features::Columns(values(&x)));
        return LinearInputs {
            x: needs_grad
                .x
                .then(|| product(g, transposed, [rows, inputs, outputs])),
            w: needs_grad
                .w
                .then(|| product(x, gradient, [inputs, outputs, rows])),
            b: bias(needs_grad.b),
        };
    }
    let (x, w) = (Matrix::rows(values(&x), inputs), Matrix::from(rows_of(&w)));
    let grad = Matrix::rows(g, outputs);
    let product = |shape: [usize; 3], a: Matrix, b: Matrix| {
        let data = filled(shape[0] * shape[1], |out| {
            // SAFETY: the shapes of x, w and g fit each other, and gemm overwrites `out`.
            unsafe {
                Product {
                    sizes: shape,
                    a,
                    b,
                    threads: Threads::All,
                }
                .assign(out.as_mut_ptr(), shape[1])
            }
        });
        tensor(data, [shape[0], shape[1]])
    };
    LinearInputs {
        x: needs_grad
            .x
            .then(|| product([rows, inputs, outputs], grad, w.t())),
        w: needs_grad
            .w
            .then(|| product([inputs, outputs, rows], x.t(), grad)),
        b: bias(needs_grad.b),
    }
}

/// Sums the rows of each matrix: `[batch, rows, d]` to `[batch, d]`.
pub(crate) fn sum_rows(g: &FlexTensor) -> FlexTensor {
    let [batch, rows, d] = dims(g);
    let g = contiguous(g);
    let mut sums = vec![0.0; batch * d];
    if rows * d > 0 {
        sums.par_chunks_mut(d)
            .zip(values(&g).par_chunks(rows * d))
            .with_min_len((1 << 14) / (rows * d) + 1)
            .for_each(|(sums, g)| {
                for row in g.chunks_exact(d) {
                    simd::add_assign(sums, row);
                }
            });
    }
    tensor(sums, [batch, d])
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
