//! The operations on GPUs: a kernel for the types and sizes that it supports, the portable body otherwise.

use super::Backend;
use crate::arguments::{Activation, AdamWStep, Mask, Routes, Sampling};
use crate::cube::{self, taken};
use crate::portable;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

impl Backend for CubeBackend {
    fn activation(x: CubeTensor, act: Activation) -> CubeTensor {
        match taken(&[&x]) && act != Activation::None {
            true => cube::elementwise::activation(x, act),
            false => portable::activation::<Self>(x, act),
        }
    }

    fn gated_add(x: CubeTensor, gate: CubeTensor, y: CubeTensor) -> CubeTensor {
        match taken(&[&x, &gate, &y]) {
            true => cube::elementwise::gated_add(x, gate, y),
            false => portable::gated_add::<Self>(x, gate, y),
        }
    }

    fn linear_act(x: CubeTensor, w: CubeTensor, b: CubeTensor, act: Activation) -> CubeTensor {
        if !taken(&[&x, &b]) || !taken(&[&w]) {
            return portable::linear::<Self>(x, w, b, act);
        }
        // 16-bit weights are multiplied as such, by units for that type, and summed in f32.
        let x = match x.dtype == w.dtype {
            true => x,
            false => Self::float_cast(x, w.dtype.into()),
        };
        cube::elementwise::bias(Self::float_matmul(x, w), b, act)
    }

    fn layer_norm_affine(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        eps: f64,
    ) -> CubeTensor {
        match taken(&[&x, &weight, &bias]) {
            true => cube::norm::layer_norm(x, [weight, bias], None, eps),
            false => portable::layer_norm::<Self>(x, weight, bias, eps),
        }
    }

    fn modulate(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        shift: CubeTensor,
        scale: CubeTensor,
        eps: f64,
    ) -> CubeTensor {
        match taken(&[&x, &weight, &bias, &shift, &scale]) {
            true => cube::norm::layer_norm(x, [weight, bias], Some([shift, scale]), eps),
            false => portable::modulate::<Self>(x, weight, bias, shift, scale, eps),
        }
    }

    fn attention_lse(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        mask: Mask,
    ) -> (CubeTensor, CubeTensor) {
        match taken(&[&q, &k, &v]) && cube::attention::pays(&q, &k) {
            true => cube::attention::attention(q, k, v, &mask),
            false => portable::attention::<Self>(q, k, v, None, &mask),
        }
    }

    fn attention_gradients(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        g: CubeTensor,
        lse: CubeTensor,
        delta: CubeTensor,
        mask: Mask,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let sums_in_f32 = [&lse, &delta].iter().all(|x| x.dtype == DType::F32);
        match taken(&[&q, &k, &v, &g]) && sums_in_f32 && cube::attention::takes(&q, &k) {
            true => cube::attention_backward::gradients([q, k, v, g], [lse, delta], &mask),
            false => portable::attention_gradients::<Self>([q, k, v], g, lse, delta, &mask),
        }
    }

    fn group_norm(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        groups: usize,
        eps: f64,
        act: Activation,
    ) -> CubeTensor {
        match taken(&[&x, &weight, &bias]) {
            true => cube::norm::group_norm(x, [weight, bias], groups, eps, act),
            false => portable::group_norm::<Self>(x, weight, bias, groups, eps, act),
        }
    }

    fn grouped_experts(
        x: CubeTensor,
        gates: CubeTensor,
        w1: CubeTensor,
        b1: CubeTensor,
        w2: CubeTensor,
        b2: CubeTensor,
        routes: Routes,
        act: Activation,
    ) -> CubeTensor {
        match taken(&[&x, &gates, &w1, &b1, &w2, &b2]) && routes.pairs() > 0 {
            true => cube::experts::experts(x, gates, [w1, b1, w2, b2], &routes, act),
            false => portable::experts::<Self>(x, gates, [w1, b1, w2, b2], &routes, act),
        }
    }

    fn experts_above(
        x: CubeTensor,
        gates: CubeTensor,
        threshold: CubeTensor,
        w1: CubeTensor,
        b1: CubeTensor,
        w2: CubeTensor,
        b2: CubeTensor,
        act: Activation,
    ) -> CubeTensor {
        match taken(&[&x, &gates, &threshold, &w1, &b1, &w2, &b2]) && x.meta.shape()[0] > 0 {
            true => cube::experts::experts_above(x, gates, threshold, [w1, b1, w2, b2], act),
            false => portable::experts_above::<Self>(x, gates, threshold, [w1, b1, w2, b2], act),
        }
    }

    fn categorical(logits: CubeTensor, uniforms: CubeTensor, sampling: Sampling) -> CubeTensor {
        let classes = logits.meta.shape()[1];
        match taken(&[&logits])
            && uniforms.dtype == DType::F32
            && classes <= cube::sampling::MOST_CLASSES
        {
            true => cube::sampling::categorical(logits, uniforms, sampling),
            false => portable::categorical::<Self>(logits, uniforms, sampling),
        }
    }

    fn adamw(
        p: CubeTensor,
        m: CubeTensor,
        v: CubeTensor,
        g: CubeTensor,
        step: AdamWStep,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        match [&p, &m, &v, &g].iter().all(|x| x.dtype == DType::F32) {
            true => cube::elementwise::adamw(p, m, v, g, step),
            false => portable::adamw::<Self>(p, m, v, g, step),
        }
    }
}
