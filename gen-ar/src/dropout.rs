//! Dropout with counter-based masks; turned off it costs nothing.

use crate::GenArConfig;
use burn::tensor::Tensor;
use tessera_backend::Rng;
use tessera_backend::device_values;

/// The dropout of one forward pass.
#[derive(Debug)]
pub struct Dropout<'a> {
    rng: Option<&'a mut Rng>,
    attn: f32,
    proj: f32,
}

impl Dropout<'static> {
    /// No dropout: evaluation and sampling.
    pub fn off() -> Self {
        Self {
            rng: None,
            attn: 0.0,
            proj: 0.0,
        }
    }
}

impl<'a> Dropout<'a> {
    /// The config's rates, with masks from `rng`.
    pub fn training(config: &GenArConfig, rng: &'a mut Rng) -> Self {
        Self {
            rng: Some(rng),
            attn: config.attn_dropout,
            proj: config.proj_dropout,
        }
    }

    /// Whether attention probabilities are dropped, and so must exist as a tensor.
    pub(crate) fn drops_attention(&self) -> bool {
        self.rng.is_some() && self.attn > 0.0
    }

    /// Dropout of attention probabilities; `x` of any shape.
    pub(crate) fn attn<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D> {
        self.apply(x, self.attn)
    }

    /// Dropout of projections and hidden features; `x` of any shape.
    pub(crate) fn proj<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D> {
        self.apply(x, self.proj)
    }

    fn apply<const D: usize>(&mut self, x: Tensor<D>, rate: f32) -> Tensor<D> {
        match &mut self.rng {
            Some(rng) if rate > 0.0 => {
                let mask = rng.dropout_mask(x.shape().num_elements(), rate);
                let mask = device_values(mask, x.dims(), &x.device());
                x * mask
            }
            _ => x,
        }
    }
}
