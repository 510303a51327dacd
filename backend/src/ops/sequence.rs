//! Operations over rows of features: linear maps, layer normalization, attention, cross-entropy, sampling.

use super::reshape;
use crate::Backend;
use crate::arguments::{Activation, Mask, Sampling};
use crate::nn::{LayerNorm, Linear};
use crate::panels;
use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};

/// Flattens the leading axes: `[..., features]` to `[rows, features]`.
fn rows<const D: usize>(x: Tensor<D>) -> Tensor<2> {
    let shape = x.dims();
    let last = shape[D - 1];
    let rows = shape[..D - 1].iter().product();
    reshape(x, [rows, last])
}

/// `act(x W + b)` over the last axis.
///
/// # Shapes
/// - `x`: `[..., in]`
/// - output: `[..., out]`
pub fn linear<const D: usize>(x: Tensor<D>, layer: &Linear, act: Activation) -> Tensor<D> {
    let mut shape = x.dims();
    let weight = layer.weight.val();
    let outputs = panels::outputs(weight.dims(), shape[D - 1]);
    shape[D - 1] = outputs;
    let bias = match &layer.bias {
        Some(bias) => bias.val(),
        None => Tensor::zeros([outputs], &weight.device()),
    };
    let y = <Dispatch as Backend>::linear_act(
        rows(x).into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        act,
    );
    reshape(Tensor::<2>::from_dispatch(y), shape) // [..., out]
}

/// A weight for inference, in the order in which the device's [`linear`] reads it fastest.
///
/// # Shapes
/// - `weight`: `[in, out]`
/// - output: the same, or `[out / 64, in · 64]`, which only this crate reads
pub(crate) fn packed<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Backend>::packed(weight.into_dispatch()))
}

/// Layer normalization over the last axis.
///
/// # Shapes
/// - `x`: `[..., d_model]`; the output has the same.
pub fn layer_norm<const D: usize>(x: Tensor<D>, norm: &LayerNorm) -> Tensor<D> {
    let shape = x.dims();
    let y = <Dispatch as Backend>::layer_norm_affine(
        rows(x).into_dispatch(),
        norm.weight.val().into_dispatch(),
        norm.bias.val().into_dispatch(),
        norm.eps,
    );
    reshape(Tensor::<2>::from_dispatch(y), shape) // [..., d_model]
}

/// adaLN (Peebles & Xie, DiT): `LayerNorm(x) · (1 + scale) + shift`. `norm: None` is a normalization without parameters
/// and with eps 1e-6.
///
/// # Shapes
/// - `x`, `shift`, `scale`: `[..., d_model]`, all alike; the output has the same.
pub fn modulate<const D: usize>(
    x: Tensor<D>,
    norm: Option<&LayerNorm>,
    shift: Tensor<D>,
    scale: Tensor<D>,
) -> Tensor<D> {
    let (shape, device) = (x.dims(), x.device());
    let (weight, bias, eps) = match norm {
        Some(norm) => (norm.weight.val(), norm.bias.val(), norm.eps),
        None => (
            Tensor::ones([shape[D - 1]], &device),
            Tensor::zeros([shape[D - 1]], &device),
            1e-6,
        ),
    };
    let y = <Dispatch as Backend>::modulate(
        rows(x).into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        rows(shift).into_dispatch(),
        rows(scale).into_dispatch(),
        eps,
    );
    reshape(Tensor::<2>::from_dispatch(y), shape) // [..., d_model]
}

/// Softmax attention, scale `head_dim^-½`. The output of a query that sees no key is zero. With fewer
/// key heads than query heads, consecutive query heads share one (GQA, MQA).
///
/// # Shapes
/// - `q`: `[batch, heads, queries, head_dim]`
/// - `k`, `v`: `[batch, kv_heads, keys, head_dim]`, `kv_heads` dividing `heads`
/// - output: `[batch, heads, queries, head_dim]`
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: Mask) -> Tensor<4> {
    attention_with_lse(q, k, v, mask).0
}

/// [`attention`] and the log-sum-exp of every query's scaled scores, which carries no gradient; −∞ where a query sees
/// no key.
///
/// # Shapes
/// - as [`attention`]; log-sum-exp: `[batch, heads, queries]`
pub fn attention_with_lse(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Mask,
) -> (Tensor<4>, Tensor<3>) {
    let ([_, heads, queries, _], [_, kv_heads, ..]) = (q.dims(), k.dims());
    assert!(
        kv_heads > 0 && heads.is_multiple_of(kv_heads),
        "{heads} heads of queries are no multiple of {kv_heads} of keys"
    );
    if let Mask::Runs(runs) = &mask {
        assert_eq!(runs.len(), queries, "a run for each query");
    }
    let (out, lse) = <Dispatch as Backend>::attention_lse(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        mask,
    );
    (Tensor::from_dispatch(out), Tensor::from_dispatch(lse))
}

/// [`attention`] with dropout: every probability is multiplied by its value in `keep`, 0 or `1 / (1 - rate)`, which has
/// no gradient.
///
/// # Shapes
/// - as [`attention`]; `keep`: `[batch, heads, queries, keys]`
pub fn attention_with_dropout([q, k, v]: [Tensor<4>; 3], keep: Tensor<4>, mask: Mask) -> Tensor<4> {
    let ([batch, heads, queries, _], keys) = (q.dims(), k.dims()[2]);
    assert_eq!(
        keep.dims(),
        [batch, heads, queries, keys],
        "a value for each probability"
    );
    let (out, _) = <Dispatch as Backend>::attention_dropped(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        keep.into_dispatch(),
        mask,
    );
    Tensor::from_dispatch(out)
}

/// The gradients of q, k and v over a subset of the keys. `lse` and `delta`, the sum of `d_out · out` over the
/// features, belong to attention over all keys; the gradients over disjoint subsets add up to those of the whole. Not
/// differentiated.
///
/// # Shapes
/// - q, k, v: as [`attention`]
/// - d_out: as its output
/// - lse, delta: `[batch, heads, queries]`
/// - outputs: those of q, k and v
pub fn attention_gradients(
    [q, k, v]: [Tensor<4>; 3],
    d_out: Tensor<4>,
    lse: Tensor<3>,
    delta: Tensor<3>,
    mask: Mask,
) -> [Tensor<4>; 3] {
    let (dq, dk, dv) = <Dispatch as Backend>::attention_gradients(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        d_out.into_dispatch(),
        lse.into_dispatch(),
        delta.into_dispatch(),
        mask,
    );
    [dq, dk, dv].map(Tensor::from_dispatch)
}

/// Negative log-likelihood of each row's target, in nats.
///
/// # Shapes
/// - `logits`: `[rows, classes]`
/// - `targets`: `[rows]`, in `0..classes`
/// - output: `[rows]`
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Backend>::cross_entropy(
        logits.into_dispatch(),
        targets.into_dispatch(),
    ))
}

/// Draws one class per row by inverting the distribution function at `uniforms`, so that the caller's random stream
/// decides and every device draws the same.
///
/// # Shapes
/// - `logits`: `[rows, classes]`
/// - `uniforms`: `[rows]`, each in `[0, 1)`
/// - output: `[rows]`
pub fn categorical(logits: Tensor<2>, uniforms: Tensor<1>, sampling: Sampling) -> Tensor<1, Int> {
    Tensor::from_dispatch(<Dispatch as Backend>::categorical(
        logits.into_dispatch(),
        uniforms.into_dispatch(),
        sampling,
    ))
}
