//! Self-attention between the positions of a feature map.

use super::init::VaeInit;
use super::resnet::NONE;
use burn::module::Module;
use burn::tensor::Tensor;
use tessera_backend::nn::{Conv2d, GroupNorm};
use tessera_backend::ops::{Activation, Mask, attention, conv2d, group_norm, reshape, residual};

/// `x + proj_out(softmax(q k / sqrt(channels)) v)`, one head over all positions; the projections are 1 x 1
/// convolutions of the normalized `x`.
#[derive(Module, Debug)]
pub struct AttnBlock {
    norm: GroupNorm,
    q: Conv2d,
    k: Conv2d,
    v: Conv2d,
    proj_out: Conv2d,
}

impl AttnBlock {
    pub(super) fn new(channels: usize, init: &mut VaeInit) -> Self {
        Self {
            norm: init.norm(channels),
            q: init.conv(channels, channels, 1, 1),
            k: init.conv(channels, channels, 1, 1),
            v: init.conv(channels, channels, 1, 1),
            proj_out: init.conv(channels, channels, 1, 1),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`
    /// - returns `[batch, channels, height, width]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let normed = group_norm(x.clone(), &self.norm, Activation::None);
        let positions = |conv: &Conv2d| {
            let y = conv2d(normed.clone(), conv, NONE);
            y.reshape([batch, 1, channels, height * width])
                .swap_dims(2, 3) // [batch, 1, height * width, channels]
        };
        let seen = attention(
            positions(&self.q),
            positions(&self.k),
            positions(&self.v),
            Mask::All,
        );
        let seen = reshape(seen.swap_dims(2, 3), [batch, channels, height, width]);
        residual(x, conv2d(seen, &self.proj_out, NONE))
    }
}
