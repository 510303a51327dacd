//! The thresholds of the backbone's experts: updated by training (`loss.rs`), and calibrated for averaged weights.

use crate::context::ForwardContext;
use crate::mask::MaskPlan;
use crate::{Error, GenAr, Result};
use burn::tensor::{Int, Tensor};
use tessera_backend::streams;
use tessera_moe::{Calibration, Moe};

impl GenAr {
    /// The layers of experts, the encoder's before the decoder's, with the names of their blocks.
    pub(crate) fn experts(&self) -> impl Iterator<Item = (String, &Moe)> {
        let stacks = [
            ("encoder_blocks", &self.encoder_blocks),
            ("decoder_blocks", &self.decoder_blocks),
        ];
        stacks.into_iter().flat_map(|(name, blocks)| {
            let blocks = blocks.iter().enumerate();
            blocks.filter_map(move |(i, block)| Some((format!("{name}.{i}"), block.moe.as_ref()?)))
        })
    }

    /// Sets the thresholds so that, on average over the given tokens, masked as in training, a token has as many
    /// experts as the config says. Averaged weights need this: their thresholds were updated together with other
    /// weights.
    ///
    /// # Shapes
    /// - each of batches: `[batch, seq, dims]`, and a label per image
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
        let passes = batches.iter().zip(0..).map(|((indices, labels), number)| {
            let mut rng = streams::THRESHOLD_MASKS.of(seed, number);
            let plan = MaskPlan::draw(&self.config, labels.len(), &mut rng);
            let mut context = ForwardContext::racing();
            self.masked_features(indices.clone(), labels, &plan, &mut context);
            context.trace
        });
        let calibration: Calibration = passes.collect();
        let encoder = self.encoder_blocks.iter_mut();
        let blocks = encoder.chain(&mut self.decoder_blocks);
        calibration.apply(blocks.map(|block| &mut block.moe));
        Ok(self)
    }
}
