//! The backend-generic trait: Burn's `Backend` plus the fused operations the models need.
#![cfg_attr(feature = "ndarray", allow(deprecated))] // Upstream retires NdArray; here it checks the other CPU backend.

use crate::arguments::{Activation, AdamWStep, CustomOp, Mask, PartGradients, Routes, Sampling};
use crate::portable;
use burn::backend::TensorMetadata;
use burn::backend::backend_extension;
#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
#[cfg(feature = "fusion")]
use burn::tensor::DType;
use burn::tensor::Shape;
use std::sync::Arc;

/// Burn's backend with Tessera's fused operations.
///
/// Every operation has a portable body made of Burn's own operations: it is the reference, and the default of a new
/// backend. Models call the functions of [`crate::ops`], whichever body runs.
/// To add an operation: a method here, its portable body, and, where it pays, a kernel and a backward pass.
#[backend_extension(
    Flex,
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda")),
    Fusion: cfg(feature = "fusion"),
    Autodiff
)]
pub trait Backend: burn::backend::Backend {
    /// `act(x)`, any shape.
    #[fusion(default)]
    fn activation(x: FloatTensor<Self>, act: Activation) -> FloatTensor<Self> {
        portable::activation::<Self>(x, act)
    }

    /// The same values in another shape.
    #[fusion(default)]
    fn reshaped(x: FloatTensor<Self>, shape: Shape) -> FloatTensor<Self> {
        Self::float_reshape(x, shape)
    }

    /// `x` as it is. In training its gradient is made of those that its [parts](Backend::part) leave in `gradients`.
    #[fusion(default)]
    fn whole(x: FloatTensor<Self>, gradients: PartGradients) -> FloatTensor<Self> {
        let _ = gradients;
        x
    }

    /// One of the equal parts of a [whole](Backend::whole) along its last axis.
    #[fusion(default)]
    fn part(x: FloatTensor<Self>, part: usize, gradients: PartGradients) -> FloatTensor<Self> {
        portable::part::<Self>(x, part, gradients.count())
    }

    /// Repeats each row `rows` times: `[batch, d]` to `[batch, rows, d]`.
    #[fusion(default)]
    fn repeat_rows(x: FloatTensor<Self>, rows: usize) -> FloatTensor<Self> {
        let [batch, d] = x.shape().dims();
        let x = Self::float_reshape(x, Shape::from([batch, 1, d]));
        Self::float_expand(x, Shape::from([batch, rows, d]))
    }

    /// Sums `[batch, rows, d]` to `[batch, d]`: the gradient of [`Backend::repeat_rows`].
    #[fusion(default)]
    fn sum_rows(g: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::sum_rows::<Self>(g)
    }

    /// `average + share · (value − average)`, both of one shape. Not differentiated.
    #[fusion(default)]
    fn blend(
        average: FloatTensor<Self>,
        value: FloatTensor<Self>,
        share: f64,
    ) -> FloatTensor<Self> {
        portable::blend::<Self>(average, value, share)
    }

    /// `table` with `values` in place of some of its rows: `[n, d]`, `[m]`, `[m, d]` to `[n, d]`. Not differentiated.
    #[fusion(default)]
    fn put_rows(
        table: FloatTensor<Self>,
        rows: IntTensor<Self>,
        values: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        portable::put_rows::<Self>(table, rows, values)
    }

