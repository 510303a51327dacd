//! The training loss: noise the latents, predict noise or velocity, compare.

use crate::Dit;
use crate::checkpoint::block_name;
use crate::ddpm::{Ddpm, TRAIN_STEPS};
use crate::noise::Noised;
use crate::patch::patchify;
use burn::tensor::Tensor;
use std::ops::Range;
use tessera_backend::Rng;
use tessera_moe::{Auxiliary, Mode, Moe, RouterTrace, thresholds_after};
use tessera_train::{Losses, Share};

impl Noised {
    /// Some of the images.
    fn part(self, images: Range<usize>) -> Self {
        let part = |x: Tensor<4>| x.narrow(0, images.start, images.len());
        if images.len() == self.times.len() {
            return self;
        }
        Self {
            x0: part(self.x0),
            x: part(self.x),
            target: part(self.target),
            times: self.times[images.clone()].to_vec(),
            steps: self.steps.get(images).unwrap_or_default().to_vec(),
        }
    }
}

impl Dit {
    /// The mean squared error of the predicted noise or velocity, reported as `mse`; with a learned sigma, plus the
    /// variational bound; with experts, plus their auxiliary losses.
    ///
    /// On an autodiff device this is a training step: labels are dropped and tokens race within the batch. Elsewhere
    /// the model runs as at inference. Only `share` of the batch is computed; random numbers are drawn as for the
    /// whole batch.
    ///
    /// # Shapes
    /// - latents: `[batch, in_channels, input_size, input_size]`
    /// - labels: one per image
    ///
    /// # Panics
    /// If the shapes are not the config's, or a label is not a class.
    pub fn loss(
        &self,
        latents: Tensor<4>,
        labels: &[usize],
        share: Share,
        rng: &mut Rng,
    ) -> Losses {
        let (config, training) = (&self.config, latents.device().is_autodiff());
        assert!(labels.iter().all(|&label| label < config.num_classes));
        let images = share.range(labels.len());
        let noised = self.noise(latents, rng).part(images.clone());
        let mut dropped = || training && rng.uniform() < config.class_dropout_prob;
        let labels: Vec<_> = labels
            .iter()
            .map(|&label| (!dropped()).then_some(label))
            .collect();
        let labels = &labels[images];
        let mut trace = match training {
            true => RouterTrace::new(Mode::Race),
            false => RouterTrace::off(),
        };
        let output = self.forward(noised.x.clone(), &noised.times, labels, &mut trace);
        let channels = config.in_channels;
        let prediction = output.clone().narrow(1, 0, channels);
        let error = prediction.clone() - noised.target.clone();
        let mse = (error.clone() * error).mean();
        let mut losses = Losses {
            parts: vec![("mse", mse.clone())],
            ..Losses::new(mse)
        };
        if config.learn_sigma {
            let variance = output.narrow(1, channels, channels);
            let chain = Ddpm::new(TRAIN_STEPS);
            let bound = chain
                .bound(noised.x0, noised.x, prediction, variance, &noised.steps)
                .mean();
            losses.parts.push(("bound", bound.clone()));
            losses.total = losses.total + bound;
        }
        if let Some(moe) = &config.moe {
            let target = patchify(noised.target, config.patch_size);
            let auxiliary = Auxiliary::of(moe, &trace.layers, Some(target));
            losses.parts.extend(auxiliary.parts);
            if let Some(total) = auxiliary.total {
                losses.total = losses.total + total;
            }
            losses.buffers = thresholds_after(self.experts(), &trace);
        }
        losses
    }

    /// The layers of experts, with the names of their blocks.
    fn experts(&self) -> impl Iterator<Item = (String, &Moe)> {
        let blocks = self.blocks.iter().enumerate();
        blocks.filter_map(|(i, block)| Some((block_name(i), block.moe.as_ref()?)))
    }
}
