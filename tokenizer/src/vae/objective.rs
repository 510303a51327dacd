//! What the training loop asks of the VAE: batches of images and their loss.

use super::loss::{VaeLossConfig, losses};
use super::model::KlVae;
use burn::tensor::{Device, Tensor};
use ndarray::{Array4, Axis};
use tessera_backend::{Rng, upload};
use tessera_pictures::dataset::{self, Dataset};
use tessera_train::{BoxError, Losses, Objective, Share};

/// Whether half of the images are mirrored left to right in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flip {
    /// None are.
    Never,
    /// Every image half of the time.
    Half,
}

/// The VAE's loss on a data set.
pub struct ReconstructionObjective<'a> {
    /// The images.
    pub data: &'a dyn Dataset,
    /// Where the model is trained.
    pub device: Device,
    /// What the loss is made of.
    pub loss: VaeLossConfig,
    /// Whether images are mirrored.
    pub flip: Flip,
}

impl Objective<KlVae> for ReconstructionObjective<'_> {
    type Batch = Array4<f32>;

    fn examples(&self) -> usize {
        self.data.len()
    }

    fn batch(&self, indices: &[usize], mut rng: Rng) -> Result<Array4<f32>, BoxError> {
        let mut images = dataset::batch(self.data, indices)?;
        if self.flip == Flip::Half {
            for mut image in images.outer_iter_mut().filter(|_| rng.uniform() < 0.5) {
                let mut mirrored = image.to_owned();
                mirrored.invert_axis(Axis(2));
                image.assign(&mirrored);
            }
        }
        Ok(images)
    }

    fn losses(
        &self,
        model: &KlVae,
        images: Array4<f32>,
        share: Share,
        mut rng: Rng,
    ) -> Result<Losses, BoxError> {
        let (batch, _, height, width) = images.dim();
        let part = share.range(batch);
        let factor = model.config().downsampling();
        let noise: Tensor<4> = rng.normal_tensor(
            [
                batch,
                model.config().z_channels,
                height / factor,
                width / factor,
            ],
            &self.device,
        );
        let share = |x: Tensor<4>| x.narrow(0, part.start, part.len());
        let images = upload(images, &self.device);
        Ok(losses(model, share(images), share(noise), &self.loss))
    }
}
