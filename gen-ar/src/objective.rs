//! The training objective: batches of tokens, and their loss.

use crate::mask::MaskPlan;
use crate::model::GenAr;
use burn::tensor::{Device, Int, Tensor};
use ndarray::{Array3, Array4, Axis};
use tessera_backend::{Rng, device_indices, streams};
use tessera_moe::calibration_batches;
use tessera_quantize::{LevelRule, Quantizer};
use tessera_train::{BoxError, LatentCache, Losses, Objective, Share, TrainConfig};

/// The generator's loss on cached latents, which are sampled from their posteriors and quantized again at every step,
/// or quantized by their distributions.
#[derive(Debug)]
pub struct TokenObjective<'a> {
    /// The posteriors of the data set.
    pub cache: &'a LatentCache,
    /// Turns latents into tokens.
    pub quantizer: &'a Quantizer,
    /// How the level of a latent is chosen.
    pub level: LevelRule,
    /// Whether an image is seen mirrored half of the time. The cache needs the latents of mirrored images.
    pub flip: bool,
    /// The device that the model is trained on.
    pub device: Device,
    /// The share of masked positions that the head is trained on in a step.
    pub head_subset: f32,
}

impl TokenObjective<'_> {
    fn upload(&self, indices: &Array3<u16>, device: &Device) -> Tensor<3, Int> {
        let values: Vec<i32> = indices.iter().map(|&index| index.into()).collect();
        device_indices(values, indices.dim().into(), device)
    }

    /// The model with the thresholds that its experts, if it has such, have on training data: for the averaged weights,
    /// when training ends.
    ///
    /// # Errors
    /// Latents or scores that are not finite.
    pub fn calibrated(&self, model: GenAr, training: &TrainConfig) -> Result<GenAr, BoxError> {
        if !model.config().moe.as_ref().is_some_and(|moe| moe.threshold) {
            return Ok(model);
        }
        let device = model.device();
        let batches = calibration_batches(self.cache.len(), training.batch_size);
        let batches = (0..).zip(&batches).map(|(number, chunk)| {
            let batch = self.batch(chunk, streams::THRESHOLD_TOKENS.of(training.seed, number));
            let (indices, labels) = batch?;
            Ok((self.upload(&indices, &device), labels))
        });
        let batches = batches.collect::<Result<Vec<_>, BoxError>>()?;
        Ok(model.calibrated(&batches, training.seed)?)
    }
}

/// Images `[channels, height, width]` as one batch.
fn stacked(images: &[Array3<f32>]) -> Result<Array4<f32>, ndarray::ShapeError> {
    let views: Vec<_> = images.iter().map(|image| image.view()).collect();
    ndarray::stack(Axis(0), &views)
}

impl Objective<GenAr> for TokenObjective<'_> {
    type Batch = (Array3<u16>, Vec<usize>);

    fn examples(&self) -> usize {
        self.cache.len()
    }

    fn batch(&self, indices: &[usize], mut rng: Rng) -> Result<Self::Batch, BoxError> {
        let labels = indices
            .iter()
            .map(|&i| self.cache.labels[i] as usize)
            .collect();
        // Nothing is drawn for what is not asked for, so that runs of before go on as they would have.
        let mut seen = |&i: &usize| (i, self.flip && rng.below(2) == 1);
        let images: Vec<(usize, bool)> = indices.iter().map(&mut seen).collect();
        let distribution = |&(i, flip): &(usize, bool)| {
            let std = match self.level {
                LevelRule::Nearest => None,
                LevelRule::Posterior => self.cache.posterior_std(i, flip),
            }?;
            Some((self.cache.posterior(i, flip).0.to_owned(), std))
        };
        let distributions: Option<(Vec<_>, Vec<_>)> = images.iter().map(distribution).collect();
        let tokens = match distributions {
            Some((means, stds)) => {
                let (means, stds) = (stacked(&means)?, stacked(&stds)?);
                self.quantizer.quantize_posterior(means.view(), stds.view())
            }
            None => {
                let latents: Vec<_> = images
                    .iter()
                    .map(|&(i, flip)| self.cache.sample(i, flip, &mut rng))
                    .collect();
                self.quantizer.quantize(stacked(&latents)?.view())
            }
        };
        Ok((tokens?, labels))
    }

    fn losses(
        &self,
        model: &GenAr,
        (indices, labels): Self::Batch,
        share: Share,
        mut rng: Rng,
    ) -> Result<Losses, BoxError> {
        let part = share.range(labels.len());
        let plan = MaskPlan::draw(model.config(), labels.len(), &mut rng)
            .with_head_subset(self.head_subset)
            .part(part.clone());
        if share.of > 1 {
            // Dropout is drawn by each for its own.
            rng = streams::RANK_DROPOUT.of(rng.next_u32().into(), share.index as u64);
        }
        let indices = indices.slice_axis(Axis(0), part.clone().into());
        let indices = self.upload(&indices.to_owned(), &self.device);
        Ok(model.loss(indices, &labels[part], &plan, &mut rng))
    }
}
