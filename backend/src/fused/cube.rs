//! Backward passes on GPUs. With the feature `fusion` Burn itself fuses bias, activation and residual epilogues.

#[cfg(not(feature = "fusion"))]
use super::{
    ActivationBackward, ExpertsPasses, GatedAddBackward, GroupNormBackward, LayerNormBackward,
    LinearPasses,
};
use super::{AttentionBackward, Float, Fused};
use crate::arguments::Mask;
#[cfg(not(feature = "fusion"))]
use crate::arguments::{Activation, Routes};
use crate::backward::AttentionSaved;
#[cfg(not(feature = "fusion"))]
use crate::backward::{ExpertsInputs, ExpertsSaved, GatedAddGradients, LinearInputs, LinearSaved};
#[cfg(not(feature = "fusion"))]
use crate::cube;
use crate::extension::Backend;
use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::Tensor;
use burn_cubecl::Cube;

/// Convolution, upsampling and cross-entropy are absent: Burn's own gradients run as kernels too.
impl Fused for Cube {
    const ATTENTION: Option<AttentionBackward<Float<Self>>> = Some(attention_backward);

    #[cfg(not(feature = "fusion"))]
    const ACTIVATION: Option<ActivationBackward<Float<Self>>> =
        Some(cube::elementwise::activation_backward);
    #[cfg(not(feature = "fusion"))]
    const GATED_ADD: Option<GatedAddBackward<Float<Self>>> = Some(|gate, y, g| GatedAddGradients {
        gate: Self::float_mul(g.clone(), y),
        y: Self::float_mul(g, gate),
    });
    #[cfg(not(feature = "fusion"))]
    const LINEAR: Option<LinearPasses<Float<Self>>> = Some(LinearPasses {
        forward_with_saved: linear_with_saved,
        backward: linear_backward,
    });
    #[cfg(not(feature = "fusion"))]
    const LAYER_NORM: Option<LayerNormBackward<Float<Self>>> =
        Some(cube::norm_backward::layer_norm);
    #[cfg(not(feature = "fusion"))]
    const GROUP_NORM: Option<GroupNormBackward<Float<Self>>> =
        Some(cube::norm_backward::group_norm);
    #[cfg(not(feature = "fusion"))]
    const EXPERTS: Option<ExpertsPasses<Float<Self>>> = Some(ExpertsPasses {
        forward_with_saved: experts_with_saved,
        backward: experts_backward,
    });

    conversions!();
}

fn attention_backward(
    saved: AttentionSaved<Float<Cube>>,
    g: Float<Cube>,
    mask: &Mask,
) -> [Float<Cube>; 3] {
    let AttentionSaved {
        q, k, v, out, lse, ..
    } = saved;
    let delta = Cube::float_sum_dim(Cube::float_mul(g.clone(), out), 3);
    let delta = Cube::float_reshape(delta, lse.shape()); // [batch, heads, queries]
    Cube::attention_gradients(q, k, v, g, lse, delta, mask.clone()).into()
}

#[cfg(not(feature = "fusion"))]
fn linear_with_saved(
    x: Float<Cube>,
    w: Float<Cube>,
    b: Float<Cube>,
    act: Activation,
) -> (Float<Cube>, Option<Float<Cube>>) {
    let z = Cube::linear_act(x, w, b, Activation::None);
    match act {
        Activation::None => (z, None),
        act => (Cube::activation(z.clone(), act), Some(z)),
    }
}

#[cfg(not(feature = "fusion"))]
fn linear_backward(
    LinearSaved { x, w, z, .. }: LinearSaved<Float<Cube>>,
    g: Float<Cube>,
    act: Activation,
    needs_grad: LinearInputs<bool>,
) -> LinearInputs<Option<Float<Cube>>> {
    let dz = match z {
        Some(z) => cube::elementwise::activation_backward(z, g, act),
        None => g,
    };
    let transposed = |x| Cube::float_swap_dims(x, 0, 1); // [columns, rows]
    LinearInputs {
        x: needs_grad.x.then(|| {
            let w = Cube::float_cast(w, dz.dtype().into());
            Cube::float_matmul(dz.clone(), transposed(w))
        }),
        w: needs_grad
            .w
            .then(|| Cube::float_matmul(transposed(x), dz.clone())),
        b: needs_grad.b.then(|| cube::sum_of_rows(dz)),
    }
}

#[cfg(not(feature = "fusion"))]
fn experts_with_saved(
    x: Float<Cube>,
    gates: Float<Cube>,
    weights: [Float<Cube>; 4],
    routes: &Routes,
    act: Activation,
) -> (Float<Cube>, Float<Cube>) {
    match routes.pairs() {
        0 => (zeros(&x), gates),
        _ => cube::experts_backward::experts_with_saved(x, gates, weights, routes, act),
    }
}

#[cfg(not(feature = "fusion"))]
fn experts_backward(
    saved: ExpertsSaved<Float<Cube>>,
    g: Float<Cube>,
    routes: &Routes,
    act: Activation,
    needs_grad: ExpertsInputs<bool>,
) -> ExpertsInputs<Option<Float<Cube>>> {
    if routes.pairs() > 0 {
        return cube::experts_backward::gradients(saved, g, routes, act, needs_grad);
    }
    let ExpertsSaved {
        x,
        gates,
        w1,
        w2,
        b2,
        ..
    } = saved;
    let [experts, _, hidden] = w1.shape().dims();
    let b1 = Cube::float_zeros([experts, hidden].into(), &w1.device(), w1.dtype().into());
    ExpertsInputs {
        x: needs_grad.x.then(|| zeros(&x)),
        gates: needs_grad.gates.then(|| zeros(&gates)),
        w1: needs_grad.w1.then(|| zeros(&w1)),
        b1: needs_grad.b1.then_some(b1),
        w2: needs_grad.w2.then(|| zeros(&w2)),
        b2: needs_grad.b2.then(|| zeros(&b2)),
    }
}

#[cfg(not(feature = "fusion"))]
fn zeros(like: &Float<Cube>) -> Float<Cube> {
    Cube::float_zeros(like.shape(), &like.device(), like.dtype().into())
}
