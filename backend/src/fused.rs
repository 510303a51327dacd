//! The fused backward passes of each backend, as constants. Where one is `None`, autodiff differentiates the portable
//! body; the compiler knows which exist.

use crate::arguments::{Activation, Mask, Routes};
use crate::backward::{
    AttentionSaved, ExpertsInputs, ExpertsSaved, GatedAddGradients, LinearInputs, LinearSaved,
    NormInputs,
};
use crate::extension::Backend;
use crate::flex::{self, norm::Affine};
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::Tensor;

pub(crate) type Float<B> = FloatTensor<B>;

/// Gradient of [`Backend::activation`].
pub type ActivationBackward<T> = fn(x: T, g: T, act: Activation) -> T;

/// Gradients of `gate` and `y` in [`Backend::gated_add`].
pub type GatedAddBackward<T> = fn(gate: T, y: T, g: T) -> GatedAddGradients<T>;

/// [`Backend::linear_act`] in training.
pub struct LinearPasses<T> {
    /// The output, and the preactivations if there is an activation.
    pub forward_with_saved: fn(x: T, w: T, b: T, act: Activation) -> (T, Option<T>),
    /// See [`LinearBackward`].
    pub backward: LinearBackward<T>,
}

/// Gradients of [`Backend::linear_act`] for the inputs that need one.
pub type LinearBackward<T> = fn(
    saved: LinearSaved<T>,
    g: T,
    act: Activation,
    needs_grad: LinearInputs<bool>,
) -> LinearInputs<Option<T>>;

/// Gradients of [`Backend::layer_norm_affine`] or, with a scale, of [`Backend::modulate`]; the second is that of the
/// scale.
pub type LayerNormBackward<T> =
    fn(saved: NormInputs<T>, scale: Option<T>, eps: f64, g: T) -> (NormInputs<T>, Option<T>);

/// Gradients of q, k and v in [`Backend::attention_lse`].
pub type AttentionBackward<T> = fn(saved: AttentionSaved<T>, g: T, mask: &Mask) -> [T; 3];

/// Gradients of q, k and v in [`Backend::attention_dropped`].
pub type AttentionDroppedBackward<T> =
    fn(saved: AttentionSaved<T>, keep: T, g: T, mask: &Mask) -> [T; 3];

/// Gradients of [`Backend::group_norm`].
pub type GroupNormBackward<T> =
    fn(saved: NormInputs<T>, groups: usize, eps: f64, act: Activation, g: T) -> NormInputs<T>;

/// Gradients of [`Backend::conv2d_padded`] for the inputs that need one; padding `[top, left, bottom, right]`.
pub type Conv2dBackward<T> = fn(
    x: T,
    w: T,
    g: T,
    stride: [usize; 2],
    padding: [usize; 4],
    needs_grad: LinearInputs<bool>,
) -> LinearInputs<Option<T>>;

/// Gradient of [`Backend::upsample_nearest`].
pub type UpsampleBackward<T> = fn(g: T) -> T;

/// [`Backend::grouped_experts`] in training.
pub struct ExpertsPasses<T> {
    /// See [`ExpertsForward`].
    pub forward_with_saved: ExpertsForward<T>,
    /// See [`ExpertsBackward`].
    pub backward: ExpertsBackward<T>,
}

/// The output, and the preactivations of each pair of token and expert; `weights` are w1, b1, w2 and b2.
pub type ExpertsForward<T> =
    fn(x: T, gates: T, weights: [T; 4], routes: &Routes, act: Activation) -> (T, T);

/// Gradients of [`Backend::grouped_experts`] for the inputs that need one.
pub type ExpertsBackward<T> = fn(
    saved: ExpertsSaved<T>,
    g: T,
    routes: &Routes,
    act: Activation,
    needs_grad: ExpertsInputs<bool>,
) -> ExpertsInputs<Option<T>>;

/// Gradient of the logits in [`Backend::cross_entropy`].
pub type CrossEntropyBackward<T, I> = fn(logits: T, targets: I, g: T) -> T;

/// The backward passes that a backend has kernels for. `g` is the gradient of the operation's output.
pub trait Fused: Backend {
    /// See [`ActivationBackward`].
    const ACTIVATION: Option<ActivationBackward<Float<Self>>> = None;
    /// See [`GatedAddBackward`].
    const GATED_ADD: Option<GatedAddBackward<Float<Self>>> = None;
    /// See [`LinearPasses`].
    const LINEAR: Option<LinearPasses<Float<Self>>> = None;
    /// See [`LayerNormBackward`].
    const LAYER_NORM: Option<LayerNormBackward<Float<Self>>> = None;
    /// See [`AttentionBackward`].
    const ATTENTION: Option<AttentionBackward<Float<Self>>> = None;
    /// See [`AttentionDroppedBackward`].
    const ATTENTION_DROPPED: Option<AttentionDroppedBackward<Float<Self>>> = None;
    /// See [`GroupNormBackward`].
    const GROUP_NORM: Option<GroupNormBackward<Float<Self>>> = None;
    /// See [`Conv2dBackward`].
    const CONV2D: Option<Conv2dBackward<Float<Self>>> = None;
    /// See [`UpsampleBackward`].
    const UPSAMPLE: Option<UpsampleBackward<Float<Self>>> = None;
    /// See [`ExpertsPasses`].
    const EXPERTS: Option<ExpertsPasses<Float<Self>>> = None;
    /// See [`CrossEntropyBackward`].
    const CROSS_ENTROPY: Option<CrossEntropyBackward<Float<Self>, IntTensor<Self>>> = None;

