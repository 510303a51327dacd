//! The operations models call: safe functions over `Tensor`, whatever device it is on and whether or not it is being
//! differentiated. Rows (images, heads) are computed independently: none depends on how many there are.

mod experts;
mod image;
mod mask;
mod optim;
mod outside;
mod parts;
mod sequence;

pub use experts::{Experts, Routes, experts, experts_above, reaches};
pub use image::{conv2d, group_norm, upsample_nearest};
pub use mask::Mask;
pub use optim::{AdamWStep, adamw_step};
pub use outside::{Outside, outside, outside_3};
pub use parts::{columns, merge_heads, split_heads, split_linear};
pub use sequence::{
    Sampling, attention, attention_gradients, attention_with_lse, categorical, cross_entropy,
    layer_norm, linear, modulate,
};

use crate::Backend;
use burn::backend::Dispatch;
use burn::tensor::Tensor;

/// What follows a linear map or a normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The identity.
    None,
    /// GELU with erf (not the tanh approximation).
    Gelu,
    /// GELU as `x · ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))`, which DiT's MLPs have.
    GeluTanh,
    /// SiLU (swish).
    Silu,
}

/// `act(x)`, for where no linear map or normalisation precedes it.
///
/// # Shapes
/// - `x`: any; the output has the same.
pub fn activation<const D: usize>(x: Tensor<D>, act: Activation) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Backend>::activation(x.into_dispatch(), act))
}

/// `x + gate · y`: the residual of a branch that adaLN gates.
///
/// # Shapes
/// - `x`, `gate`, `y`: any, all alike; the output has the same.
pub fn gated_add<const D: usize>(x: Tensor<D>, gate: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Backend>::gated_add(
        x.into_dispatch(),
        gate.into_dispatch(),
        y.into_dispatch(),
    ))
}
