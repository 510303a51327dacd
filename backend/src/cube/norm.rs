//! Layer and group normalization: statistics and output in one or two passes.

use super::elementwise::activate_one;
use super::{UNITS, cube_sum, cubes, dims, elem, empty, units};
use crate::arguments::Activation;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Mean and sum of squared deviations of consecutive values, reduced by the cube and returned to every thread.
#[cube]
fn moments<F: Float>(
    x: &Tensor<F>,
    start: usize,
    count: usize,
    scratch: &mut Shared<[f32]>,
) -> (f32, f32) {
    let (unit, step) = (UNIT_POS as usize, CUBE_DIM as usize);
    let mut sum = 0.0f32;
    let mut i = unit;
    while i < count {
        sum += f32::cast_from(x[start + i]);
        i += step;
    }
    let mean = cube_sum(sum, scratch) / f32::cast_from(count as u32);

    let mut squares = 0.0f32;
    let mut i = unit;
    while i < count {
        let centered = f32::cast_from(x[start + i]) - mean;
        squares += centered * centered;
        i += step;
    }
    (mean, cube_sum(squares, scratch))
}

/// Mean and inverse standard deviation of consecutive values.
#[cube]
pub(super) fn of_row<F: Float>(
    x: &Tensor<F>,
    start: usize,
    count: usize,
    eps: f32,
    scratch: &mut Shared<[f32]>,
) -> (f32, f32) {
    let (mean, squares) = moments(x, start, count, scratch);
    let variance = squares / f32::cast_from(count as u32);
    (mean, 1.0f32 / (variance + eps).sqrt())
}

/// One cube per row. Without modulation `shift` and `scale` are not read.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn layer_norm_kernel<F: Float>(
    x: &Tensor<F>,
    weight: &Tensor<F>,
    bias: &Tensor<F>,
    shift: &Tensor<F>,
    scale: &Tensor<F>,
    y: &mut Tensor<F>,
    eps: f32,
    #[comptime] modulated: bool,
    #[define(F)] _dtype: ElemType,
) {
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let (row, d) = (CUBE_POS, x.shape(1));
    if row >= x.shape(0) {
        terminate!();
    }
    let start = row * d;
    let (unit, step) = (UNIT_POS as usize, CUBE_DIM as usize);

    let (mean, inverse) = of_row(x, start, d, eps, &mut scratch);

    let mut i = unit;
    while i < d {
        let normal = (f32::cast_from(x[start + i]) - mean) * inverse;
        let mut value = normal * f32::cast_from(weight[i]) + f32::cast_from(bias[i]);
        if modulated {
            let scale = f32::cast_from(scale[start + i]);
            value = value * (1.0f32 + scale) + f32::cast_from(shift[start + i]);
        }
        y[start + i] = F::cast_from(value);
        i += step;
    }
}

/// See [`crate::Backend::layer_norm_affine`] and, with shift and scale, [`crate::Backend::modulate`].
pub(crate) fn layer_norm(
    x: CubeTensor,
    [weight, bias]: [CubeTensor; 2],
    modulation: Option<[CubeTensor; 2]>,
    eps: f64,
) -> CubeTensor {
    let [x, weight, bias] = [x, weight, bias].map(into_contiguous);
    let [rows, d] = dims(&x);
    let y = empty(&x, [rows, d], x.dtype);
    let modulated = modulation.is_some();
    let [shift, scale] = match modulation {
        Some(both) => both.map(into_contiguous),
        None => [bias.clone(), bias.clone()],
    };
    let (client, dtype) = (x.client.clone(), elem(&x));
    let (cubes, units) = (cubes(&x, rows), units(&x, d));
    let [x, weight, bias, shift, scale] =
        [x, weight, bias, shift, scale].map(CubeTensor::into_tensor_arg);
    layer_norm_kernel::launch(
        &client,
        cubes,
        CubeDim::new_1d(units),
        x,
        weight,
        bias,
        shift,
        scale,
        y.clone().into_tensor_arg(),
        eps as f32,
        modulated,
        dtype,
    );
    y
}

/// Elements of a group per cube.
pub(super) const PART: usize = 8192;

