//! Backward passes on GPUs. With the feature `fusion` Burn makes one kernel of what surrounds matrix products itself.

use super::{Float, Fused, Op};
#[cfg(not(feature = "fusion"))]
use crate::cube;
use crate::extension::Backend;
use crate::ops::Mask;
#[cfg(not(feature = "fusion"))]
use crate::ops::{Activation, Routes};
use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::Tensor;
use burn_cubecl::Cube;

impl Fused for Cube {
    fn fused(op: Op) -> bool {
        match op {
            Op::Attention => true,
            // Burn's own are of kernels as well.
            Op::Conv2d | Op::Upsample | Op::CrossEntropy => false,
            _ => cfg!(not(feature = "fusion")),
        }
    }

    conversions!();

    fn attention_backward(
        [q, k, v, out, lse]: [Float<Self>; 5],
        g: Float<Self>,
        mask: &Mask,
    ) -> [Float<Self>; 3] {
        let delta = Self::float_sum_dim(Self::float_mul(g.clone(), out), 3);
        let delta = Self::float_reshape(delta, lse.shape());
        Self::attention_gradients(q, k, v, g, lse, delta, mask.clone()).into()
    }

    #[cfg(not(feature = "fusion"))]
    fn activation_backward(x: Float<Self>, g: Float<Self>, act: Activation) -> Float<Self> {
        cube::elementwise::activation_backward(x, g, act)
    }

    #[cfg(not(feature = "fusion"))]
    fn gated_add_backward(gate: Float<Self>, y: Float<Self>, g: Float<Self>) -> [Float<Self>; 2] {
        [Self::float_mul(g.clone(), y), Self::float_mul(g, gate)]
    }

    #[cfg(not(feature = "fusion"))]
    fn linear_keep(
        x: Float<Self>,
        w: Float<Self>,
        b: Float<Self>,
        act: Activation,
    ) -> (Float<Self>, Option<Float<Self>>) {
        let z = Self::linear_act(x, w, b, Activation::None);
        match act {
            Activation::None => (z, None),
            act => (Self::activation(z.clone(), act), Some(z)),
        }
    }

    #[cfg(not(feature = "fusion"))]
    fn linear_backward(
        x: Float<Self>,
        w: Float<Self>,
        z: Option<Float<Self>>,
        g: Float<Self>,
        act: Activation,
        [wants_x, wants_w, wants_b]: [bool; 3],
    ) -> [Option<Float<Self>>; 3] {
        let dz = match z {
            Some(z) => Self::activation_backward(z, g, act),
            None => g,
        };
        let transposed = |x| Self::float_swap_dims(x, 0, 1);
        [
            wants_x.then(|| {
                let w = Self::float_cast(w, dz.dtype().into());
                Self::float_matmul(dz.clone(), transposed(w))
            }),
            wants_w.then(|| Self::float_matmul(transposed(x), dz.clone())),
            wants_b.then(|| cube::sum_of_rows(dz)),
        ]
    }

    #[cfg(not(feature = "fusion"))]
    fn layer_norm_backward(
        x: Float<Self>,
        affine: [Float<Self>; 2],
        scale: Option<Float<Self>>,
        eps: f64,
        g: Float<Self>,
    ) -> ([Float<Self>; 3], Option<Float<Self>>) {
        cube::norm_backward::layer_norm(x, affine, scale, eps, g)
    }

    #[cfg(not(feature = "fusion"))]
    fn group_norm_backward(
        x: Float<Self>,
        affine: [Float<Self>; 2],
        groups: usize,
        eps: f64,
        act: Activation,
        g: Float<Self>,
    ) -> [Float<Self>; 3] {
        cube::norm_backward::group_norm(x, affine, groups, eps, act, g)
    }

    #[cfg(not(feature = "fusion"))]
    fn grouped_experts_keep(
        x: Float<Self>,
        gates: Float<Self>,
        weights: [Float<Self>; 4],
        routes: &Routes,
        act: Activation,
    ) -> (Float<Self>, Float<Self>) {
        match routes.pairs() {
            0 => (zeros(&x), gates),
            _ => cube::experts_backward::keep(x, gates, weights, routes, act),
        }
    }

    #[cfg(not(feature = "fusion"))]
    fn grouped_experts_backward(
        saved: [Float<Self>; 6],
        g: Float<Self>,
        routes: &Routes,
        act: Activation,
        wanted: [bool; 6],
    ) -> [Option<Float<Self>>; 6] {
        if routes.pairs() > 0 {
            return cube::experts_backward::gradients(saved, g, routes, act, wanted);
        }
        let [x, gates, w1, w2, b2, _] = saved;
        let [experts, _, hidden] = w1.shape().dims();
        let b1 = Self::float_zeros([experts, hidden].into(), &w1.device(), w1.dtype().into());
        let mut values = [x, gates, w1, b1, w2, b2].into_iter().zip(wanted);
        std::array::from_fn(|_| {
            let (value, wanted) = values.next()?;
            wanted.then(|| zeros(&value))
        })
    }
}

#[cfg(not(feature = "fusion"))]
fn zeros(like: &Float<Cube>) -> Float<Cube> {
    Cube::float_zeros(like.shape(), &like.device(), like.dtype().into())
}
