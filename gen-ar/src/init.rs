//! Random weights: one stream of the seed per parameter, drawn when the parameter is first used.

use burn::module::{Param, ParamId};
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Tensor, TensorData};
use tessera_backend::Rng;

/// The streams of a seed that this crate draws from. Parameters take `WEIGHTS`, `WEIGHTS + 1`, …
pub(crate) mod streams {
    /// The order in which an image's positions are generated.
    pub const ORDERS: u64 = 1;
    /// The draws of an image's tokens.
    pub const TOKENS: u64 = 2;
    /// The first parameter.
    pub const WEIGHTS: u64 = 1 << 32;
}

/// Makes the parameters of one model, one after the other.
pub(crate) struct Init {
    seed: u64,
    next: u64,
    device: Device,
}

#[derive(Clone, Copy)]
enum Law {
    Zeros,
    Normal(f32),
    /// Uniform in ± the bound.
    Uniform(f32),
}

impl Init {
    pub fn new(seed: u64, device: &Device) -> Self {
        Self {
            seed,
            next: streams::WEIGHTS,
            device: device.clone(),
        }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    fn param<const D: usize>(&mut self, shape: [usize; D], law: Law) -> Param<Tensor<D>> {
        let mut rng = Rng::new(self.seed, self.next);
        self.next += 1;
        let draw = move |device: &Device, require_grad: bool| {
            let tensor = match law {
                Law::Zeros => Tensor::zeros(shape, device),
                Law::Normal(std) => rng.normal_tensor(shape, device) * std,
                Law::Uniform(bound) => rng.uniform_tensor(shape, device) * (2.0 * bound) - bound,
            };
            if require_grad {
                tensor.detach().require_grad()
            } else {
                tensor
            }
        };
        Param::uninitialized(
            ParamId::new(),
            draw,
            self.device.clone(),
            true,
            shape.into(),
        )
    }

    /// `N(0, 0.02²)`: embeddings of classes and positions, mask token.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D]) -> Param<Tensor<D>> {
        self.param(shape, Law::Normal(0.02))
    }

    /// Xavier-uniform weight, zero bias.
    pub fn linear(&mut self, d_input: usize, d_output: usize) -> Linear {
        let bound = (6.0 / (d_input + d_output) as f32).sqrt();
        self.linear_of(d_input, d_output, Law::Uniform(bound))
    }

    /// Zero weight and bias: adaLN starts as the identity.
    pub fn zero_linear(&mut self, d_input: usize, d_output: usize) -> Linear {
        self.linear_of(d_input, d_output, Law::Zeros)
    }

    fn linear_of(&mut self, d_input: usize, d_output: usize, law: Law) -> Linear {
        let weight = self.param([d_input, d_output], law);
        let bias = Some(self.param([d_output], Law::Zeros));
        Linear { weight, bias }
    }

    /// `N(0, std²)`.
    pub fn embedding(&mut self, entries: usize, d_model: usize, std: f32) -> Embedding {
        Embedding {
            weight: self.param([entries, d_model], Law::Normal(std)),
        }
    }

    /// A constant of the checkpoint that is never trained.
    pub fn buffer(&self, values: &[f32]) -> Param<Tensor<1>> {
        let data = TensorData::from(values);
        let shape = [values.len()].into();
        let draw = move |device: &Device, _| Tensor::from_data(data, device);
        Param::uninitialized(ParamId::new(), draw, self.device.clone(), false, shape)
    }
}
