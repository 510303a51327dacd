//! Dropout with counter-based masks; turned off it costs nothing.

use crate::GenArConfig;
use burn::tensor::{Device, Tensor};
use tessera_backend::Rng;
use tessera_backend::device_values;
use tessera_backend::ops;

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

    /// Whether attention probabilities are dropped.
    pub(crate) fn drops_attention(&self) -> bool {
        self.rng.is_some() && self.attn > 0.0
    }

    /// What attention probabilities of this shape are multiplied by.
    ///
    /// # Shapes
    /// - output: `shape`
    pub(crate) fn attn<const D: usize>(&mut self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let rate = self.attn;
        let mask = self.mask(shape, rate, device);
        mask.unwrap_or_else(|| Tensor::ones(shape, device))
    }

    /// Dropout of projections and hidden features; `x` of any shape.
    pub(crate) fn proj<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D> {
        let rate = self.proj;
        match self.mask(x.dims(), rate, &x.device()) {
            Some(keep) => ops::dropped(x, keep),
            None => x,
        }
    }

    fn mask<const D: usize>(
        &mut self,
        shape: [usize; D],
        rate: f32,
        device: &Device,
    ) -> Option<Tensor<D>> {
        let rng = self.rng.as_mut().filter(|_| rate > 0.0)?;
        let mask = rng.dropout_mask(shape.iter().product(), rate);
        Some(device_values(mask, shape, device))
    }
}
