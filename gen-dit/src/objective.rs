//! The training objective: batches of latents, and their loss.

use crate::error::Result;
use crate::model::Dit;
use burn::tensor::Device;
use ndarray::{Array4, Axis};
use tessera_backend::{Rng, host_values, streams, upload};
use tessera_moe::calibration_batches;
use tessera_train::{BoxError, Losses, Objective, Share};

/// The transformer's loss on latents in memory.
#[derive(Debug)]
pub struct LatentObjective {
    /// Normalized latents of all images, `[images, channels, height, width]`.
    pub values: Array4<f32>,
    /// The latents of the mirrored images, each used half of the time.
    pub mirrored: Option<Array4<f32>>,
    /// The class of every image.
    pub labels: Vec<usize>,
    /// Indices of the training images; the others are held out.
    pub train: Vec<usize>,
    /// The device that the model is trained on.
    pub device: Device,
}

impl LatentObjective {
    /// The images of training examples.
    fn images(&self, examples: &[usize]) -> Vec<usize> {
        examples.iter().map(|&i| self.train[i]).collect()
    }

    /// The latents and classes of some images, without mirroring.
    pub fn of(&self, indices: &[usize]) -> (Array4<f32>, Vec<usize>) {
        let labels = indices.iter().map(|&i| self.labels[i]).collect();
        (self.values.select(Axis(0), indices), labels)
    }

    /// The model with the thresholds that its experts have on training data, and without what only training needs: for
    /// the averaged weights, when training ends.
    ///
    /// # Errors
    /// Scores that are not finite.
    pub fn calibrated(&self, model: Dit, batch_size: usize, seed: u64) -> Result<Dit> {
        if !model.config().moe.as_ref().is_some_and(|moe| moe.threshold) {
            return Ok(model.without_targets());
        }
        let device = model.device();
        let batches = calibration_batches(self.train.len(), batch_size).into_iter();
        let batches = batches.map(|chunk| {
            let (latents, labels) = self.of(&self.images(&chunk));
            (upload(latents, &device), labels)
        });
        let batches: Vec<_> = batches.collect();
        Ok(model.calibrated(&batches, seed)?.without_targets())
    }
}

impl LatentObjective {
    /// The mean squared error of a model, as at inference, on some images. The same noise every time.
    ///
    /// # Panics
    /// Without images.
    pub fn validation_mse(&self, model: &Dit, images: &[usize]) -> f64 {
        const BATCH: usize = 64;
        let device = model.device();
        let mut sum = 0.0;
        for (number, chunk) in (0..).zip(images.chunks(BATCH)) {
            let (latents, labels) = self.of(chunk);
            let mut rng = streams::VALIDATION.of(0, number);
            let losses = model.loss(upload(latents, &device), &labels, Share::WHOLE, &mut rng);
            let mse = losses.parts.into_iter().find(|part| part.0 == "mse");
            let (_, mse) = mse.expect("the loss has its mean squared error as a part");
            sum += f64::from(host_values(mse)[0]) * chunk.len() as f64;
        }
        assert!(!images.is_empty(), "no images to validate on");
        sum / images.len() as f64
    }
}

impl Objective<Dit> for LatentObjective {
    type Batch = (Array4<f32>, Vec<usize>);

    fn examples(&self) -> usize {
        self.train.len()
    }

    fn batch(&self, indices: &[usize], mut rng: Rng) -> Result<Self::Batch, BoxError> {
        let indices = self.images(indices);
        let (mut latents, labels) = self.of(&indices);
        if let Some(mirrored) = &self.mirrored {
            for (mut image, &i) in latents.outer_iter_mut().zip(&indices) {
                if rng.uniform() < 0.5 {
                    image.assign(&mirrored.index_axis(Axis(0), i));
                }
            }
        }
        Ok((latents, labels))
    }

    fn losses(
        &self,
        model: &Dit,
        (latents, labels): Self::Batch,
        share: Share,
        mut rng: Rng,
    ) -> Result<Losses, BoxError> {
        let latents = upload(latents, &self.device);
        Ok(model.loss(latents, &labels, share, &mut rng))
    }
}
