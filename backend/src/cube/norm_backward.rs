//! The gradients of layer and group normalization. With `x̂` normalized and `d` the gradient of what it is scaled to,
//! that of x is `(d − mean(d) − x̂ · mean(d · x̂)) / deviation`. All in f32.

use super::elementwise::slope_one;
use super::norm::{PART, moments_of_parts, of_group, of_row};
use super::{UNITS, cube_sum, cubes, dims, empty, sum_of_rows, units};
use crate::arguments::Activation;
use crate::backward::NormInputs;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// One cube per row. `scaled` is what the gradient of the weight adds up, and with modulation `d_norm` that of the
/// bias.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn layer_norm_kernel(
    x: &Tensor<f32>,
    weight: &Tensor<f32>,
    bias: &Tensor<f32>,
    scale: &Tensor<f32>,
    g: &Tensor<f32>,
    dx: &mut Tensor<f32>,
    scaled: &mut Tensor<f32>,
    d_norm: &mut Tensor<f32>,
    d_scale: &mut Tensor<f32>,
    eps: f32,
    #[comptime] modulated: bool,
) {
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let (row, d) = (CUBE_POS, x.shape(1));
    if row >= x.shape(0) {
        terminate!();
    }
    let (start, step) = (row * d, CUBE_DIM as usize);
    let (mean, inverse) = of_row(x, start, d, eps, &mut scratch);

    let mut sum = 0.0f32;
    let mut along = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < d {
        let normal = (x[start + i] - mean) * inverse;
        let mut own = g[start + i];
        if modulated {
            d_scale[start + i] = own * (normal * weight[i] + bias[i]);
            own *= 1.0f32 + scale[start + i];
            d_norm[start + i] = own;
        }
        scaled[start + i] = own * normal;
        sum += own * weight[i];
        along += own * weight[i] * normal;
        i += step;
    }
    let sum = cube_sum(sum, &mut scratch) / f32::cast_from(d as u32);
    let along = cube_sum(along, &mut scratch) / f32::cast_from(d as u32);

    let mut i = UNIT_POS as usize;
    while i < d {
        let normal = (x[start + i] - mean) * inverse;
        let mut own = g[start + i];
        if modulated {
            own *= 1.0f32 + scale[start + i];
        }
        dx[start + i] = (own * weight[i] - sum - normal * along) * inverse;
        i += step;
    }
}

/// Gradients of x, weight, bias and, with modulation, of its scale.
pub(crate) fn layer_norm(
    NormInputs { x, weight, bias }: NormInputs<CubeTensor>,
    scale: Option<CubeTensor>,
    eps: f64,
    g: CubeTensor,
) -> (NormInputs<CubeTensor>, Option<CubeTensor>) {
    let [x, weight, bias, g] = [x, weight, bias, g].map(into_contiguous);
    let [rows, d] = dims(&x);
    let modulated = scale.is_some();
    let room = |shape: [usize; 2]| empty(&x, shape, DType::F32);
    let (dx, scaled) = (room([rows, d]), room([rows, d]));
    let of_scale = if modulated { [rows, d] } else { [1, 1] };
    let (d_norm, d_scale) = (room(of_scale), room(of_scale));
    let scale = scale.map_or_else(|| bias.clone(), into_contiguous);
    layer_norm_kernel::launch(
        &x.client,
        cubes(&x, rows),
        CubeDim::new_1d(units(&x, d)),
        x.clone().into_tensor_arg(),
        weight.into_tensor_arg(),
        bias.into_tensor_arg(),
        scale.into_tensor_arg(),
        g.clone().into_tensor_arg(),
        dx.clone().into_tensor_arg(),
        scaled.clone().into_tensor_arg(),
        d_norm.clone().into_tensor_arg(),
        d_scale.clone().into_tensor_arg(),
        eps as f32,
        modulated,
    );
    let d_norm = if modulated { d_norm } else { g };
    let gradients = NormInputs {
        x: dx,
        weight: sum_of_rows(scaled),
        bias: sum_of_rows(d_norm),
    };
    (gradients, modulated.then_some(d_scale))
}

