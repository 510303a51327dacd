//! Bias, activation and residual epilogues of matrix products, and the optimizer's step, each in one pass over memory.

use super::elem;
use crate::arguments::{Activation, AdamWStep};
use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// `act(x)`, in f32.
#[cube]
pub(super) fn activate<N: Size>(x: Vector<f32, N>, #[comptime] act: Activation) -> Vector<f32, N> {
    match comptime!(act) {
        Activation::None => x,
        Activation::Gelu => {
            let half = Vector::<f32, N>::new(0.5);
            let one = Vector::<f32, N>::new(1.0);
            let root = Vector::<f32, N>::new(core::f32::consts::FRAC_1_SQRT_2);
            half * x * (one + (x * root).erf())
        }
        Activation::GeluTanh => {
            let half = Vector::<f32, N>::new(0.5);
            let one = Vector::<f32, N>::new(1.0);
            let cubic = Vector::<f32, N>::new(0.044_715);
            let root = Vector::<f32, N>::new(0.797_884_6);
            half * x * (one + (root * (x + cubic * x * x * x)).tanh())
        }
        Activation::Silu => {
            let one = Vector::<f32, N>::new(1.0);
            let zero = Vector::<f32, N>::new(0.0);
            x / (one + (zero - x).exp())
        }
        Activation::Relu => {
            let zero = Vector::<f32, N>::new(0.0);
            select_many(x.less_than(&zero), zero, x)
        }
    }
}

/// [`activate`] of one number.
#[cube]
pub(super) fn activate_one(x: f32, #[comptime] act: Activation) -> f32 {
    activate::<Const<1>>(Vector::new(x), act).extract(0usize)
}

/// `act′(x)`, in f32.
#[cfg(not(feature = "fusion"))]
#[cube]
pub(super) fn slope<N: Size>(x: Vector<f32, N>, #[comptime] act: Activation) -> Vector<f32, N> {
    let half = Vector::<f32, N>::new(0.5);
    let one = Vector::<f32, N>::new(1.0);
    let zero = Vector::<f32, N>::new(0.0);
    match comptime!(act) {
        Activation::None => one,
        Activation::Gelu => {
            let root = Vector::<f32, N>::new(core::f32::consts::FRAC_1_SQRT_2);
            let density = Vector::<f32, N>::new(0.398_942_3);
            half * (one + (x * root).erf()) + x * density * (zero - half * x * x).exp()
        }
        Activation::GeluTanh => {
            let cubic = Vector::<f32, N>::new(0.044_715);
            let three = Vector::<f32, N>::new(3.0);
            let root = Vector::<f32, N>::new(0.797_884_6);
            let tanh = (root * (x + cubic * x * x * x)).tanh();
            let inner = root * (one + three * cubic * x * x);
            half * (one + tanh) + half * x * (one - tanh * tanh) * inner
        }
        Activation::Silu => {
            let sigmoid = one / (one + (zero - x).exp());
            sigmoid * (one + x * (one - sigmoid))
        }
        Activation::Relu => select_many(x.greater_than(&zero), one, zero),
    }
}

/// [`slope`] of one number.
#[cfg(not(feature = "fusion"))]
#[cube]
pub(super) fn slope_one(x: f32, #[comptime] act: Activation) -> f32 {
    slope::<Const<1>>(Vector::new(x), act).extract(0usize)
}

#[cfg(not(feature = "fusion"))]
#[cube(launch)]
fn activation_backward_kernel<N: Size>(
    x: &Tensor<Vector<f32, N>>,
    g: &Tensor<Vector<f32, N>>,
    dx: &mut Tensor<Vector<f32, N>>,
    #[comptime] act: Activation,
) {
    if ABSOLUTE_POS < dx.len() {
        dx[ABSOLUTE_POS] = g[ABSOLUTE_POS] * slope(x[ABSOLUTE_POS], act);
    }
}

#[cube(launch)]
fn activation_kernel<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    y: &mut Tensor<Vector<F, N>>,
    #[comptime] act: Activation,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS < y.len() {
        let value = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]);
        y[ABSOLUTE_POS] = Vector::cast_from(activate(value, act));
    }
}

#[cube(launch)]
fn bias_kernel<X: Float, F: Float, N: Size>(
    x: &Tensor<Vector<X, N>>,
    bias: &Tensor<Vector<F, N>>,
    y: &mut Tensor<Vector<F, N>>,
    #[comptime] act: Activation,
    #[define(X, F)] _dtypes: [ElemType; 2],
) {
    if ABSOLUTE_POS < y.len() {
        let value = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]);
        let bias = Vector::<f32, N>::cast_from(bias[ABSOLUTE_POS % bias.len()]);
        y[ABSOLUTE_POS] = Vector::cast_from(activate(value + bias, act));
    }
}

#[cube(launch)]
fn gated_add_kernel<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    gate: &Tensor<Vector<F, N>>,
    y: &Tensor<Vector<F, N>>,
    sum: &mut Tensor<Vector<F, N>>,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS < sum.len() {
        let x = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]);
        let gate = Vector::<f32, N>::cast_from(gate[ABSOLUTE_POS]);
        let y = Vector::<f32, N>::cast_from(y[ABSOLUTE_POS]);
        sum[ABSOLUTE_POS] = Vector::cast_from(x + gate * y);
    }
}

