//! Seeded initial weights: PyTorch's defaults, each parameter from a random stream of its own.

use crate::init::uniform;
use burn::module::Param;
use burn::tensor::{Device, Tensor};
use tessera_backend::nn::{Conv2d, GroupNorm};
use tessera_backend::streams;

/// The reference's, in every normalization.
const NORM_EPS: f64 = 1e-6;

/// Makes the layers of one network, in order.
pub(super) struct VaeInit<'a> {
    seed: u64,
    next: u64,
    groups: usize,
    device: &'a Device,
}

impl<'a> VaeInit<'a> {
    pub(super) fn new(seed: u64, groups: usize, device: &'a Device) -> Self {
        Self {
            seed,
            next: 0,
            groups,
            device,
        }
    }

    /// Group normalization with scale 1 and shift 0.
    pub(super) fn norm(&self, channels: usize) -> GroupNorm {
        GroupNorm::new(self.groups, channels, NORM_EPS, self.device)
    }

    /// A square convolution, weight and bias uniform in `±1/sqrt(fan_in)`.
    pub(super) fn conv(&mut self, from: usize, to: usize, side: usize, stride: usize) -> Conv2d {
        let bound = 1.0 / ((from * side * side) as f64).sqrt();
        Conv2d {
            weight: self.uniform([to, from, side, side], bound),
            bias: Some(self.uniform([to], bound)),
            stride: [stride; 2],
        }
    }

    fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f64) -> Param<Tensor<D>> {
        let rng = streams::VAE_WEIGHTS.of(self.seed, self.next);
        self.next += 1;
        uniform(rng, shape, bound, self.device)
    }
}
