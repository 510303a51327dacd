//! Functions of one element, each a single pass over memory: activations, and the gated residual of adaLN.

use super::simd::{self, simd};
use super::{contiguous, filled, tensor, uninit, values};
use crate::arguments::Activation;
use crate::backward::GatedAddGradients;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

/// Values per task in elementwise passes.
pub(crate) const CHUNK: usize = 1 << 14;

/// The kernels of one elementwise function: `y = f(x)`, `x ← f(x)` and `dx = g · f'(x)`.
macro_rules! elementwise {
    ($f:expr, $slope:expr, $forward:ident = $forward_body:ident, $in_place:ident = $in_place_body:ident,
        $backward:ident = $backward_body:ident) => {
        #[inline(always)]
        fn $forward_body(y: &mut [f32], x: &[f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = $f(x);
            }
        }
        simd!($forward = $forward_body(y: &mut [f32], x: &[f32]));

        #[inline(always)]
        fn $in_place_body(x: &mut [f32]) {
            for x in x {
                *x = $f(*x);
            }
        }
        simd!($in_place = $in_place_body(x: &mut [f32]));

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
    simd::gelu,
    simd::gelu_slope,
    gelu = gelu_body,
    gelu_in_place = gelu_in_place_body,
    gelu_backward = gelu_backward_body
);
elementwise!(
    simd::gelu_tanh,
    simd::gelu_tanh_slope,
    gelu_tanh = gelu_tanh_body,
    gelu_tanh_in_place = gelu_tanh_in_place_body,
    gelu_tanh_backward = gelu_tanh_backward_body
);
elementwise!(
    simd::silu,
    simd::silu_slope,
    silu = silu_body,
    silu_in_place = silu_in_place_body,
    silu_backward = silu_backward_body
);

elementwise!(
    simd::relu,
    simd::relu_slope,
    relu = relu_body,
    relu_in_place = relu_in_place_body,
    relu_backward = relu_backward_body
);

/// `x ← act(x)` over one row; `None` if that changes nothing.
pub(crate) fn in_place(act: Activation) -> Option<fn(&mut [f32])> {
    Some(match act {
        Activation::None => return None,
        Activation::Gelu => gelu_in_place,
        Activation::GeluTanh => gelu_tanh_in_place,
        Activation::Silu => silu_in_place,
        Activation::Relu => relu_in_place,
    })
}

/// x ← act(x).
pub(crate) fn activate(x: &mut [f32], act: Activation) {
    if let Some(row) = in_place(act) {
        x.par_chunks_mut(CHUNK).for_each(row);
    }
}

type Forward = fn(&mut [f32], &[f32]);
type Backward = fn(&mut [f32], &[f32], &[f32]);

/// `y = act(x)` and `dx = g · act'(x)` over one row.
pub(crate) fn row_kernels(act: Activation) -> (Forward, Backward) {
    match act {
        Activation::None => (
            |y, x| y.copy_from_slice(x),
            |dx, g, _| dx.copy_from_slice(g),
        ),
        Activation::Gelu => (gelu, gelu_backward),
        Activation::GeluTanh => (gelu_tanh, gelu_tanh_backward),
        Activation::Silu => (silu, silu_backward),
        Activation::Relu => (relu, relu_backward),
    }
}

/// act(x).
pub(crate) fn activated(x: &[f32], act: Activation) -> Vec<f32> {
    let (row, _) = row_kernels(act);
    filled(x.len(), |y| {
        y.par_chunks_mut(CHUNK)
            .zip(x.par_chunks(CHUNK))
            .for_each(|(y, x)| row(y, x));
    })
}

/// g · act'(z).
pub(crate) fn activate_backward(g: &[f32], z: &[f32], act: Activation) -> Vec<f32> {
    let (_, row) = row_kernels(act);
    filled(g.len(), |dx| {
        dx.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(z.par_chunks(CHUNK))
            .for_each(|((dx, g), z)| row(dx, g, z));
    })
}

/// The activation alone.
pub(crate) fn activation(x: FlexTensor, act: Activation) -> FlexTensor {
    let shape = x.shape();
    tensor(activated(values(&contiguous(&x)), act), shape)
}

/// Gradient of the activation alone.
pub(crate) fn activation_backward(x: &FlexTensor, g: &FlexTensor, act: Activation) -> FlexTensor {
    let shape = x.shape();
    let (x, g) = (contiguous(x), contiguous(g));
    tensor(activate_backward(values(&g), values(&x), act), shape)
}

#[inline(always)]
fn gated_add_body(out: &mut [f32], x: &[f32], gate: &[f32], y: &[f32]) {
    for (((out, &x), &gate), &y) in out.iter_mut().zip(x).zip(gate).zip(y) {
        *out = gate.mul_add(y, x);
    }
}
simd!(gated_add_row = gated_add_body(out: &mut [f32], x: &[f32], gate: &[f32], y: &[f32]));

/// `x · keep`, in place if `x` is not shared.
pub(crate) fn product(x: FlexTensor, keep: &FlexTensor) -> FlexTensor {
    let keep = contiguous(keep);
    let keep = values(&keep).par_chunks(CHUNK);
    if alone(&x) {
        let mut x = x;
        let chunks = x.storage_mut::<f32>().par_chunks_mut(CHUNK);
        chunks
            .zip(keep)
            .for_each(|(x, keep)| simd::mul_assign(x, keep));
        return x;
    }
    let (shape, x) = (x.shape(), contiguous(&x));
    let data = filled(values(&x).len(), |out| {
        let chunks = out.par_chunks_mut(CHUNK).zip(values(&x).par_chunks(CHUNK));
        chunks.zip(keep).for_each(|((out, x), keep)| {
            out.copy_from_slice(x);
            simd::mul_assign(out, keep);
        });
    });
    tensor(data, shape)
}

/// `x + y`, in place if one of them is not shared.
pub(crate) fn residual(x: FlexTensor, y: FlexTensor) -> FlexTensor {
    let (mut into, other) = match alone(&x) {
        true => (x, y),
        false => (y, x),
    };
    let other = contiguous(&other);
    let other = values(&other);
    if alone(&into) {
        into.storage_mut::<f32>()
            .par_chunks_mut(CHUNK)
            .zip(other.par_chunks(CHUNK))
            .for_each(|(sum, other)| simd::add_assign(sum, other));
        return into;
    }
    let (shape, into) = (into.shape(), contiguous(&into));
    let sum = filled(other.len(), |sum| {
        sum.par_chunks_mut(CHUNK)
            .zip(values(&into).par_chunks(CHUNK))
            .zip(other.par_chunks(CHUNK))
            .for_each(|((sum, x), y)| add(sum, x, y));
    });
    tensor(sum, shape)
}

/// Whether a tensor is contiguous, fills its memory and does not share it.
pub(super) fn alone(x: &FlexTensor) -> bool {
    let layout = x.layout();
    let whole = layout.start_offset() == 0 && layout.is_contiguous();
    whole && x.is_unique() && x.storage::<f32>().len() == layout.num_elements()
}

#[inline(always)]
fn add_body(out: &mut [f32], x: &[f32], y: &[f32]) {
    for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
        *out = x + y;
    }
}
simd!(add = add_body(out: &mut [f32], x: &[f32], y: &[f32]));

