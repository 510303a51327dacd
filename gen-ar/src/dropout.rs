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
                let mask = mask(rng, x.shape().num_elements(), rate);
                let mask = device_values(mask, x.dims(), &x.device());
                x * mask
            }
            _ => x,
        }
    }
}

/// 0 for a share `rate` of the elements, and for the others the scale that keeps the mean. An element takes 16 random
/// bits, so the rate is rounded to a multiple of 2⁻¹⁶; the scale follows the rounded rate.
fn mask(rng: &mut Rng, elements: usize, rate: f32) -> Vec<f32> {
    const STEPS: u32 = 1 << 16;
    let dropped = ((rate * STEPS as f32) as u32).min(STEPS - 1);
    let scale = STEPS as f32 / (STEPS - dropped) as f32;
    let keep = |bits: u32| if bits < dropped { 0.0 } else { scale };
    let mut mask = Vec::with_capacity(elements + 1);
    while mask.len() < elements {
        let bits = rng.next_u32();
        mask.extend([keep(bits & 0xffff), keep(bits >> 16)]);
    }
    mask.truncate(elements);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_drops_its_share_and_keeps_the_mean() {
        let mask = mask(&mut Rng::new(3, 0), 100_001, 0.1);
        assert_eq!(mask.len(), 100_001);
        let dropped = mask.iter().filter(|&&m| m == 0.0).count() as f64 / 1e5;
        let mean = mask.iter().map(|&m| f64::from(m)).sum::<f64>() / 1e5;
        assert!((dropped - 0.1).abs() < 0.004, "{dropped}");
        assert!((mean - 1.0).abs() < 0.005, "{mean}");
    }
}
