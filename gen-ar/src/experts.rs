//! The thresholds of the backbone's experts: measured while it trains, and measured again for averaged weights.

use crate::pass::Pass;
use crate::{Error, GenAr, MaskPlan, Result};
use burn::tensor::{Int, Tensor};
use tessera_backend::Rng;
use tessera_moe::{Moe, Trace};

impl GenAr {
    /// The experts of the backbone's blocks, the encoder's before the decoder's, with the names of the blocks.
    fn experts(&self) -> impl Iterator<Item = (String, &Moe)> {
        let towers = [
            ("encoder_blocks", &self.encoder_blocks),
            ("decoder_blocks", &self.decoder_blocks),
        ];
        towers.into_iter().flat_map(|(name, blocks)| {
            let blocks = blocks.iter().enumerate();
            blocks.filter_map(move |(i, block)| Some((format!("{name}.{i}"), block.moe.as_ref()?)))
        })
    }

    /// Numbers in the state dict that are measured instead of trained: a threshold per layer with experts.
    pub(crate) fn num_measured(&self) -> usize {
        self.experts().count()
    }

    /// The thresholds of the layers after a step, by the names of the parameters.
    pub(crate) fn thresholds_after(&self, trace: &Trace) -> Vec<(String, f32)> {
        let layers = self.experts().zip(&trace.layers);
        layers
            .map(|((block, moe), layer)| {
                let name = format!("{block}.moe.router.threshold");
                (name, moe.next_threshold(layer.winners.kth()))
            })
            .collect()
    }

    /// The model with thresholds at which its experts are as busy as the config says, on the average over the tokens given,
    /// masked as in training: the mean of what the K-th score is where batches race. An average of many steps' weights needs
    /// it, because the thresholds were learned with others.
    ///
    /// # Shapes
    /// - each of batches: `[batch, seq, dims]`, with a label an image
    ///
    /// # Errors
    /// [`Error::Dense`] if there are no experts.
    ///
    /// # Panics
    /// As [`loss`](Self::loss).
    pub fn calibrated(
        mut self,
        batches: &[(Tensor<3, Int>, Vec<usize>)],
        seed: u64,
    ) -> Result<Self> {
        if self.config.moe.is_none() {
            return Err(Error::Dense);
        }
        let mut sums = vec![(0.0_f64, 0_u32); self.num_measured()];
        for (number, (indices, labels)) in batches.iter().enumerate() {
            let mut rng = Rng::new(seed, number as u64);
            let plan = MaskPlan::draw(&self.config, labels.len(), &mut rng);
            let mut pass = Pass::racing();
            self.masked_features(indices.clone(), labels, &plan, &mut pass);
            for (sum, layer) in sums.iter_mut().zip(&pass.trace.layers) {
                if let Some(kth) = layer.winners.kth() {
                    *sum = (sum.0 + f64::from(kth), sum.1 + 1);
                }
            }
        }
        let blocks = self
            .encoder_blocks
            .iter_mut()
            .chain(&mut self.decoder_blocks);
        for (block, (sum, count)) in blocks.zip(sums) {
            if count > 0 {
                let threshold = (sum / f64::from(count)) as f32;
                block.moe = block.moe.take().map(|moe| moe.with_threshold(threshold));
            }
        }
        Ok(self)
    }
}
