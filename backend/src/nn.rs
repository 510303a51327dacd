//! The normalization layers, named as PyTorch names their parameters (`weight`, `bias`), so that a
//! checkpoint's keys are the field names. Linear, Conv2d and Embedding are Burn's own.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

/// Layer normalization over the last axis, affine.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[d_model]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[d_model]`.
    pub bias: Param<Tensor<1>>,
    /// Added to the variance.
    #[module(skip)]
    pub eps: f64,
}

impl LayerNorm {
    /// Scale 1, shift 0.
    pub fn new(d_model: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([d_model], device),
            bias: Initializer::Zeros.init([d_model], device),
            eps,
        }
    }
}

/// Group normalization over `[channels / groups, height, width]`, affine per channel.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// Scale, `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[channels]`.
    pub bias: Param<Tensor<1>>,
    /// Number of groups; divides the channels.
    #[module(skip)]
    pub groups: usize,
    /// Added to the variance.
    #[module(skip)]
    pub eps: f64,
}

impl GroupNorm {
    /// Scale 1, shift 0.
    pub fn new(groups: usize, channels: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            groups,
            eps,
        }
    }
}