    /// The public tensor of a primitive, for custom operations.
    ///
    /// # Shapes
    /// - x, output: defined by the operation
    fn into_tensor(x: Float<Self>) -> Tensor<4>;

    /// The primitive of a public tensor.
    ///
    /// # Shapes
    /// - x, output: defined by the operation
    fn from_tensor(x: Tensor<4>) -> Float<Self>;
}

/// The conversions between a backend's primitives and public tensors, which Burn implements per backend.
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
    const ACTIVATION: Option<ActivationBackward<FlexTensor>> =
        Some(|x, g, act| flex::elementwise::activation_backward(&x, &g, act));
    const GATED_ADD: Option<GatedAddBackward<FlexTensor>> =
        Some(|gate, y, g| flex::elementwise::gated_add_backward(&gate, &y, &g));
    const LINEAR: Option<LinearPasses<FlexTensor>> = Some(LinearPasses {
        forward_with_saved: |x, w, b, act| flex::linear::linear_with_saved(&x, &w, &b, act),
        backward: flex::linear::linear_backward,
    });
    const LAYER_NORM: Option<LayerNormBackward<FlexTensor>> = Some(layer_norm_backward);
    const ATTENTION: Option<AttentionBackward<FlexTensor>> =
        Some(|saved, g, mask| attention_backward(saved, None, g, mask));
    const ATTENTION_DROPPED: Option<AttentionDroppedBackward<FlexTensor>> =
        Some(|saved, keep, g, mask| attention_backward(saved, Some(keep), g, mask));
    const GROUP_NORM: Option<GroupNormBackward<FlexTensor>> = Some(group_norm_backward);
    const CONV2D: Option<Conv2dBackward<FlexTensor>> =
        Some(|x, w, g, stride, padding, needs_grad| {
            flex::conv::conv2d_backward(&x, &w, &g, stride, padding, needs_grad)
        });
    const UPSAMPLE: Option<UpsampleBackward<FlexTensor>> =
        Some(|g| flex::conv::upsample_nearest_backward(&g));
    const EXPERTS: Option<ExpertsPasses<FlexTensor>> = Some(ExpertsPasses {
        forward_with_saved: |x, gates, weights, routes, act| {
            flex::experts::experts_with_saved(&x, &gates, weights.each_ref(), routes, act)
        },
        backward: flex::experts::experts_backward,
    });
    const CROSS_ENTROPY: Option<CrossEntropyBackward<FlexTensor, FlexTensor>> =
        Some(|logits, targets, g| flex::loss::cross_entropy_backward(&logits, &targets, &g));

    conversions!();
}

fn layer_norm_backward(
    NormInputs { x, weight, bias }: NormInputs<FlexTensor>,
    scale: Option<FlexTensor>,
    eps: f64,
    g: FlexTensor,
) -> (NormInputs<FlexTensor>, Option<FlexTensor>) {
    let (weight, bias) = (&weight, &bias);
    let affine = Affine { weight, bias, eps };
    flex::norm::layer_norm_backward(&x, affine, scale.as_ref(), &g)
}

fn attention_backward(
    saved: AttentionSaved<FlexTensor>,
    keep: Option<FlexTensor>,
    g: FlexTensor,
    mask: &Mask,
) -> [FlexTensor; 3] {
    let AttentionSaved {
        q,
        k,
        v,
        out,
        lse,
        precision,
    } = saved;
    let delta = flex::attention::row_dots(&g, &out);
    let tensors = [&q, &k, &v, &g];
    flex::attention::gradients(tensors, [&lse, &delta], keep.as_ref(), mask, precision)
}

fn group_norm_backward(
    NormInputs { x, weight, bias }: NormInputs<FlexTensor>,
    groups: usize,
    eps: f64,
    act: Activation,
    g: FlexTensor,
) -> NormInputs<FlexTensor> {
    let (weight, bias) = (&weight, &bias);
    flex::norm::group_norm_backward(&x, Affine { weight, bias, eps }, groups, act, &g)
}

#[cfg(feature = "ndarray")]
#[allow(deprecated)]
impl Fused for burn::backend::NdArray {
    conversions!();
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
