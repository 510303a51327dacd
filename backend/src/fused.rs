//! Which backends have a backward pass in one kernel for each fused operation.

use crate::extension::Backend;
use crate::flex::{self, norm::Affine};
use crate::ops::{Activation, Mask, Routes};
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::Tensor;

pub(crate) type Float<B> = FloatTensor<B>;

/// The operations that may have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// [`Backend::activation`]
    Activation,
    /// [`Backend::gated_add`]
    GatedAdd,
    /// [`Backend::linear_act`]
    Linear,
    /// [`Backend::layer_norm_affine`] and [`Backend::modulate`]
    LayerNorm,
    /// [`Backend::attention_lse`]
    Attention,
    /// [`Backend::group_norm`]
    GroupNorm,
    /// [`Backend::conv2d_padded`]
    Conv2d,
    /// [`Backend::upsample_nearest`]
    Upsample,
    /// [`Backend::grouped_experts`]
    Experts,
    /// [`Backend::cross_entropy`]
    CrossEntropy,
}

/// Backward passes in one kernel each. The methods of an operation that is not [`Fused::fused`] are not called.
pub trait Fused: Backend {
    /// Whether this backend has that of an operation.
    fn fused(op: Op) -> bool {
        let _ = op;
        false
    }

    /// The public tensor of a primitive, for operations from outside.
    fn into_tensor(x: Float<Self>) -> Tensor<4>;

    /// The primitive of a public tensor.
    fn from_tensor(x: Tensor<4>) -> Float<Self>;

    /// Gradient of [`Backend::activation`].
    fn activation_backward(x: Float<Self>, g: Float<Self>, act: Activation) -> Float<Self> {
        let _ = (x, g, act);
        unreachable!("{NOT_FUSED}")
    }

    /// Gradients of `gate` and `y` in [`Backend::gated_add`].
    fn gated_add_backward(gate: Float<Self>, y: Float<Self>, g: Float<Self>) -> [Float<Self>; 2] {
        let _ = (gate, y, g);
        unreachable!("{NOT_FUSED}")
    }

    /// [`Backend::linear_act`] with what goes into the activation, if there is one.
    fn linear_keep(
        x: Float<Self>,
        w: Float<Self>,
        b: Float<Self>,
        act: Activation,
    ) -> (Float<Self>, Option<Float<Self>>) {
        let _ = (x, w, b, act);
        unreachable!("{NOT_FUSED}")
    }

    /// Gradients of x, w, b.
    fn linear_backward(
        x: Float<Self>,
        w: Float<Self>,
        z: Option<Float<Self>>,
        g: Float<Self>,
        act: Activation,
        wanted: [bool; 3],
    ) -> [Option<Float<Self>>; 3] {
        let _ = (x, w, z, g, act, wanted);
        unreachable!("{NOT_FUSED}")
    }

    /// Gradients of x, weight, bias and scale (`scale` being absent for a plain layer normalisation).
    fn layer_norm_backward(
        x: Float<Self>,
        affine: [Float<Self>; 2],
        scale: Option<Float<Self>>,
        eps: f64,
        g: Float<Self>,
    ) -> ([Float<Self>; 3], Option<Float<Self>>) {
        let _ = (x, affine, scale, eps, g);
        unreachable!("{NOT_FUSED}")
    }

    /// Gradients of q, k, v; `saved` is `[q, k, v, out, lse]`.
    fn attention_backward(
        saved: [Float<Self>; 5],
        g: Float<Self>,
        mask: &Mask,
    ) -> [Float<Self>; 3] {
        let _ = (saved, g, mask);
        unreachable!("{NOT_FUSED}")
    }

    /// Gradients of x, weight, bias.
    fn group_norm_backward(
        x: Float<Self>,
        affine: [Float<Self>; 2],
        groups: usize,
        eps: f64,
        act: Activation,
        g: Float<Self>,
    ) -> [Float<Self>; 3] {
        let _ = (x, affine, groups, eps, act, g);
        unreachable!("{NOT_FUSED}")
    }

    /// Gradients of x, w, b.
    fn conv2d_backward(
        x: Float<Self>,
        w: Float<Self>,
        g: Float<Self>,
        stride: [usize; 2],
        padding: [usize; 4],
        wanted: [bool; 3],
    ) -> [Option<Float<Self>>; 3] {
        let _ = (x, w, g, stride, padding, wanted);
        unreachable!("{NOT_FUSED}")
    }

    /// Gradient of [`Backend::upsample_nearest`].
    fn upsample_nearest_backward(g: Float<Self>) -> Float<Self> {
        let _ = g;
        unreachable!("{NOT_FUSED}")
    }

    /// [`Backend::grouped_experts`] with what goes into the activations, a row per pair.
    fn grouped_experts_keep(
        x: Float<Self>,
        gates: Float<Self>,
        weights: [Float<Self>; 4],
        routes: &Routes,
        act: Activation,
    ) -> (Float<Self>, Float<Self>) {
        let _ = (x, gates, weights, routes, act);
        unreachable!("{NOT_FUSED}")
    }

