//! A small module of every kind of parameter.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use tessera_backend::Rng;
use tessera_backend::nn::LayerNorm;
use tessera_weights::{Weight, Weights};

#[derive(Module, Debug)]
pub struct Toy {
    pub first: Linear,
    pub norm: LayerNorm,
    pub blocks: Vec<Linear>,
    pub token: Param<Tensor<3>>,
}

impl Toy {
    /// Seeded weights, on any device.
    pub fn new(device: &Device) -> Self {
        let empty = Self::empty(device);
        let mut weights = Weights::default();
        let mut rng = Rng::new(9, 0);
        for (name, weight) in Weights::of(&empty).iter() {
            let values = weight
                .values()
                .unwrap()
                .iter()
                .map(|_| 0.3 * rng.normal())
                .collect();
            weights.insert(name, Weight::new(weight.shape(), values));
        }
        weights.apply(empty).unwrap()
    }

    /// Weights as Burn initializes them: at their first use.
    pub fn empty(device: &Device) -> Self {
        Self {
            first: LinearConfig::new(3, 8).init(device),
            norm: LayerNorm::new(8, 1e-6, device),
            blocks: vec![LinearConfig::new(8, 2).init(device)],
            token: Initializer::Zeros.init([1, 1, 2], device),
        }
    }
}
