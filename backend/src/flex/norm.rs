//! Layer normalization (plain and modulated, adaLN) and group normalization, forward and backward.

use super::elementwise::{activate, row_kernels};
use super::simd::{self, LANES, simd, total};
use super::{Shared, contiguous, dims, filled, tensor, uninit, values};
use crate::arguments::Activation;
use crate::backward::NormInputs;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

/// Rows per task; fixed, so that sums over rows are added in one order.
const ROWS: usize = 64;

/// Mean and reciprocal standard deviation of a row.
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = simd::sum_and_squares(x).0 / n;
    (
        mean,
        1.0 / (simd::squared_distance(x, mean) / n + eps).sqrt(),
    )
}

#[inline(always)]
fn normalize_body(out: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], mean: f32, rstd: f32) {
    for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = ((x - mean) * rstd).mul_add(w, b);
    }
}
simd!(normalize = normalize_body(out: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], mean: f32, rstd: f32));

#[inline(always)]
fn modulate_body(y: &mut [f32], shift: &[f32], scale: &[f32]) {
    for ((y, &shift), &scale) in y.iter_mut().zip(shift).zip(scale) {
        *y = y.mul_add(1.0 + scale, shift);
    }
}
simd!(modulate = modulate_body(y: &mut [f32], shift: &[f32], scale: &[f32]));

/// The parameters of a layer normalization, borrowed.
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    pub(crate) weight: &'a FlexTensor,
    pub(crate) bias: &'a FlexTensor,
    pub(crate) eps: f64,
}

/// `[rows, d]` normalized; with `modulation = (shift, scale)` of the same shape: `y · (1 + scale) + shift`.
pub(crate) fn layer_norm(
    x: &FlexTensor,
    norm: Affine<'_>,
    modulation: Option<(&FlexTensor, &FlexTensor)>,
) -> FlexTensor {
    let [rows, d] = dims(x);
    let (x, weight, bias) = (
        contiguous(x),
        contiguous(norm.weight),
        contiguous(norm.bias),
    );
    let modulation = modulation.map(|(shift, scale)| (contiguous(shift), contiguous(scale)));
    let (x, weight, bias) = (values(&x), values(&weight), values(&bias));
    let modulation = modulation
        .as_ref()
        .map(|(shift, scale)| (values(shift), values(scale)));
    let y = filled(rows * d, |y| {
        y.par_chunks_mut(ROWS * d)
            .enumerate()
            .for_each(|(block, y)| {
                let first = block * ROWS * d;
                for (i, y) in y.chunks_exact_mut(d).enumerate() {
                    let at = first + i * d..first + (i + 1) * d;
                    let row = &x[at.clone()];
                    let (mean, rstd) = moments(row, norm.eps as f32);
                    normalize(y, row, weight, bias, mean, rstd);
                    if let Some((shift, scale)) = modulation {
                        modulate(y, &shift[at.clone()], &scale[at]);
                    }
                }
            });
    });
    tensor(y, [rows, d])
}

#[inline(always)]
fn demodulate_body(g: &mut [f32], d_scale: &mut [f32], scale: &[f32], y: &[f32]) {
    for (((g, d_scale), &scale), &y) in g.iter_mut().zip(d_scale).zip(scale).zip(y) {
        *d_scale = *g * y;
        *g *= 1.0 + scale;
    }
}
simd!(demodulate = demodulate_body(g: &mut [f32], d_scale: &mut [f32], scale: &[f32], y: &[f32]));

