//! Halving and doubling of the sides.

use super::init::VaeInit;
use super::resnet::SAME;
use burn::module::Module;
use burn::tensor::Tensor;
use tessera_backend::nn::Conv2d;
use tessera_backend::ops::{conv2d, upsample_nearest};

/// The reference pads on one side only, so that every output sees a 3 x 3 window that starts at its own 2 x 2 cell.
const BOTTOM_RIGHT: [usize; 4] = [0, 0, 1, 1];

/// A 3 x 3 convolution of stride 2.
#[derive(Module, Debug)]
pub struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    pub(super) fn new(channels: usize, init: &mut VaeInit) -> Self {
        Self {
            conv: init.conv(channels, channels, 3, 2),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`, both sides even
    /// - returns `[batch, channels, height / 2, width / 2]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        conv2d(x, &self.conv, BOTTOM_RIGHT)
    }
}

/// Nearest-neighbor doubling, then a 3 x 3 convolution.
#[derive(Module, Debug)]
pub struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(super) fn new(channels: usize, init: &mut VaeInit) -> Self {
        Self {
            conv: init.conv(channels, channels, 3, 1),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`
    /// - returns `[batch, channels, 2 height, 2 width]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        conv2d(upsample_nearest(x), &self.conv, SAME)
    }
}
