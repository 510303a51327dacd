//! The residual block: two normalized convolutions beside a shortcut.

use super::init::VaeInit;
use burn::module::Module;
use burn::tensor::Tensor;
use tessera_backend::nn::{Conv2d, GroupNorm};
use tessera_backend::ops::{Activation, conv2d, group_norm, residual};

/// Zero padding that keeps the sides under a 3 x 3 convolution.
pub(super) const SAME: [usize; 4] = [1; 4];
/// No padding, for 1 x 1 convolutions.
pub(super) const NONE: [usize; 4] = [0; 4];

/// `x + conv2(silu(norm2(conv1(silu(norm1(x))))))`, the `x` in front through a 1 x 1 convolution if the width changes.
#[derive(Module, Debug)]
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    nin_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub(super) fn new(from: usize, to: usize, init: &mut VaeInit) -> Self {
        Self {
            norm1: init.norm(from),
            conv1: init.conv(from, to, 3, 1),
            norm2: init.norm(to),
            conv2: init.conv(to, to, 3, 1),
            nin_shortcut: (from != to).then(|| init.conv(from, to, 1, 1)),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, from, height, width]`
    /// - returns `[batch, to, height, width]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = group_norm(x.clone(), &self.norm1, Activation::Silu);
        let h = conv2d(h, &self.conv1, SAME);
        let h = group_norm(h, &self.norm2, Activation::Silu);
        let h = conv2d(h, &self.conv2, SAME);
        match &self.nin_shortcut {
            Some(conv) => residual(conv2d(x, conv, NONE), h),
            None => residual(x, h),
        }
    }
}
