//! The thresholds of the backbone's experts: measured while it trains, and measured again for averaged weights.

use crate::pass::Pass;
use crate::{Error, GenAr, MaskPlan, Result};
use burn::tensor::{Int, Tensor};
use tessera_backend::streams;
use tessera_moe::{Calibration, Moe};

impl GenAr {
    /// The experts of the backbone's blocks, the encoder's before the decoder's, with the names of the blocks.
    pub(crate) fn experts(&self) -> impl Iterator<Item = (String, &Moe)> {
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

    /// The model with thresholds at which its experts are as busy as the config says, on the average over the tokens given,
    /// masked as in training. An average of many steps' weights needs it, because the thresholds were learned with others.
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
        let mut calibration = Calibration::default();
        for (number, (indices, labels)) in batches.iter().enumerate() {
            let mut rng = streams::THRESHOLD_MASKS.of(seed, number as u64);
            let plan = MaskPlan::draw(&self.config, labels.len(), &mut rng);
            let mut pass = Pass::racing();
            self.masked_features(indices.clone(), labels, &plan, &mut pass);
            calibration.add(&pass.trace);
        }
        let blocks = self
            .encoder_blocks
            .iter_mut()
            .chain(&mut self.decoder_blocks);
        calibration.apply(blocks.map(|block| &mut block.moe));
        Ok(self)
    }
}
