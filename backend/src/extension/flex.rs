//! The operations on the CPU: a kernel for f32, the portable body for other types.

use super::Backend;
use crate::arguments::{Activation, AdamWStep, Mask, Routes, Sampling};
use crate::precision::autocasting;
use crate::{flex, portable};
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::Shape;

impl Backend for Flex {
    fn activation(x: FlexTensor, act: Activation) -> FlexTensor {
        match flex::all_f32(&[&x]) {
            true => flex::elementwise::activation(x, act),
            false => portable::activation::<Self>(x, act),
        }
    }

    fn reshaped(x: FlexTensor, shape: Shape) -> FlexTensor {
        match flex::copy::view(x.layout(), &shape) {
            Some(layout) => x.with_layout(layout),
            None if flex::all_f32(&[&x]) => flex::tensor(flex::copy::row_major(&x), shape),
            None => Self::float_reshape(x, shape),
        }
    }

    fn sum_rows(g: FlexTensor) -> FlexTensor {
        match flex::all_f32(&[&g]) {
            true => flex::linear::sum_rows(&g),
            false => portable::sum_rows::<Self>(g),
        }
    }

    fn blend(average: FlexTensor, value: FlexTensor, share: f64) -> FlexTensor {
        match flex::all_f32(&[&average, &value]) {
            true => flex::elementwise::blend(average, &value, share as f32),
            false => portable::blend::<Self>(average, value, share),
        }
    }

    fn put_rows(table: FlexTensor, rows: FlexTensor, values: FlexTensor) -> FlexTensor {
        match flex::all_f32(&[&table, &values]) {
            true => flex::rows::put_rows(table, &rows, &values),
            false => portable::put_rows::<Self>(table, rows, values),
        }
    }

    fn sum(x: FlexTensor) -> FlexTensor {
        match flex::all_f32(&[&x]) {
            true => flex::elementwise::sum(&x),
            false => Self::float_sum(x),
        }
    }

    fn sum_of_squares(x: FlexTensor) -> FlexTensor {
        match flex::all_f32(&[&x]) {
            true => flex::elementwise::sum_of_squares(&x),
            false => portable::sum_of_squares::<Self>(x),
        }
    }

    fn residual(x: FlexTensor, y: FlexTensor) -> FlexTensor {
        match flex::all_f32(&[&x, &y]) {
            true => flex::elementwise::residual(x, y),
            false => portable::residual::<Self>(x, y),
        }
    }

    fn dropped(x: FlexTensor, keep: FlexTensor) -> FlexTensor {
        match flex::all_f32(&[&x, &keep]) {
            true => flex::elementwise::product(x, &keep),
            false => Self::float_mul(x, keep),
        }
    }

    fn gated_add(x: FlexTensor, gate: FlexTensor, y: FlexTensor) -> FlexTensor {
        match flex::all_f32(&[&x, &gate, &y]) {
            true => flex::elementwise::gated_add(&x, &gate, &y),
            false => portable::gated_add::<Self>(x, gate, y),
        }
    }

    fn packed(w: FlexTensor) -> FlexTensor {
        match flex::half_weight(&[], &w) || flex::all_f32(&[&w]) {
            true => flex::linear::packed(w),
            false => w,
        }
    }

    fn linear_act(x: FlexTensor, w: FlexTensor, b: FlexTensor, act: Activation) -> FlexTensor {
        if flex::half_weight(&[&x, &b], &w) {
            return flex::linear::linear_half(&x, &w, &b, act);
        }
        match flex::all_f32(&[&x, &w, &b]) {
            true => flex::linear::linear(&x, &w, &b, act),
            false => portable::linear::<Self>(x, w, b, act),
        }
    }

    fn layer_norm_affine(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        eps: f64,
    ) -> FlexTensor {
        match flex::all_f32(&[&x, &weight, &bias]) {
            true => flex::norm::layer_norm(
                &x,
                flex::norm::Affine {
                    weight: &weight,
                    bias: &bias,
                    eps,
                },
                None,
            ),
            false => portable::layer_norm::<Self>(x, weight, bias, eps),
        }
    }

    fn modulate(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        shift: FlexTensor,
        scale: FlexTensor,
        eps: f64,
    ) -> FlexTensor {
        match flex::all_f32(&[&x, &weight, &bias, &shift, &scale]) {
            true => {
                let norm = flex::norm::Affine {
                    weight: &weight,
                    bias: &bias,
                    eps,
                };
                flex::norm::layer_norm(&x, norm, Some((&shift, &scale)))
            }
            false => portable::modulate::<Self>(x, weight, bias, shift, scale, eps),
        }
    }

    fn attention_lse(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        mask: Mask,
    ) -> (FlexTensor, FlexTensor) {
        match flex::all_f32(&[&q, &k, &v]) {
            true => flex::attention::attention(&q, &k, &v, None, &mask),
            false => portable::attention::<Self>(q, k, v, None, &mask),
        }
    }

