//! One training step: noise latents, ask the model, and compare.

use crate::checkpoint::block_name;
use crate::ddpm::{Ddpm, TRAIN_STEPS};
use crate::patch::patchify;
use crate::{Dit, Process, flow};
use burn::tensor::Tensor;
use std::ops::Range;
use tessera_backend::Rng;
use tessera_moe::{Auxiliary, Mode, Moe, Trace, thresholds_after};
use tessera_train::{Losses, Share};

/// Latents with noise, and what the model should say of them.
pub(crate) struct Noised {
    pub x0: Tensor<4>,
    pub x: Tensor<4>,
    /// Noise or velocity.
    pub target: Tensor<4>,
    /// What the model is told.
    pub times: Vec<f32>,
    /// The step of DDPM's chain.
    steps: Vec<usize>,
}

impl Noised {
    /// Some of the images alone.
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
    /// Noises latents at random times, uniform over the process, an image each.
    pub(crate) fn noise(&self, x0: Tensor<4>, rng: &mut Rng) -> Noised {
        let ([batch, ..], device) = (x0.dims(), x0.device());
        let noise = rng.normal_tensor(x0.dims(), &device);
        match self.config.process {
            Process::Ddpm => {
                let steps: Vec<_> = (0..batch).map(|_| rng.below(TRAIN_STEPS)).collect();
                Noised {
                    x: Ddpm::new(TRAIN_STEPS).noised(x0.clone(), noise.clone(), &steps),
                    times: steps.iter().map(|&step| step as f32).collect(),
                    target: noise,
                    x0,
                    steps,
                }
            }
            Process::Flow => {
                // A time in each of as many equal parts as there are images: uniform, with less variance of the loss.
                let offset = f64::from(rng.uniform());
                let times: Vec<f64> = rng
                    .permutation(batch)
                    .into_iter()
                    .map(|i| (i as f64 + offset) / batch as f64)
                    .collect();
                Noised {
                    x: flow::noised(x0.clone(), noise.clone(), &times),
                    times: times.iter().map(|&time| flow::told(time)).collect(),
                    target: noise - x0.clone(),
                    x0,
                    steps: Vec::new(),
                }
            }
        }
    }

    /// The mean squared error of what the model says, with a learned sigma the variational bound, and, where the experts race,
    /// what keeps them apart and even. `mse` is a part on its own. On an autodiff device labels are dropped and experts race;
    /// elsewhere the model is as at inference. Of a batch only a share is looked at; what is random is drawn as for all of it.
    ///
    /// # Shapes
    /// - latents: `[batch, in_channels, input_size, input_size]`
    /// - labels: one an image
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
            true => Trace::new(Mode::Race),
            false => Trace::off(),
        };
        let said = self.forward(noised.x.clone(), &noised.times, labels, &mut trace);
        let channels = config.in_channels;
        let guess = said.clone().narrow(1, 0, channels);
        let error = guess.clone() - noised.target.clone();
        let mse = (error.clone() * error).mean();
        let mut losses = Losses {
            parts: vec![("mse", mse.clone())],
            ..Losses::new(mse)
        };
        if config.learn_sigma {
            let variance = said.narrow(1, channels, channels);
            let chain = Ddpm::new(TRAIN_STEPS);
            let bound = chain
                .bound(noised.x0, noised.x, guess, variance, &noised.steps)
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
            losses.measured = thresholds_after(self.experts(), &trace);
        }
        losses
    }

    /// The layers with experts and the names of their blocks.
    fn experts(&self) -> impl Iterator<Item = (String, &Moe)> {
        let blocks = self.blocks.iter().enumerate();
        blocks.filter_map(|(i, block)| Some((block_name(i), block.moe.as_ref()?)))
    }
}
