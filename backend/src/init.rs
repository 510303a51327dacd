//! Random weights: one stream of the seed per parameter, drawn when the parameter is first used.

use crate::host::device_values;
use crate::nn::{Conv2d, Embedding, Linear};
use crate::streams;
use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor};

/// Creates the parameters of one model, in order.
#[derive(Debug)]
pub struct ParamInit {
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

/// A parameter to be trained, made when it is first used.
fn lazy<const D: usize>(
    shape: [usize; D],
    device: &Device,
    mut make: impl FnMut(&Device) -> Tensor<D> + Send + Sync + 'static,
) -> Param<Tensor<D>> {
    let make = move |device: &Device, require_grad: bool| {
        let tensor = make(device);
        if require_grad {
            tensor.detach().require_grad()
        } else {
            tensor
        }
    };
    Param::uninitialized(ParamId::new(), make, device.clone(), true, shape.into())
}

/// The same value everywhere.
pub(crate) fn constant<const D: usize>(
    value: f32,
    shape: [usize; D],
    device: &Device,
) -> Param<Tensor<D>> {
    lazy(shape, device, move |device| {
        Tensor::full(shape, value, device)
    })
}

impl ParamInit {
    /// Draws from `seed`.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self {
            seed,
            next: 0,
            device: device.clone(),
        }
    }

    /// The device of the parameters.
    pub fn device(&self) -> &Device {
        &self.device
    }

    fn param<const D: usize>(&mut self, shape: [usize; D], law: Law) -> Param<Tensor<D>> {
        let mut rng = streams::GENERATOR_WEIGHTS.of(self.seed, self.next);
        self.next += 1;
        lazy(shape, &self.device, move |device| match law {
            Law::Zeros => Tensor::zeros(shape, device),
            Law::Normal(std) => rng.normal_tensor(shape, device) * std,
            Law::Uniform(bound) => rng.uniform_tensor(shape, device) * (2.0 * bound) - bound,
        })
    }

    /// `N(0, 0.02²)`, for embeddings of classes and positions.
    ///
    /// # Shapes
    /// - output: `shape`
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

    /// Xavier-uniform weight, as for the linear map of one window's values, and zero bias.
    pub fn conv2d(
        &mut self,
        [from, to]: [usize; 2],
        [height, width]: [usize; 2],
        stride: usize,
    ) -> Conv2d {
        let bound = (6.0 / (from * height * width + to) as f32).sqrt();
        let weight = self.param([to, from, height, width], Law::Uniform(bound));
        let bias = Some(self.param([to], Law::Zeros));
        Conv2d {
            weight,
            bias,
            stride: [stride; 2],
        }
    }

    /// `N(0, std²)`.
    pub fn embedding(&mut self, entries: usize, d_model: usize, std: f32) -> Embedding {
        Embedding {
            weight: self.param([entries, d_model], Law::Normal(std)),
        }
    }

    /// Xavier-uniform in each of `count` maps, as one tensor `[count, in, out]`.
    pub fn linears(&mut self, count: usize, d_input: usize, d_output: usize) -> Param<Tensor<3>> {
        let bound = (6.0 / (d_input + d_output) as f32).sqrt();
        self.param([count, d_input, d_output], Law::Uniform(bound))
    }

    /// Uniform in ± `bound`.
    ///
    /// # Shapes
    /// - output: `shape`
    pub fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f32) -> Param<Tensor<D>> {
        self.param(shape, Law::Uniform(bound))
    }

    /// Zeros, to be trained.
    ///
    /// # Shapes
    /// - output: `shape`
    pub fn zeros<const D: usize>(&mut self, shape: [usize; D]) -> Param<Tensor<D>> {
        self.param(shape, Law::Zeros)
    }

    /// `N(0, std²)` weight and zero bias.
    pub fn normal_linear(&mut self, d_input: usize, d_output: usize, std: f32) -> Linear {
        self.linear_of(d_input, d_output, Law::Normal(std))
    }

    /// A constant of the checkpoint, without a gradient.
    ///
    /// # Shapes
    /// - output: `shape`
    ///
    /// # Panics
    /// If `values` do not fill `shape`.
    pub fn buffer<const D: usize>(&self, values: &[f32], shape: [usize; D]) -> Param<Tensor<D>> {
        let values = values.to_vec();
        let draw = move |device: &Device, _| device_values(values, shape, device);
        Param::uninitialized(
            ParamId::new(),
            draw,
            self.device.clone(),
            false,
            shape.into(),
        )
    }
}