    fn attention_dropped(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        keep: FlexTensor,
        mask: Mask,
    ) -> (FlexTensor, FlexTensor) {
        match flex::all_f32(&[&q, &k, &v, &keep]) {
            true => flex::attention::attention(&q, &k, &v, Some(&keep), &mask),
            false => portable::attention::<Self>(q, k, v, Some(keep), &mask),
        }
    }

    fn attention_gradients(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        g: FlexTensor,
        lse: FlexTensor,
        delta: FlexTensor,
        mask: Mask,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [dq, dk, dv] = match flex::all_f32(&[&q, &k, &v, &g, &lse, &delta]) {
            true => {
                let tensors = [&q, &k, &v, &g];
                flex::attention::gradients(tensors, [&lse, &delta], None, &mask, autocasting())
            }
            false => {
                return portable::attention_gradients::<Self>([q, k, v], g, lse, delta, &mask);
            }
        };
        (dq, dk, dv)
    }

    fn group_norm(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        groups: usize,
        eps: f64,
        act: Activation,
    ) -> FlexTensor {
        match flex::all_f32(&[&x, &weight, &bias]) {
            true => flex::norm::group_norm(
                &x,
                flex::norm::Affine {
                    weight: &weight,
                    bias: &bias,
                    eps,
                },
                groups,
                act,
            ),
            false => portable::group_norm::<Self>(x, weight, bias, groups, eps, act),
        }
    }

    fn conv2d_padded(
        x: FlexTensor,
        w: FlexTensor,
        b: FlexTensor,
        stride: [usize; 2],
        padding: [usize; 4],
    ) -> FlexTensor {
        match flex::all_f32(&[&x, &w, &b]) {
            true => flex::conv::conv2d(&x, &w, &b, stride, padding),
            false => portable::conv2d::<Self>(x, w, b, stride, padding),
        }
    }

    fn depthwise_clamped(
        x: FlexTensor,
        w: FlexTensor,
        b: FlexTensor,
        stride: [usize; 2],
        padding: [usize; 4],
        bounds: [f32; 2],
    ) -> FlexTensor {
        match flex::all_f32(&[&x, &w, &b]) {
            true => flex::depthwise::depthwise([&x, &w, &b], stride, padding, bounds),
            false => portable::depthwise::<Self>([x, w, b], stride, padding, bounds),
        }
    }

    fn upsample_nearest(x: FlexTensor) -> FlexTensor {
        match flex::all_f32(&[&x]) {
            true => flex::conv::upsample_nearest(&x),
            false => portable::upsample_nearest::<Self>(x),
        }
    }

    fn grouped_experts(
        x: FlexTensor,
        gates: FlexTensor,
        w1: FlexTensor,
        b1: FlexTensor,
        w2: FlexTensor,
        b2: FlexTensor,
        routes: Routes,
        act: Activation,
    ) -> FlexTensor {
        match flex::all_f32(&[&x, &gates, &w1, &b1, &w2, &b2]) {
            true => {
                let weights = [&w1, &b1, &w2, &b2];
                flex::experts::experts(&x, &gates, weights, &routes, act)
            }
            false => portable::experts::<Self>(x, gates, [w1, b1, w2, b2], &routes, act),
        }
    }

    fn experts_above(
        x: FlexTensor,
        gates: FlexTensor,
        threshold: FlexTensor,
        w1: FlexTensor,
        b1: FlexTensor,
        w2: FlexTensor,
        b2: FlexTensor,
        act: Activation,
    ) -> FlexTensor {
        match flex::all_f32(&[&gates, &threshold]) {
            true => {
                let routes = flex::experts::routes_above(&gates, &threshold);
                Self::grouped_experts(x, gates, w1, b1, w2, b2, routes, act)
            }
            false => portable::experts_above::<Self>(x, gates, threshold, [w1, b1, w2, b2], act),
        }
    }

    fn cross_entropy(logits: FlexTensor, targets: FlexTensor) -> FlexTensor {
        match flex::all_f32(&[&logits]) {
            true => flex::loss::cross_entropy(&logits, &targets),
            false => portable::cross_entropy::<Self>(logits, targets),
        }
    }

    fn categorical(logits: FlexTensor, uniforms: FlexTensor, sampling: Sampling) -> FlexTensor {
        match flex::all_f32(&[&logits, &uniforms]) {
            true => flex::loss::categorical(&logits, &uniforms, sampling),
            false => portable::categorical::<Self>(logits, uniforms, sampling),
        }
    }

    fn adamw(
        p: FlexTensor,
        m: FlexTensor,
        v: FlexTensor,
        g: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        match flex::all_f32(&[&p, &m, &v, &g]) {
            true => {
                let [p, m, v] = flex::optim::adamw(&p, &m, &v, &g, step);
                (p, m, v)
            }
            false => portable::adamw::<Self>(p, m, v, g, step),
        }
    }
}
