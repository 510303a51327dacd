//! Latents noised to random times, as the model is trained and calibrated on.

use crate::ddpm::{Ddpm, TRAIN_STEPS};
use crate::{Dit, Process, flow};
use burn::tensor::Tensor;
use tessera_backend::Rng;

/// Latents with noise, and the model's target.
#[cfg_attr(not(feature = "train"), allow(dead_code))] // the loss alone reads some fields
pub(crate) struct Noised {
    /// Without noise.
    pub x0: Tensor<4>,
    /// With noise.
    pub x: Tensor<4>,
    /// The noise or the velocity.
    pub target: Tensor<4>,
    /// The times that the model is given, one per image.
    pub times: Vec<f32>,
    /// The steps of DDPM's chain, one per image; none for a flow.
    pub steps: Vec<usize>,
}

impl Dit {
    /// Noises latents to random times, one per image, uniform over the process.
    ///
    /// # Shapes
    /// - x0: `[batch, in_channels, input_size, input_size]`
    pub(crate) fn noise(&self, x0: Tensor<4>, rng: &mut Rng) -> Noised {
        let ([batch, ..], device) = (x0.dims(), x0.device());
        let noise = rng.normal_tensor(x0.dims(), &device);
        match self.config.process {
            Process::Ddpm => {
                let steps: Vec<_> = (0..batch).map(|_| rng.below(TRAIN_STEPS)).collect();
                Noised {
                    x: Ddpm::new(TRAIN_STEPS).noised(x0.clone(), noise.clone(), &steps),
                    times: steps.iter().map(|&step| step as f32).collect(),
                    target: noise,
                    x0,
                    steps,
                }
            }
            Process::Flow => {
                // Stratified: one time in each of `batch` equal intervals, which lowers the variance of the loss.
                let offset = f64::from(rng.uniform());
                let times: Vec<f64> = rng
                    .permutation(batch)
                    .into_iter()
                    .map(|i| (i as f64 + offset) / batch as f64)
                    .collect();
                Noised {
                    x: flow::noised(x0.clone(), noise.clone(), &times),
                    times: times.iter().map(|&time| flow::model_time(time)).collect(),
                    target: noise - x0.clone(),
                    x0,
                    steps: Vec::new(),
                }
            }
        }
    }
}
