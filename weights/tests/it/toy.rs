//! A small module of every kind of parameter.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use tessera_backend::Rng;
use tessera_backend::init::ParamInit;
use tessera_backend::nn::{LayerNorm, Linear};
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

    /// Weights that are drawn at their first use.
    pub fn empty(device: &Device) -> Self {
        let mut init = ParamInit::new(9, device);
        Self {
            first: init.linear(3, 8),
            norm: LayerNorm::new(8, 1e-6, device),
            blocks: vec![init.linear(8, 2)],
            token: init.zeros([1, 1, 2]),
        }
    }
}
