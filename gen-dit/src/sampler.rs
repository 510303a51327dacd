//! Drawing latents, each image from its own seed.

use crate::ddpm::{Ddpm, TRAIN_STEPS};
use crate::{Dit, Error, Process, Result, flow};
use burn::module::Module;
use burn::tensor::Tensor;
use ndarray::Array4;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use tessera_backend::{Rng, device_values, download, host_values, streams};
use tessera_moe::{Mode, Trace};

/// One image to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRequest {
    /// Its class; `None`: any.
    pub class: Option<usize>,
    /// All of its randomness.
    pub seed: u64,
}

/// How images are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleConfig {
    /// Evaluations of the model from noise to latents.
    pub steps: usize,
    /// Classifier-free guidance: how much further from the prediction without the class than the prediction with it; 1 is
    /// none.
    pub cfg_scale: f32,
}

impl SampleConfig {
    /// Refuses what cannot be drawn by.
    ///
    /// # Errors
    /// [`Error::Sampling`] names the option.
    pub fn validate(&self) -> Result<()> {
        if !(1..=TRAIN_STEPS).contains(&self.steps) {
            return Err(Error::Sampling {
                option: "steps",
                expected: format!("in 1..={TRAIN_STEPS}"),
                found: self.steps.to_string(),
            });
        }
        if !self.cfg_scale.is_finite() || self.cfg_scale < 0.0 {
            return Err(Error::Sampling {
                option: "cfg_scale",
                expected: "0 or more".into(),
                found: self.cfg_scale.to_string(),
            });
        }
        Ok(())
    }
}

/// A denoising step that has been done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenoisingStep {
    /// Its number, from 1.
    pub step: usize,
    /// Number of steps in total.
    pub steps: usize,
    /// The time that the model was given, in 0..1000.
    pub time: f32,
}

/// Called after each step; `Break` cancels.
pub type DenoisingProgress<'a> = dyn FnMut(DenoisingStep) -> ControlFlow<()> + 'a;

/// [`DenoisingProgress`] with the routes of the step: of the images in their order and, with guidance, once more of the same
/// images without their class.
pub type TracedProgress<'a> = dyn FnMut(DenoisingStep, &Trace) -> ControlFlow<()> + 'a;

impl Dit {
    /// Draws latents. Image i depends on its own request alone, not on the others.
    ///
    /// Experts with a threshold are routed on the device: a step reads back one number per image, which tells whether its
    /// latents are finite.
    ///
    /// # Shapes
    /// - output: `[images, in_channels, input_size, input_size]`
    ///
    /// # Errors
    /// An option out of range, a class that does not exist, latents that are not finite, cancellation.
    pub fn generate(
        &self,
        requests: &[ImageRequest],
        sampling: &SampleConfig,
        progress: &mut DenoisingProgress<'_>,
    ) -> Result<Array4<f32>> {
        self.sample(requests, sampling, Trace::off, &mut |step, _| {
            progress(step)
        })
    }

    /// [`generate`](Self::generate) that also reports the routes of every step. The images are the same, bit for bit; every
    /// layer of every step reads its scores back to the host.
    ///
    /// # Shapes
    /// - output: `[images, in_channels, input_size, input_size]`
    ///
    /// # Errors
    /// As `generate`.
    pub fn generate_traced(
        &self,
        requests: &[ImageRequest],
        sampling: &SampleConfig,
        progress: &mut TracedProgress<'_>,
    ) -> Result<Array4<f32>> {
        let trace = || Trace::new(Mode::Alone);
        self.sample(requests, sampling, trace, progress)
    }

    /// Generates with a fresh trace for every step.
    fn sample(
        &self,
        requests: &[ImageRequest],
        sampling: &SampleConfig,
        new_trace: fn() -> Trace,
        progress: &mut TracedProgress<'_>,
    ) -> Result<Array4<f32>> {
        let mut denoising = self.denoising(requests, sampling)?;
        let mut trace = new_trace();
        while let Some(done) = denoising.advance(&mut trace)? {
            let DenoisingStep { step, steps, .. } = done;
            if progress(done, &trace).is_break() && step < steps {
                return Err(Error::Cancelled { step, steps });
            }
            trace = new_trace();
        }
        Ok(denoising.latents())
    }

    /// [`generate`](Self::generate) step by step: a caller that stops asking cancels.
    ///
    /// # Errors
    /// An option out of range, a class that does not exist.
    pub fn denoising(
        &self,
        requests: &[ImageRequest],
        sampling: &SampleConfig,
    ) -> Result<Denoising> {
        sampling.validate()?;
        self.check_classes(requests)?;
        // On an autodiff device every step would be recorded; `valid` takes the parameters off it.
        let model = self.valid();
        let mut noise: Vec<_> = requests
            .iter()
            .map(|r| streams::PICTURE_NOISE.of(r.seed))
            .collect();
        Ok(Denoising {
            x: model.draw(&mut noise),
            model,
            requests: requests.to_vec(),
            sampling: sampling.clone(),
            chain: Ddpm::new(sampling.steps),
            noise,
            step: 0,
        })
    }

