//! Measuring the thresholds of the experts again, for weights that they were not learned with: an average of many steps.

use crate::{Dit, Error, Result};
use burn::tensor::Tensor;
use tessera_backend::streams;
use tessera_moe::{Calibration, Mode, Trace};

impl Dit {
    /// The model with thresholds at which its experts are as busy as the config says, on the average over the latents given
    /// and uniform times.
    ///
    /// # Shapes
    /// - each of batches: `[batch, in_channels, input_size, input_size]`, with a label an image
    ///
    /// # Errors
    /// [`Error::Dense`] if there are no experts.
    pub fn calibrated(mut self, batches: &[(Tensor<4>, Vec<usize>)], seed: u64) -> Result<Self> {
        if self.config.moe.is_none() {
            return Err(Error::Dense);
        }
        let mut calibration = Calibration::default();
        for (number, (latents, labels)) in batches.iter().enumerate() {
            let noised = self.noise(
                latents.clone(),
                &mut streams::THRESHOLD_NOISE.of(seed, number as u64),
            );
            let labels: Vec<_> = labels.iter().copied().map(Some).collect();
            let mut trace = Trace::new(Mode::Race);
            self.forward(noised.x, &noised.times, &labels, &mut trace);
            calibration.add(&trace);
        }
        calibration.apply(self.blocks.iter_mut().map(|block| &mut block.moe));
        Ok(self)
    }
}
