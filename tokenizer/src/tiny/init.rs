//! Seeded initial weights: PyTorch's defaults, each parameter from a random stream of its own.

use crate::init::uniform;
use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Tensor};

/// First of the streams that initial weights draw from; other uses of the same seed must not meet them.
const FIRST_STREAM: u64 = 0x0074_6165_0000_0000;

/// Makes the convolutions of one network, in order.
pub(super) struct Init<'a> {
    seed: u64,
    stream: u64,
    pub(super) device: &'a Device,
}

impl<'a> Init<'a> {
    pub(super) fn new(seed: u64, device: &'a Device) -> Self {
        Self {
            seed,
            stream: FIRST_STREAM,
            device,
        }
    }

    /// A square convolution, weight and bias uniform in `±1/sqrt(fan_in)`.
    pub(super) fn conv(&mut self, from: usize, to: usize, side: usize) -> Conv2d {
        let bound = bound(from, side);
        Conv2d {
            bias: Some(self.uniform([to], bound)),
            ..self.unbiased(from, to, side, 1)
        }
    }

    /// The same without a bias, and with a stride.
    pub(super) fn unbiased(
        &mut self,
        from: usize,
        to: usize,
        side: usize,
        stride: usize,
    ) -> Conv2d {
        let conv = Conv2dConfig::new([from, to], [side, side])
            .with_stride([stride, stride])
            .with_bias(false)
            .init(self.device);
        Conv2d {
            weight: self.uniform([to, from, side, side], bound(from, side)),
            ..conv
        }
    }

    fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f64) -> Param<Tensor<D>> {
        let stream = self.stream;
        self.stream += 1;
        uniform([self.seed, stream], shape, bound, self.device)
    }
}

fn bound(from: usize, side: usize) -> f64 {
    1.0 / ((from * side * side) as f64).sqrt()
}