    /// What the experts do with given latents, `time` in 0..1000 having noised them, at inference.
    ///
    /// # Shapes
    /// - latents: `[batch, in_channels, input_size, input_size]`
    ///
    /// # Errors
    /// [`Error::Dense`] if there are no experts.
    pub fn route(
        &self,
        latents: Tensor<4>,
        labels: &[Option<usize>],
        time: f32,
        seed: u64,
    ) -> Result<Trace> {
        if self.config.moe.is_none() {
            return Err(Error::Dense);
        }
        let [batch, ..] = latents.dims();
        let mut noise: Vec<_> = (0..batch as u64)
            .map(|i| streams::PICTURE_NOISE.of(seed + i))
            .collect();
        let noise = self.draw(&mut noise);
        let x = match self.config.process {
            Process::Ddpm => {
                let steps = vec![(time as usize).min(TRAIN_STEPS - 1); batch];
                Ddpm::new(TRAIN_STEPS).noised(latents, noise, &steps)
            }
            Process::Flow => {
                let time = f64::from(time) / TRAIN_STEPS as f64;
                flow::noised(latents, noise, &vec![time; batch])
            }
        };
        let mut trace = Trace::new(Mode::Alone);
        self.forward(x, &vec![time; batch], labels, &mut trace);
        Ok(trace)
    }

    fn check_classes(&self, requests: &[ImageRequest]) -> Result<()> {
        let num_classes = self.config.num_classes;
        for (image, request) in requests.iter().enumerate() {
            if let Some(found) = request.class.filter(|&class| class >= num_classes) {
                return Err(Error::UnknownClass {
                    image,
                    found,
                    num_classes,
                });
            }
        }
        Ok(())
    }

    /// Fresh noise of every image from its own stream.
    fn draw(&self, streams: &mut [Rng]) -> Tensor<4> {
        let (channels, side) = (self.config.in_channels, self.config.input_size);
        let each = channels * side * side;
        let values: Vec<f32> = streams
            .iter_mut()
            .flat_map(|rng| (0..each).map(|_| rng.normal()).collect::<Vec<_>>())
            .collect();
        let shape = [streams.len(), channels, side, side];
        device_values(values, shape, &self.device())
    }

    /// What the model says, guided, and its variance if it says one; both branches in one batch.
    fn guided(
        &self,
        x: Tensor<4>,
        time: f32,
        requests: &[ImageRequest],
        sampling: &SampleConfig,
        trace: &mut Trace,
    ) -> (Tensor<4>, Option<Tensor<4>>) {
        let (batch, channels) = (requests.len(), self.config.in_channels);
        let guided = sampling.cfg_scale != 1.0;
        let classes = requests.iter().map(|request| request.class);
        let mut labels: Vec<_> = classes.collect();
        let mut input = x;
        if guided {
            labels.resize(2 * batch, None);
            input = Tensor::cat(vec![input.clone(), input], 0);
        }
        let said = self.forward(input, &vec![time; labels.len()], &labels, trace);
        let with = said.clone().narrow(0, 0, batch);
        let variance = self
            .config
            .learn_sigma
            .then(|| with.clone().narrow(1, channels, channels));
        let with = with.narrow(1, 0, channels);
        if !guided {
            return (with, variance);
        }
        let without = said.narrow(0, batch, batch).narrow(1, 0, channels);
        let guided = without.clone() + (with - without) * sampling.cfg_scale;
        (guided, variance)
    }
}

/// Images on their way from noise to latents; made by [`Dit::denoising`].
#[derive(Debug)]
pub struct Denoising {
    model: Dit,
    requests: Vec<ImageRequest>,
    sampling: SampleConfig,
    chain: Ddpm,
    noise: Vec<Rng>,
    x: Tensor<4>,
    step: usize,
}

impl Denoising {
    /// Takes the next step, or none after the last; the trace, if it collects, gets the routes of the step.
    ///
    /// # Errors
    /// Latents that are not finite.
    pub fn advance(&mut self, trace: &mut Trace) -> Result<Option<DenoisingStep>> {
        let steps = self.sampling.steps;
        if self.step == steps || self.requests.is_empty() {
            return Ok(None);
        }
        self.step += 1;
        let (step, at) = (self.step, steps - self.step);
        let (model, x) = (&self.model, self.x.clone());
        let time = match model.config.process {
            Process::Ddpm => self.chain.time(at) as f32,
            Process::Flow => flow::told(1.0 - (step - 1) as f64 / steps as f64),
        };
        let (guided, variance) =
            model.guided(x.clone(), time, &self.requests, &self.sampling, trace);
        self.x = match model.config.process {
            Process::Ddpm => {
                let fresh = (at > 0).then(|| model.draw(&mut self.noise));
                self.chain.step(x, guided, variance, fresh, at)
            }
            Process::Flow => x - guided / steps as f64,
        };
        match first_non_finite(&self.x) {
            Some(image) => Err(Error::NonFinite { step, steps, image }),
            None => Ok(Some(DenoisingStep { step, steps, time })),
        }
    }

    /// The latents as they are, noisy before the last step: `[images, in_channels, input_size, input_size]`.
    pub fn latents(&self) -> Array4<f32> {
        download(self.x.clone())
    }
}

/// The first image with a latent that is not finite. What crosses to the host is a sum per image, finite only if all its
/// latents are.
///
/// # Shapes
/// - x: `[images, channels, height, width]`
fn first_non_finite(x: &Tensor<4>) -> Option<usize> {
    let [images, channels, height, width] = x.dims();
    let rows = x.clone().reshape([images, channels * height * width]);
    let sums = host_values(rows.sum_dim(1)); // [images, 1]
    sums.iter().position(|sum| !sum.is_finite())
}
