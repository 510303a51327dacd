//! Seeded initial weights: PyTorch's defaults, each parameter from a random stream of its own.

use crate::init::uniform;
use burn::module::Param;
use burn::tensor::{Device, Tensor};
use tessera_backend::nn::Conv2d;
use tessera_backend::streams;

/// Makes the convolutions of one network, in order.
pub(super) struct TinyInit<'a> {
    seed: u64,
    next: u64,
    pub(super) device: &'a Device,
}

impl<'a> TinyInit<'a> {
    pub(super) fn new(seed: u64, device: &'a Device) -> Self {
        Self {
            seed,
            next: 0,
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
        Conv2d {
            weight: self.uniform([to, from, side, side], bound(from, side)),
            bias: None,
            stride: [stride; 2],
        }
    }

    fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f64) -> Param<Tensor<D>> {
        let rng = streams::TINY_WEIGHTS.of(self.seed, self.next);
        self.next += 1;
        uniform(rng, shape, bound, self.device)
    }
}

fn bound(from: usize, side: usize) -> f64 {
    1.0 / ((from * side * side) as f64).sqrt()
}
