//! The exponential moving average of a model's weights, which sampling uses.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use std::collections::BTreeMap;
use tessera_backend::ops;
use tessera_weights::{NamePath, flat_tensors, track_names};

/// A slowly following copy of a model, outside autodiff.
#[derive(Debug, Clone)]
pub struct Ema<M> {
    /// The averaged model.
    pub module: M,
    /// What of the average a late step keeps, in `0..1`.
    pub decay: f64,
}

impl<M: Module> Ema<M> {
    /// Starts at the model's own weights.
    pub fn new(model: &M, decay: f64) -> Self {
        Self {
            module: model.valid(),
            decay,
        }
    }

    /// The decay of a step, counted from 0: `min(decay, (1 + step) / (10 + step))`, so that the random weights
    /// of the beginning are soon forgotten.
    pub fn decay_at(&self, step: u64) -> f64 {
        self.decay.min((1.0 + step as f64) / (10.0 + step as f64))
    }

    /// `ema += (1 - decay) (model - ema)` after the step counted `step` from 0.
    pub fn update(self, model: &M, step: u64) -> Self {
        struct Follow {
            path: NamePath,
            model: BTreeMap<String, Tensor<1>>,
            share: f64,
        }
        impl ModuleMapper for Follow {
            track_names!();
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let model = self
                    .model
                    .remove(&self.path.name())
                    .expect("the average has the parameters of its model");
                param.map(|average| {
                    let model = model.reshape(average.dims());
                    ops::blend(average, model, self.share)
                })
            }
        }
        let mut follow = Follow {
            path: NamePath::default(),
            model: flat_tensors(model),
            share: 1.0 - self.decay_at(step),
        };
        Self {
            module: self.module.map(&mut follow),
            decay: self.decay,
        }
    }
}