/// The number of consecutive values per thread, and the launch of one thread per group.
fn groups(like: &CubeTensor, row: usize) -> (usize, CubeCount, CubeDim) {
    let width = [4, 2, 1]
        .into_iter()
        .find(|width| row.is_multiple_of(*width));
    let width = width.unwrap_or(1);
    let count = like.meta.num_elements() / width;
    let dim = CubeDim::new(&like.client, count);
    let cubes = calculate_cube_count_elemwise(&like.client, count, dim);
    (width, cubes, dim)
}

fn last(tensor: &CubeTensor) -> usize {
    *tensor.meta.shape().last().expect("no tensor is a scalar")
}

/// An uninitialized tensor of the shape of `x`.
fn beside(x: &CubeTensor, dtype: DType) -> CubeTensor {
    let (client, device) = (x.client.clone(), x.device.clone());
    empty_device_contiguous_dtype(client, device, x.shape(), dtype)
}

/// See [`crate::Backend::activation`].
pub(crate) fn activation(x: CubeTensor, act: Activation) -> CubeTensor {
    let x = into_contiguous(x);
    let y = beside(&x, x.dtype);
    let (width, cubes, dim) = groups(&x, x.meta.num_elements());
    let (client, dtype) = (x.client.clone(), elem(&x));
    let (x, out) = (x.into_tensor_arg(), y.clone().into_tensor_arg());
    activation_kernel::launch(&client, cubes, dim, width, x, out, act, dtype);
    y
}

/// The gradient of [`activation`]; f32 only.
#[cfg(not(feature = "fusion"))]
pub(crate) fn activation_backward(x: CubeTensor, g: CubeTensor, act: Activation) -> CubeTensor {
    let [x, g] = [x, g].map(into_contiguous);
    let dx = beside(&x, x.dtype);
    let (width, cubes, dim) = groups(&x, x.meta.num_elements());
    let client = x.client.clone();
    let [x, g, out] = [x, g, dx.clone()].map(CubeTensor::into_tensor_arg);
    activation_backward_kernel::launch(&client, cubes, dim, width, x, g, out, act);
    dx
}

/// `act(x + bias)` for every row, in the type of the bias.
pub(crate) fn bias(x: CubeTensor, bias: CubeTensor, act: Activation) -> CubeTensor {
    let (x, bias) = (into_contiguous(x), into_contiguous(bias));
    let y = beside(&x, bias.dtype);
    let (width, cubes, dim) = groups(&x, last(&x));
    let (client, dtypes) = (x.client.clone(), [elem(&x), elem(&bias)]);
    let (x, bias, out) = (
        x.into_tensor_arg(),
        bias.into_tensor_arg(),
        y.clone().into_tensor_arg(),
    );
    bias_kernel::launch(&client, cubes, dim, width, x, bias, out, act, dtypes);
    y
}

/// See [`crate::Backend::gated_add`].
pub(crate) fn gated_add(x: CubeTensor, gate: CubeTensor, y: CubeTensor) -> CubeTensor {
    let [x, gate, y] = [x, gate, y].map(into_contiguous);
    let sum = beside(&x, x.dtype);
    let (width, cubes, dim) = groups(&x, x.meta.num_elements());
    let (client, dtype) = (x.client.clone(), elem(&x));
    let [x, gate, y] = [x, gate, y].map(CubeTensor::into_tensor_arg);
    let out = sum.clone().into_tensor_arg();
    gated_add_kernel::launch(&client, cubes, dim, width, x, gate, y, out, dtype);
    sum
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn adamw_kernel(
    p: &Tensor<f32>,
    m: &Tensor<f32>,
    v: &Tensor<f32>,
    g: &Tensor<f32>,
    p_out: &mut Tensor<f32>,
    m_out: &mut Tensor<f32>,
    v_out: &mut Tensor<f32>,
    grad_scale: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    root_correction2: f32,
    step_size: f32,
    decay: f32,
) {
    let i = ABSOLUTE_POS;
    if i < p_out.len() {
        let one = 1.0f32;
        let g = g[i] * grad_scale;
        let first = m[i] * beta1 + g * (one - beta1);
        let second = v[i] * beta2 + g * g * (one - beta2);
        let root = second.sqrt() * root_correction2 + eps;
        p_out[i] = p[i] * decay - step_size * first / root;
        m_out[i] = first;
        v_out[i] = second;
    }
}

/// See [`crate::Backend::adamw`]; f32 only.
pub(crate) fn adamw(
    p: CubeTensor,
    m: CubeTensor,
    v: CubeTensor,
    g: CubeTensor,
    step: AdamWStep,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [p, m, v, g] = [p, m, v, g].map(into_contiguous);
    let outs = [&p, &m, &v].map(|x| beside(x, x.dtype));
    let client = p.client.clone();
    let count = p.meta.num_elements();
    let dim = CubeDim::new(&client, count);
    let cubes = calculate_cube_count_elemwise(&client, count, dim);
    let [p, m, v, g] = [p, m, v, g].map(CubeTensor::into_tensor_arg);
    let [p_out, m_out, v_out] = outs.clone().map(CubeTensor::into_tensor_arg);
    adamw_kernel::launch(
        &client,
        cubes,
        dim,
        p,
        m,
        v,
        g,
        p_out,
        m_out,
        v_out,
        step.grad_scale as f32,
        step.beta1 as f32,
        step.beta2 as f32,
        step.eps as f32,
        (1.0 / step.correction2().sqrt()) as f32,
        (step.lr / step.correction1()) as f32,
        (1.0 - step.lr * step.weight_decay) as f32,
    );
    outs.into()
}
