//! One AdamW step over a parameter: a single pass over parameter, moments and gradient.

use super::simd::simd;
use super::{contiguous, tensor, values};
use crate::arguments::AdamWStep;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

const CHUNK: usize = 1 << 14;

/// The step's constants in f32, folded so that the loop has no division by a bias correction.
#[derive(Clone, Copy)]
pub(crate) struct Constants {
    keep: f32,
    beta1: f32,
    beta2: f32,
    grad_scale: f32,
    rate: f32,
    inv_sqrt_correction2: f32,
    eps: f32,
}

#[inline(always)]
fn update_body(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], c: Constants) {
    for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
        let g = g * c.grad_scale;
        *m = c.beta1 * *m + (1.0 - c.beta1) * g;
        *v = c.beta2 * *v + (1.0 - c.beta2) * g * g;
        *p = c.keep * *p - c.rate * *m / (v.sqrt() * c.inv_sqrt_correction2 + c.eps);
    }
}
simd!(update = update_body(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], c: Constants));

/// The parameter and its two moments after the step.
pub(crate) fn adamw(
    p: &FlexTensor,
    m: &FlexTensor,
    v: &FlexTensor,
    g: &FlexTensor,
    step: AdamWStep,
) -> [FlexTensor; 3] {
    let shape = p.shape();
    let constants = Constants {
        keep: (1.0 - step.lr * step.weight_decay) as f32,
        beta1: step.beta1 as f32,
        beta2: step.beta2 as f32,
        grad_scale: step.grad_scale as f32,
        rate: (step.lr / step.correction1()) as f32,
        inv_sqrt_correction2: (1.0 / step.correction2().sqrt()) as f32,
        eps: step.eps as f32,
    };
    let [mut p, mut m, mut v] = [p, m, v].map(|t| values(&contiguous(t)).to_vec());
    let g = contiguous(g);
    p.par_chunks_mut(CHUNK)
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .zip(values(&g).par_chunks(CHUNK))
        .for_each(|(((p, m), v), g)| update(p, m, v, g, constants));
    [p, m, v].map(|data| tensor(data, shape.clone()))
}