/// Mean and sum of squared deviations of each part, `[groups, parts, 2]`.
#[cube(launch)]
fn moments_kernel<F: Float>(
    x: &Tensor<F>,
    parts_moments: &mut Tensor<f32>,
    len: u32,
    parts: u32,
    groups: u32,
    #[define(F)] _dtype: ElemType,
) {
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let (len, parts) = (len as usize, parts as usize);
    let (group, part) = (CUBE_POS / parts, CUBE_POS % parts);
    if group >= groups as usize {
        terminate!();
    }
    let first = part * PART;
    let count = (len - first).min(PART);
    let start = group * len + first;
    let (mean, squares) = moments(x, start, count, &mut scratch);
    if UNIT_POS == 0 {
        parts_moments[CUBE_POS * 2] = mean;
        parts_moments[CUBE_POS * 2 + 1] = squares;
    }
}

/// Mean and inverse standard deviation of a group, by the moments of its parts (Chan, Golub & LeVeque).
#[cube]
pub(super) fn of_group(
    moments: &Tensor<f32>,
    group: usize,
    parts: usize,
    len: usize,
    eps: f32,
) -> (f32, f32) {
    let mut mean = 0.0f32;
    let mut squares = 0.0f32;
    let mut seen = 0.0f32;
    for part in 0..parts {
        let at = (group * parts + part) * 2;
        let count = f32::cast_from((len - part * PART).min(PART) as u32);
        let apart = moments[at] - mean;
        let total = seen + count;
        mean += apart * (count / total);
        squares += moments[at + 1] + apart * apart * (seen * count / total);
        seen = total;
    }
    (mean, 1.0f32 / (squares / seen + eps).sqrt())
}

/// Every cube normalizes one part.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn group_norm_kernel<F: Float>(
    x: &Tensor<F>,
    moments: &Tensor<f32>,
    weight: &Tensor<F>,
    bias: &Tensor<F>,
    y: &mut Tensor<F>,
    len: u32,
    parts: u32,
    groups: u32,
    groups_per_image: u32,
    area: u32,
    eps: f32,
    #[comptime] act: Activation,
    #[define(F)] _dtype: ElemType,
) {
    let (len, parts) = (len as usize, parts as usize);
    let (group, own) = (CUBE_POS / parts, CUBE_POS % parts);
    if group >= groups as usize {
        terminate!();
    }
    let (mean, inverse) = of_group(moments, group, parts, len, eps);

    let first = own * PART;
    let count = (len - first).min(PART);
    let channels = len / area as usize;
    let channel = (group % groups_per_image as usize) * channels;
    let mut i = UNIT_POS as usize;
    while i < count {
        let at = group * len + first + i;
        let channel = channel + (first + i) / area as usize;
        let scale = f32::cast_from(weight[channel]) * inverse;
        let value = (f32::cast_from(x[at]) - mean) * scale + f32::cast_from(bias[channel]);
        y[at] = F::cast_from(activate_one(value, act));
        i += CUBE_DIM as usize;
    }
}

/// The moments of the parts of all groups.
pub(super) fn moments_of_parts(x: &CubeTensor, groups: usize, len: usize) -> CubeTensor {
    let parts = len.div_ceil(PART);
    let moments = empty(x, [groups, parts, 2], DType::F32);
    moments_kernel::launch(
        &x.client,
        cubes(x, groups * parts),
        CubeDim::new_1d(units(x, len)),
        x.clone().into_tensor_arg(),
        moments.clone().into_tensor_arg(),
        len as u32,
        parts as u32,
        groups as u32,
        elem(x),
    );
    moments
}

/// See [`crate::Backend::group_norm`].
pub(crate) fn group_norm(
    x: CubeTensor,
    [weight, bias]: [CubeTensor; 2],
    per_image: usize,
    eps: f64,
    act: Activation,
) -> CubeTensor {
    let [x, weight, bias] = [x, weight, bias].map(into_contiguous);
    let [batch, channels, height, width] = dims(&x);
    let (groups, area) = (batch * per_image, height * width);
    let len = channels / per_image * area;
    let parts = len.div_ceil(PART);
    let moments = moments_of_parts(&x, groups, len);
    let y = empty(&x, [batch, channels, height, width], x.dtype);
    let (client, dtype) = (x.client.clone(), elem(&x));
    let (count, dim) = (cubes(&x, groups * parts), units(&x, len));
    group_norm_kernel::launch(
        &client,
        count,
        CubeDim::new_1d(dim),
        x.into_tensor_arg(),
        moments.into_tensor_arg(),
        weight.into_tensor_arg(),
        bias.into_tensor_arg(),
        y.clone().into_tensor_arg(),
        len as u32,
        parts as u32,
        groups as u32,
        per_image as u32,
        area as u32,
        eps as f32,
        act,
        dtype,
    );
    y
}