#[inline(always)]
fn blend_body(average: &mut [f32], value: &[f32], share: f32) {
    for (average, &value) in average.iter_mut().zip(value) {
        *average = share.mul_add(value - *average, *average);
    }
}
simd!(blend_row = blend_body(average: &mut [f32], value: &[f32], share: f32));

/// `average + share · (value − average)`, in place if `average` is not shared.
pub(crate) fn blend(mut average: FlexTensor, value: &FlexTensor, share: f32) -> FlexTensor {
    if !alone(&average) {
        let shape = average.shape();
        average = tensor(values(&contiguous(&average)).to_vec(), shape);
    }
    let value = contiguous(value);
    average
        .storage_mut::<f32>()
        .par_chunks_mut(CHUNK)
        .zip(values(&value).par_chunks(CHUNK))
        .for_each(|(average, value)| blend_row(average, value, share));
    average
}

/// The sum of all values.
pub(crate) fn sum(x: &FlexTensor) -> FlexTensor {
    added(x, |chunk| simd::sum_and_squares(chunk).0)
}

/// The sum of all squares.
pub(crate) fn sum_of_squares(x: &FlexTensor) -> FlexTensor {
    added(x, |chunk| simd::sum_and_squares(chunk).1)
}

/// The sum of `of_chunk` over the chunks, in order and in f64.
fn added(x: &FlexTensor, of_chunk: impl Fn(&[f32]) -> f32 + Sync + Send) -> FlexTensor {
    let x = contiguous(x);
    let chunks: Vec<f32> = values(&x).par_chunks(CHUNK).map(of_chunk).collect();
    let sum: f64 = chunks.iter().map(|&sum| f64::from(sum)).sum();
    tensor(vec![sum as f32], [1])
}

/// `x + gate · y`.
pub(crate) fn gated_add(x: &FlexTensor, gate: &FlexTensor, y: &FlexTensor) -> FlexTensor {
    let shape = x.shape();
    let [x, gate, y] = [x, gate, y].map(contiguous);
    let (x, gate, y) = (values(&x), values(&gate), values(&y));
    let out = filled(x.len(), |out| {
        out.par_chunks_mut(CHUNK)
            .zip(x.par_chunks(CHUNK))
            .zip(gate.par_chunks(CHUNK))
            .zip(y.par_chunks(CHUNK))
            .for_each(|(((out, x), gate), y)| gated_add_row(out, x, gate, y));
    });
    tensor(out, shape)
}

#[inline(always)]
fn gate_gradients_body(d_gate: &mut [f32], dy: &mut [f32], gate: &[f32], y: &[f32], g: &[f32]) {
    for ((((d_gate, dy), &gate), &y), &g) in d_gate.iter_mut().zip(dy).zip(gate).zip(y).zip(g) {
        (*d_gate, *dy) = (g * y, g * gate);
    }
}
simd!(gate_gradients = gate_gradients_body(d_gate: &mut [f32], dy: &mut [f32], gate: &[f32], y: &[f32], g: &[f32]));

/// Gradients of `gate` and `y` in [`gated_add`]; that of `x` is `g` itself.
pub(crate) fn gated_add_backward(
    gate: &FlexTensor,
    y: &FlexTensor,
    g: &FlexTensor,
) -> GatedAddGradients<FlexTensor> {
    let shape = gate.shape();
    let [gate, y, g] = [gate, y, g].map(contiguous);
    let (gate, y, g) = (values(&gate), values(&y), values(&g));
    let mut d_gate = uninit(g.len());
    let dy = filled(g.len(), |dy| {
        d_gate
            .par_chunks_mut(CHUNK)
            .zip(dy.par_chunks_mut(CHUNK))
            .zip(gate.par_chunks(CHUNK))
            .zip(y.par_chunks(CHUNK))
            .zip(g.par_chunks(CHUNK))
            .for_each(|((((d_gate, dy), gate), y), g)| gate_gradients(d_gate, dy, gate, y, g));
    });
    GatedAddGradients {
        gate: tensor(d_gate, shape.clone()),
        y: tensor(dy, shape),
    }
}
