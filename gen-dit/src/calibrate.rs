//! Calibration of the experts' thresholds, for weights that they were not updated with: an average of many steps.

use crate::{Dit, Error, Result};
use burn::tensor::Tensor;
use tessera_backend::streams;
use tessera_moe::{Calibration, Mode, RouterTrace};

impl Dit {
    /// Sets the thresholds so that, on average over the given latents and uniform times, a token has as many experts
    /// as the config says.
    ///
    /// # Shapes
    /// - each of batches: `[batch, in_channels, input_size, input_size]`, and a label per image
    ///
    /// # Errors
    /// [`Error::Dense`] if there are no experts.
    pub fn calibrated(mut self, batches: &[(Tensor<4>, Vec<usize>)], seed: u64) -> Result<Self> {
        if self.config.moe.is_none() {
            return Err(Error::Dense);
        }
        let passes = batches.iter().zip(0..).map(|((latents, labels), number)| {
            let mut rng = streams::THRESHOLD_NOISE.of(seed, number);
            let noised = self.noise(latents.clone(), &mut rng);
            let labels: Vec<_> = labels.iter().copied().map(Some).collect();
            let mut trace = RouterTrace::new(Mode::Race);
            self.forward(noised.x, &noised.times, &labels, &mut trace);
            trace
        });
        let calibration: Calibration = passes.collect();
        calibration.apply(self.blocks.iter_mut().map(|block| &mut block.moe));
        Ok(self)
    }
}