    /// Gradients of x, gates, w1, b1, w2, b2; `saved` is `[x, gates, w1, w2, b2, z]`.
    fn grouped_experts_backward(
        saved: [Float<Self>; 6],
        g: Float<Self>,
        routes: &Routes,
        act: Activation,
        wanted: [bool; 6],
    ) -> [Option<Float<Self>>; 6] {
        let _ = (saved, g, routes, act, wanted);
        unreachable!("{NOT_FUSED}")
    }

    /// Gradient of the logits.
    fn cross_entropy_backward(
        logits: Float<Self>,
        targets: IntTensor<Self>,
        g: Float<Self>,
    ) -> Float<Self> {
        let _ = (logits, targets, g);
        unreachable!("{NOT_FUSED}")
    }
}

const NOT_FUSED: &str = "a backend without fused backward passes differentiates the portable body";

/// The conversions of a backend, which Burn has for each by itself.
macro_rules! conversions {
    () => {
        fn into_tensor(x: Float<Self>) -> Tensor<4> {
            Tensor::from_primitive::<Self>(x)
        }

        fn from_tensor(x: Tensor<4>) -> Float<Self> {
            x.try_into_primitive::<Self>()
                .expect("an operation stays on its device")
        }
    };
}

impl Fused for Flex {
    fn fused(_: Op) -> bool {
        true
    }

    conversions!();

    fn activation_backward(x: FlexTensor, g: FlexTensor, act: Activation) -> FlexTensor {
        flex::elementwise::activation_backward(&x, &g, act)
    }

    fn gated_add_backward(gate: FlexTensor, y: FlexTensor, g: FlexTensor) -> [FlexTensor; 2] {
        flex::elementwise::gated_add_backward(&gate, &y, &g)
    }

    fn linear_keep(
        x: FlexTensor,
        w: FlexTensor,
        b: FlexTensor,
        act: Activation,
    ) -> (FlexTensor, Option<FlexTensor>) {
        flex::linear::linear(&x, &w, &b, act, true)
    }

    fn linear_backward(
        x: FlexTensor,
        w: FlexTensor,
        z: Option<FlexTensor>,
        g: FlexTensor,
        act: Activation,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        flex::linear::linear_backward(&x, &w, z.as_ref(), g, act, wanted)
    }

    fn layer_norm_backward(
        x: FlexTensor,
        [weight, bias]: [FlexTensor; 2],
        scale: Option<FlexTensor>,
        eps: f64,
        g: FlexTensor,
    ) -> ([FlexTensor; 3], Option<FlexTensor>) {
        flex::norm::layer_norm_backward(
            &x,
            Affine {
                weight: &weight,
                bias: &bias,
                eps,
            },
            scale.as_ref(),
            &g,
        )
    }

    fn attention_backward(
        [q, k, v, out, lse]: [FlexTensor; 5],
        g: FlexTensor,
        mask: &Mask,
    ) -> [FlexTensor; 3] {
        let delta = flex::attention::row_dots(&g, &out);
        flex::attention::gradients([&q, &k, &v], &g, &lse, &delta, mask)
    }

    fn group_norm_backward(
        x: FlexTensor,
        [weight, bias]: [FlexTensor; 2],
        groups: usize,
        eps: f64,
        act: Activation,
        g: FlexTensor,
    ) -> [FlexTensor; 3] {
        flex::norm::group_norm_backward(
            &x,
            Affine {
                weight: &weight,
                bias: &bias,
                eps,
            },
            groups,
            act,
            &g,
        )
    }

    fn conv2d_backward(
        x: FlexTensor,
        w: FlexTensor,
        g: FlexTensor,
        stride: [usize; 2],
        padding: [usize; 4],
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        flex::conv::conv2d_backward(&x, &w, &g, stride, padding, wanted)
    }

    fn upsample_nearest_backward(g: FlexTensor) -> FlexTensor {
        flex::conv::upsample_nearest_backward(&g)
    }

    fn grouped_experts_keep(
        x: FlexTensor,
        gates: FlexTensor,
        weights: [FlexTensor; 4],
        routes: &Routes,
        act: Activation,
    ) -> (FlexTensor, FlexTensor) {
        let weights = weights.each_ref();
        let (y, z) = flex::experts::experts(&x, &gates, weights, routes, act, true);
        (y, z.expect("kept as asked"))
    }

    fn grouped_experts_backward(
        saved: [FlexTensor; 6],
        g: FlexTensor,
        routes: &Routes,
        act: Activation,
        wanted: [bool; 6],
    ) -> [Option<FlexTensor>; 6] {
        flex::experts::experts_backward(saved, g, routes, act, wanted)
    }

    fn cross_entropy_backward(
        logits: FlexTensor,
        targets: FlexTensor,
        g: FlexTensor,
    ) -> FlexTensor {
        flex::loss::cross_entropy_backward(&logits, &targets, &g)
    }
}

#[cfg(feature = "ndarray")]
#[allow(deprecated)]
impl Fused for burn::backend::NdArray {
    conversions!();
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