#[inline(always)]
fn reduce_body(
    g: &[f32],
    x: &[f32],
    weight: &[f32],
    mean: f32,
    rstd: f32,
    dw: &mut [f32],
    db: &mut [f32],
) -> (f32, f32) {
    let (mut sum, mut product) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let d = g.len();
    let (x, weight, dw, db) = (&x[..d], &weight[..d], &mut dw[..d], &mut db[..d]);
    let whole = d / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            let i = start + lane;
            let hat = (x[i] - mean) * rstd;
            let gw = g[i] * weight[i];
            sum[lane] += gw;
            product[lane] = gw.mul_add(hat, product[lane]);
            dw[i] = g[i].mul_add(hat, dw[i]);
            db[i] += g[i];
        }
    }
    for i in whole..d {
        let hat = (x[i] - mean) * rstd;
        let gw = g[i] * weight[i];
        sum[i - whole] += gw;
        product[i - whole] = gw.mul_add(hat, product[i - whole]);
        dw[i] = g[i].mul_add(hat, dw[i]);
        db[i] += g[i];
    }
    (total(sum), total(product))
}
simd!(
    /// Accumulates the gradients of weight and bias; returns Σ g·w and Σ g·w·x̂.
    reduce = reduce_body(
        g: &[f32], x: &[f32], weight: &[f32], mean: f32, rstd: f32, dw: &mut [f32], db: &mut [f32]
    ) -> (f32, f32)
);

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn input_gradient_body(
    dx: &mut [f32],
    g: &[f32],
    x: &[f32],
    weight: &[f32],
    mean: f32,
    rstd: f32,
    mean_g: f32,
    mean_gx: f32,
) {
    for (((dx, &g), &x), &w) in dx.iter_mut().zip(g).zip(x).zip(weight) {
        let hat = (x - mean) * rstd;
        *dx = rstd * (g.mul_add(w, -mean_g) - hat * mean_gx);
    }
}
simd!(input_gradient = input_gradient_body(
    dx: &mut [f32], g: &[f32], x: &[f32], weight: &[f32], mean: f32, rstd: f32, mean_g: f32, mean_gx: f32
));

/// Gradients of [`layer_norm`]: x, weight, bias and, when modulated, scale (that of shift is `g` itself).
pub(crate) fn layer_norm_backward(
    x: &FlexTensor,
    norm: Affine<'_>,
    scale: Option<&FlexTensor>,
    g: &FlexTensor,
) -> (NormInputs<FlexTensor>, Option<FlexTensor>) {
    let [rows, d] = dims(x);
    let (x, weight, bias, g) = (
        contiguous(x),
        contiguous(norm.weight),
        contiguous(norm.bias),
        contiguous(g),
    );
    let scale = scale.map(contiguous);
    let (x, weight, bias, g) = (values(&x), values(&weight), values(&bias), values(&g));
    let scale = scale.as_ref().map(values);
    let blocks = rows.div_ceil(ROWS).max(1);
    let mut partial = vec![0.0; blocks * 2 * d];
    let mut d_scale = if scale.is_some() {
        uninit(rows * d)
    } else {
        Vec::new()
    };
    let dx = filled(rows * d, |dx| {
        let (partial, dx, d_scale) = (
            Shared(partial.as_mut_ptr()),
            Shared(dx.as_mut_ptr()),
            Shared(d_scale.as_mut_ptr()),
        );
        (0..rows.div_ceil(ROWS)).into_par_iter().for_each(|block| {
            let (mut grad, mut y) = (vec![0.0; d], vec![0.0; d]);
            // SAFETY: each block has its own partial sums and its own rows.
            let (dw, db) = unsafe { { partial }.part(block * 2 * d, 2 * d) }.split_at_mut(d);
            for row in block * ROWS..rows.min((block + 1) * ROWS) {
                let at = row * d..(row + 1) * d;
                let x = &x[at.clone()];
                let (mean, rstd) = moments(x, norm.eps as f32);
                grad.copy_from_slice(&g[at.clone()]);
                if let Some(scale) = scale {
                    normalize(&mut y, x, weight, bias, mean, rstd);
                    // SAFETY: as above.
                    let d_scale = unsafe { { d_scale }.part(row * d, d) };
                    demodulate(&mut grad, d_scale, &scale[at.clone()], &y);
                }
                let (sum, product) = reduce(&grad, x, weight, mean, rstd, dw, db);
                // SAFETY: as above.
                let dx = unsafe { { dx }.part(row * d, d) };
                input_gradient(
                    dx,
                    &grad,
                    x,
                    weight,
                    mean,
                    rstd,
                    sum / d as f32,
                    product / d as f32,
                );
            }
        });
    });
    let mut sums = partial[..2 * d].to_vec();
    for block in partial[2 * d..].chunks_exact(2 * d) {
        simd::add_assign(&mut sums, block);
    }
    let d_bias = sums.split_off(d);
    let d_scale = scale.map(|_| tensor(d_scale, [rows, d]));
    (
        NormInputs {
            x: tensor(dx, [rows, d]),
            weight: tensor(sums, [d]),
            bias: tensor(d_bias, [d]),
        },
        d_scale,
    )
}

