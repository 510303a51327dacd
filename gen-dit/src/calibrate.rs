//! Measuring the thresholds of the experts again, for weights that they were not learned with: an average of many steps.

use crate::{Dit, Error, Result};
use burn::tensor::Tensor;
use tessera_backend::Rng;
use tessera_moe::{Mode, Trace};

impl Dit {
    /// The model with thresholds at which its experts are as busy as the config says, on the average over the latents given
    /// and uniform times: the mean of what the K-th score is where batches race. Layer by layer, because what a layer sees
    /// depends on the routes of those before it.
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
        let mut sums = vec![(0.0_f64, 0_u32); self.blocks.len()];
        for (number, (latents, labels)) in batches.iter().enumerate() {
            let noised = self.noise(latents.clone(), &mut Rng::new(seed, number as u64));
            let labels: Vec<_> = labels.iter().copied().map(Some).collect();
            let mut trace = Trace::new(Mode::Race);
            self.forward(noised.x, &noised.times, &labels, &mut trace);
            for (sum, layer) in sums.iter_mut().zip(&trace.layers) {
                if let Some(kth) = layer.winners.kth() {
                    *sum = (sum.0 + f64::from(kth), sum.1 + 1);
                }
            }
        }
        for (block, (sum, count)) in self.blocks.iter_mut().zip(sums) {
            if count > 0 {
                let threshold = (sum / f64::from(count)) as f32;
                block.moe = block.moe.take().map(|moe| moe.with_threshold(threshold));
            }
        }
        Ok(self)
    }
}