    /// The sum of all values: any shape to `[1]`.
    #[fusion(default)]
    fn sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_sum(x)
    }

    /// The sum of all squares: any shape to `[1]`. Not differentiated.
    #[fusion(default)]
    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::sum_of_squares::<Self>(x)
    }

    /// `x + y`, both of one shape.
    #[fusion(default)]
    fn residual(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::residual::<Self>(x, y)
    }

    /// `x · keep`, both of one shape; `keep` has no gradient.
    #[fusion(default)]
    fn dropped(x: FloatTensor<Self>, keep: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_mul(x, keep)
    }

    /// `x + gate · y`, all of one shape.
    #[fusion(default)]
    fn gated_add(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        y: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        portable::gated_add::<Self>(x, gate, y)
    }

    /// A weight `[in, out]` for inference, in the order in which [`Backend::linear_act`] reads it fastest: as it is, or
    /// in [panels](crate::panels). Not differentiated.
    #[fusion(default)]
    fn packed(w: FloatTensor<Self>) -> FloatTensor<Self> {
        w
    }

    /// `act(x w + b)`: `[rows, in]`, `[in, out]`, `[out]` to `[rows, out]`. A weight of a narrower
    /// type has no gradient; sums are of the type of `x`.
    #[fusion(default)]
    fn linear_act(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        act: Activation,
    ) -> FloatTensor<Self> {
        portable::linear::<Self>(x, w, b, act)
    }

    /// Layer normalization: `[rows, d]`, `[d]`, `[d]` to `[rows, d]`.
    #[fusion(dtype = x, shape = x)]
    fn layer_norm_affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        portable::layer_norm::<Self>(x, weight, bias, eps)
    }

    /// adaLN, `layer_norm(x) · (1 + scale) + shift`; `shift` and `scale` are `[rows, d]`.
    #[fusion(dtype = x, shape = x)]
    fn modulate(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        portable::modulate::<Self>(x, weight, bias, shift, scale, eps)
    }

    /// Attention of `[batch, heads, seq, head_dim]` tensors, with the log-sum-exp `[batch, heads, seq]` of the scaled
    /// scores (not differentiated). Keys and values may have fewer heads, which divide those of the queries.
    #[fusion(meta = |q, _k, _v, _mask| (q.clone(), log_sum_exp_of(q)))]
    fn attention_lse(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: Mask,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::attention::<Self>(q, k, v, None, &mask)
    }

    /// [`attention_lse`](Self::attention_lse) with dropout: every probability is multiplied by its value in `keep`,
    /// `[batch, heads, queries, keys]`, which has no gradient.
    #[fusion(meta = |q, _k, _v, _keep, _mask| (q.clone(), log_sum_exp_of(q)))]
    fn attention_dropped(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keep: FloatTensor<Self>,
        mask: Mask,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::attention::<Self>(q, k, v, Some(keep), &mask)
    }

    /// Gradients of q, k and v over a subset of the keys; `lse` and `delta` belong to all keys. Not differentiated.
    #[fusion(meta = |q, k, v, _g, _lse, _delta, _mask| (q.clone(), k.clone(), v.clone()))]
    fn attention_gradients(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        g: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        mask: Mask,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::attention_gradients::<Self>([q, k, v], g, lse, delta, &mask)
    }

    /// `act(GroupNorm(x))`: `[batch, channels, height, width]`, `[channels]`, `[channels]`.
    #[fusion(dtype = x, shape = x)]
    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        groups: usize,
        eps: f64,
        act: Activation,
    ) -> FloatTensor<Self> {
        portable::group_norm::<Self>(x, weight, bias, groups, eps, act)
    }

    /// Convolution: `[batch, in, h, w]`, `[out, in, kh, kw]`, `[out]`; zero padding `[top, left, bottom, right]`.
    #[fusion(default)]
    fn conv2d_padded(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        stride: [usize; 2],
        padding: [usize; 4],
    ) -> FloatTensor<Self> {
        portable::conv2d::<Self>(x, w, b, stride, padding)
    }

    /// Depthwise convolution, with `x` and the result clamped to `[low, high]`: `[batch, channels, h, w]`,
    /// `[channels, 1, kh, kw]`, `[channels]`; zero padding `[top, left, bottom, right]` of the clamped `x`.
    #[fusion(default)]
    fn depthwise_clamped(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        stride: [usize; 2],
        padding: [usize; 4],
        bounds: [f32; 2],
    ) -> FloatTensor<Self> {
        portable::depthwise::<Self>([x, w, b], stride, padding, bounds)
    }

    /// Nearest-neighbor upsampling by 2: `[batch, channels, h, w]` to `[batch, channels, 2h, 2w]`.
    #[fusion(default)]
    fn upsample_nearest(x: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::upsample_nearest::<Self>(x)
    }

    /// `Σ gate · (act(x w1 + b1) w2 + b2)` over the experts of each token: `[tokens, d]`, gates `[tokens, experts]`,
    /// the weights `[experts, d, hidden]`, `[experts, hidden]`, `[experts, hidden, d]`, `[experts, d]`, to `[tokens,
    /// d]`. Only the pairs of `routes` are computed; other gates are not read and have no gradient.
    #[allow(clippy::too_many_arguments)]
    #[fusion(dtype = x, shape = x)]
    fn grouped_experts(
        x: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        w1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        w2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
        routes: Routes,
        act: Activation,
    ) -> FloatTensor<Self> {
        portable::experts::<Self>(x, gates, [w1, b1, w2, b2], &routes, act)
    }

    /// The same with each token routed to the experts whose gate reaches the threshold `[1]` or is NaN.
    #[allow(clippy::too_many_arguments)]
    #[fusion(dtype = x, shape = x)]
    fn experts_above(
        x: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        threshold: FloatTensor<Self>,
        w1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        w2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
        act: Activation,
    ) -> FloatTensor<Self> {
        portable::experts_above::<Self>(x, gates, threshold, [w1, b1, w2, b2], act)
    }

    /// Negative log-likelihood per row: `[rows, classes]` and `[rows]` to `[rows]`.
    #[fusion(default)]
    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        portable::cross_entropy::<Self>(logits, targets)
    }

    /// One class per row, by inversion at `uniforms`: `[rows, classes]` and `[rows]` to `[rows]`. Not differentiated.
    #[fusion(dtype = DType::I32, shape = Shape::from([logits[0]]))]
    fn categorical(
        logits: FloatTensor<Self>,
        uniforms: FloatTensor<Self>,
        sampling: Sampling,
    ) -> IntTensor<Self> {
        portable::categorical::<Self>(logits, uniforms, sampling)
    }

    /// A custom operation of one tensor. Only called on autodiff tensors: elsewhere the operation runs directly.
    #[fusion(default)]
    fn custom_op(x: FloatTensor<Self>, op: Arc<dyn CustomOp>) -> FloatTensor<Self> {
        let _ = (x, op);
        unreachable!("only called on autodiff tensors")
    }

    /// The same of three.
    #[fusion(default)]
    fn custom_op_3(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        op: Arc<dyn CustomOp>,
    ) -> FloatTensor<Self> {
        let _ = (a, b, c, op);
        unreachable!("only called on autodiff tensors")
    }

    /// One AdamW step: parameter and both moments after it. Not differentiated.
    #[fusion(default)]
    fn adamw(
        p: FloatTensor<Self>,
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        g: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::adamw::<Self>(p, m, v, g, step)
    }
}

/// Shape and type of the log-sum-exp of an attention with these queries.
#[cfg(feature = "fusion")]
fn log_sum_exp_of(q: &TensorSpec) -> TensorSpec {
    let [batch, heads, queries, _] = q.shape.dims();
    TensorSpec::new(Shape::from([batch, heads, queries]), DType::F32)
}

#[cfg(feature = "ndarray")]
impl Backend for burn::backend::NdArray {}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
mod flex;