/// Statistics of one group: f64 across rows of a plane, so that large planes keep their precision.
fn group_moments(x: &[f32], eps: f64) -> (f32, f32) {
    let n = x.len() as f64;
    let mean = x
        .chunks(4096)
        .map(|c| f64::from(simd::sum_and_squares(c).0))
        .sum::<f64>()
        / n;
    let variance = x
        .chunks(4096)
        .map(|c| f64::from(simd::squared_distance(c, mean as f32)))
        .sum::<f64>()
        / n;
    (mean as f32, (1.0 / (variance + eps).sqrt()) as f32)
}

#[inline(always)]
fn affine_body(out: &mut [f32], x: &[f32], factor: f32, offset: f32) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = x.mul_add(factor, offset);
    }
}
simd!(affine = affine_body(out: &mut [f32], x: &[f32], factor: f32, offset: f32));

#[inline(always)]
fn affine_silu_body(out: &mut [f32], x: &[f32], factor: f32, offset: f32) {
    for (out, &x) in out.iter_mut().zip(x) {
        let y = x.mul_add(factor, offset);
        *out = simd::silu(y);
    }
}
simd!(affine_silu = affine_silu_body(out: &mut [f32], x: &[f32], factor: f32, offset: f32));

/// `act(GroupNorm(x))` of `[batch, channels, height, width]`.
pub(crate) fn group_norm(
    x: &FlexTensor,
    norm: Affine<'_>,
    groups: usize,
    act: Activation,
) -> FlexTensor {
    let [batch, channels, height, width] = dims(x);
    let (plane, per_group) = (height * width, channels / groups);
    let (x, weight, bias) = (
        contiguous(x),
        contiguous(norm.weight),
        contiguous(norm.bias),
    );
    let (x, weight, bias) = (values(&x), values(&weight), values(&bias));
    let size = per_group * plane;
    let y = filled(batch * channels * plane, |y| {
        y.par_chunks_mut(size)
            .zip(x.par_chunks(size))
            .enumerate()
            .for_each(|(group, (y, x))| {
                let (mean, rstd) = group_moments(x, norm.eps);
                for (i, (y, x)) in y
                    .chunks_exact_mut(plane)
                    .zip(x.chunks_exact(plane))
                    .enumerate()
                {
                    let channel = group % groups * per_group + i;
                    let factor = weight[channel] * rstd;
                    let offset = bias[channel] - mean * factor;
                    match act {
                        Activation::Silu => affine_silu(y, x, factor, offset),
                        _ => affine(y, x, factor, offset),
                    }
                }
            });
    });
    let mut y = y;
    if act != Activation::Silu {
        activate(&mut y, act);
    }
    tensor(y, [batch, channels, height, width])
}

#[inline(always)]
fn silu_backward_body(grad: &mut [f32], g: &[f32], x: &[f32], factor: f32, offset: f32) {
    for ((grad, &g), &x) in grad.iter_mut().zip(g).zip(x) {
        *grad = g * simd::silu_slope(x.mul_add(factor, offset));
    }
}
simd!(silu_backward = silu_backward_body(grad: &mut [f32], g: &[f32], x: &[f32], factor: f32, offset: f32));

