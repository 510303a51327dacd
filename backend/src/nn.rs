//! Layers, named as PyTorch names their parameters (`weight`, `bias`), so that a checkpoint's keys are the field names.
//! They hold parameters; [`ops`](crate::ops) computes with them. Burn's own are in a crate of some forty layers, which
//! takes longer to build than all that is here.

use crate::init::constant;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

/// A linear map of the last axis. [`ParamInit::linear`](crate::init::ParamInit::linear) makes one.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[in, out]`: the transpose of PyTorch's.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

/// A convolution of feature maps. [`ParamInit::conv2d`](crate::init::ParamInit::conv2d) makes one.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in, kernel height, kernel width]`; of each channel by itself, `[channels, 1, …]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Pixels from one window to the next, down and to the right.
    #[module(skip)]
    pub stride: [usize; 2],
}

/// A vector for each of a number of entries.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[entries, d_model]`.
    pub weight: Param<Tensor<2>>,
}

/// SiLU as a member of a sequence of layers, which gives its neighbors their numbers in the checkpoint's keys.
#[derive(Module, Debug)]
pub struct Silu;

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
            weight: constant(1.0, [d_model], device),
            bias: constant(0.0, [d_model], device),
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
            weight: constant(1.0, [channels], device),
            bias: constant(0.0, [channels], device),
            groups,
            eps,
        }
    }
}