/// For each image and channel the sums of the gradient of what goes into the activation, and of that times `x̂`; a cube
/// for both.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn channels_kernel(
    x: &Tensor<f32>,
    moments: &Tensor<f32>,
    weight: &Tensor<f32>,
    bias: &Tensor<f32>,
    g: &Tensor<f32>,
    d_bias: &mut Tensor<f32>,
    d_weight: &mut Tensor<f32>,
    groups_per_image: u32,
    parts: u32,
    len: u32,
    area: u32,
    eps: f32,
    #[comptime] act: Activation,
) {
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    if CUBE_POS >= d_bias.len() {
        terminate!();
    }
    let (channels, area) = (d_bias.shape(1), area as usize);
    let (image, channel) = (CUBE_POS / channels, CUBE_POS % channels);
    let per_image = groups_per_image as usize;
    let group = image * per_image + channel / (channels / per_image);
    let (mean, inverse) = of_group(moments, group, parts as usize, len as usize, eps);
    let mut sum = 0.0f32;
    let mut along = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < area {
        let at = CUBE_POS * area + i;
        let normal = (x[at] - mean) * inverse;
        let own = g[at] * slope_one(normal * weight[channel] + bias[channel], act);
        sum += own;
        along += own * normal;
        i += CUBE_DIM as usize;
    }
    let sum = cube_sum(sum, &mut scratch);
    let along = cube_sum(along, &mut scratch);
    if UNIT_POS == 0 {
        d_bias[CUBE_POS] = sum;
        d_weight[CUBE_POS] = along;
    }
}

/// The gradient of x, one cube per part of a group.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn group_norm_kernel(
    x: &Tensor<f32>,
    moments: &Tensor<f32>,
    weight: &Tensor<f32>,
    bias: &Tensor<f32>,
    g: &Tensor<f32>,
    d_bias: &Tensor<f32>,
    d_weight: &Tensor<f32>,
    dx: &mut Tensor<f32>,
    groups: u32,
    groups_per_image: u32,
    parts: u32,
    len: u32,
    area: u32,
    eps: f32,
    #[comptime] act: Activation,
) {
    let (parts, len, area) = (parts as usize, len as usize, area as usize);
    let (group, part) = (CUBE_POS / parts, CUBE_POS % parts);
    if group >= groups as usize {
        terminate!();
    }
    let channels = len / area;
    let (mean, inverse) = of_group(moments, group, parts, len, eps);
    let first_channel = group % groups_per_image as usize * channels;
    let mut sum = 0.0f32;
    let mut along = 0.0f32;
    for channel in 0..channels {
        let weight = weight[first_channel + channel];
        sum += weight * d_bias[group * channels + channel];
        along += weight * d_weight[group * channels + channel];
    }
    let sum = sum / f32::cast_from(len as u32);
    let along = along / f32::cast_from(len as u32);

    let first = part * PART;
    let count = (len - first).min(PART);
    let mut i = UNIT_POS as usize;
    while i < count {
        let at = group * len + first + i;
        let channel = first_channel + (first + i) / area;
        let normal = (x[at] - mean) * inverse;
        let own = g[at] * slope_one(normal * weight[channel] + bias[channel], act);
        dx[at] = (own * weight[channel] - sum - normal * along) * inverse;
        i += CUBE_DIM as usize;
    }
}

/// Gradients of x, weight and bias.
pub(crate) fn group_norm(
    NormInputs { x, weight, bias }: NormInputs<CubeTensor>,
    per_image: usize,
    eps: f64,
    act: Activation,
    g: CubeTensor,
) -> NormInputs<CubeTensor> {
    let [x, weight, bias, g] = [x, weight, bias, g].map(into_contiguous);
    let [batch, channels, height, width] = dims(&x);
    let (groups, area) = (batch * per_image, height * width);
    let len = channels / per_image * area;
    let parts = len.div_ceil(PART);
    let moments = moments_of_parts(&x, groups, len);
    let of_channels = || empty(&x, [batch, channels], DType::F32);
    let (d_bias, d_weight) = (of_channels(), of_channels());
    channels_kernel::launch(
        &x.client,
        cubes(&x, batch * channels),
        CubeDim::new_1d(units(&x, area)),
        x.clone().into_tensor_arg(),
        moments.clone().into_tensor_arg(),
        weight.clone().into_tensor_arg(),
        bias.clone().into_tensor_arg(),
        g.clone().into_tensor_arg(),
        d_bias.clone().into_tensor_arg(),
        d_weight.clone().into_tensor_arg(),
        per_image as u32,
        parts as u32,
        len as u32,
        area as u32,
        eps as f32,
        act,
    );
    let dx = empty(&x, [batch, channels, height, width], DType::F32);
    group_norm_kernel::launch(
        &x.client,
        cubes(&x, groups * parts),
        CubeDim::new_1d(units(&x, len)),
        x.clone().into_tensor_arg(),
        moments.into_tensor_arg(),
        weight.into_tensor_arg(),
        bias.into_tensor_arg(),
        g.into_tensor_arg(),
        d_bias.clone().into_tensor_arg(),
        d_weight.clone().into_tensor_arg(),
        dx.clone().into_tensor_arg(),
        groups as u32,
        per_image as u32,
        parts as u32,
        len as u32,
        area as u32,
        eps as f32,
        act,
    );
    NormInputs {
        x: dx,
        weight: sum_of_rows(d_weight),
        bias: sum_of_rows(d_bias),
    }
}