#[inline(always)]
fn centered_sums_body(g: &[f32], x: &[f32], mean: f32, rstd: f32) -> (f32, f32) {
    let (mut sum, mut product) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let (cg, cx) = (g.chunks_exact(LANES), x.chunks_exact(LANES));
    for (i, (&g, &x)) in cg.remainder().iter().zip(cx.remainder()).enumerate() {
        sum[i] += g;
        product[i] = g.mul_add((x - mean) * rstd, product[i]);
    }
    for (g, x) in cg.zip(cx) {
        for i in 0..LANES {
            sum[i] += g[i];
            product[i] = g[i].mul_add((x[i] - mean) * rstd, product[i]);
        }
    }
    (total(sum), total(product))
}
simd!(
    /// Σ g and Σ g·x̂.
    centered_sums = centered_sums_body(g: &[f32], x: &[f32], mean: f32, rstd: f32) -> (f32, f32)
);

#[inline(always)]
fn plane_gradient_body(
    dx: &mut [f32],
    x: &[f32],
    mean: f32,
    factor: f32,
    by_x: f32,
    constant: f32,
) {
    for (dx, &x) in dx.iter_mut().zip(x) {
        *dx = dx.mul_add(factor, (x - mean).mul_add(by_x, constant));
    }
}
simd!(plane_gradient = plane_gradient_body(
    dx: &mut [f32], x: &[f32], mean: f32, factor: f32, by_x: f32, constant: f32
));

/// Gradients of [`group_norm`]: x, weight, bias.
pub(crate) fn group_norm_backward(
    x: &FlexTensor,
    norm: Affine<'_>,
    groups: usize,
    act: Activation,
    g: &FlexTensor,
) -> NormInputs<FlexTensor> {
    let [batch, channels, height, width] = dims(x);
    let (plane, per_group) = (height * width, channels / groups);
    let (x, weight, bias, g) = (
        contiguous(x),
        contiguous(norm.weight),
        contiguous(norm.bias),
        contiguous(g),
    );
    let (x, weight, bias, g) = (values(&x), values(&weight), values(&bias), values(&g));
    let size = per_group * plane;
    let mut sums = vec![(0.0_f32, 0.0_f32); batch * channels];
    let dx = filled(batch * channels * plane, |dx| {
        dx.par_chunks_mut(size)
            .zip(x.par_chunks(size))
            .zip(g.par_chunks(size))
            .zip(sums.par_chunks_mut(per_group))
            .enumerate()
            .for_each(|(group, (((dx, x), g), sums))| {
                let (mean, rstd) = group_moments(x, norm.eps);
                let first = group % groups * per_group;
                let (mut total, mut product) = (0.0_f64, 0.0_f64);
                for i in 0..per_group {
                    let (at, w) = (i * plane..(i + 1) * plane, weight[first + i]);
                    let (dx, x, g) = (&mut dx[at.clone()], &x[at.clone()], &g[at]);
                    let (factor, offset) = (w * rstd, bias[first + i] - mean * w * rstd);
                    match act {
                        Activation::None => dx.copy_from_slice(g),
                        Activation::Silu => silu_backward(dx, g, x, factor, offset),
                        _ => {
                            let mut y = vec![0.0; plane];
                            affine(&mut y, x, factor, offset);
                            row_kernels(act).1(dx, g, &y);
                        }
                    }
                    sums[i] = centered_sums(dx, x, mean, rstd);
                    total += f64::from(w) * f64::from(sums[i].0);
                    product += f64::from(w) * f64::from(sums[i].1);
                }
                let (mean_g, mean_gx) =
                    ((total / size as f64) as f32, (product / size as f64) as f32);
                for i in 0..per_group {
                    let at = i * plane..(i + 1) * plane;
                    plane_gradient(
                        &mut dx[at.clone()],
                        &x[at],
                        mean,
                        weight[first + i] * rstd,
                        -rstd * rstd * mean_gx,
                        -rstd * mean_g,
                    );
                }
            });
    });
    let (mut d_weight, mut d_bias) = (vec![0.0; channels], vec![0.0; channels]);
    for image in sums.chunks_exact(channels) {
        for (channel, &(sum, product)) in image.iter().enumerate() {
            d_bias[channel] += sum;
            d_weight[channel] += product;
        }
    }
    NormInputs {
        x: tensor(dx, [batch, channels, height, width]),
        weight: tensor(d_weight, [channels]),
        bias: tensor(d_bias, [channels]),
    }
}
