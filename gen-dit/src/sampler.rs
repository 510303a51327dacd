//! Sampling of latents: ancestral sampling or Euler's method, with classifier-free guidance. Each image has its own
//! seed.

use crate::ddpm::{Ddpm, TRAIN_STEPS};
use crate::easy::{EasyCache, Reuse, of_images};
use crate::{Dit, Error, Process, Result, flow};
use burn::module::Module;
use burn::tensor::Tensor;
use ndarray::Array4;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use tessera_backend::{ImageRequest, Rng, device_values, download, host_values, streams};
use tessera_moe::{Mode, RouterTrace};

/// Sampling options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleConfig {
    /// Number of steps from noise to latents; each evaluates the model once.
    pub steps: usize,
    /// Guidance scale s, in `uncond + s · (cond − uncond)`; 1 turns guidance off and halves the work.
    pub cfg_scale: f32,
    /// Reuses predictions; `None` asks the model at every step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<EasyCache>,
}

impl SampleConfig {
    /// So many steps with so much guidance, exactly.
    pub fn new(steps: usize, cfg_scale: f32) -> Self {
        Self {
            steps,
            cfg_scale,
            cache: None,
        }
    }

    /// With predictions reused.
    pub fn easy(self, cache: EasyCache) -> Self {
        let cache = Some(cache);
        Self { cache, ..self }
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::Sampling`] names the first option that is out of range.
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
        if let Some(EasyCache { threshold }) = self.cache
            && !(threshold.is_finite() && threshold >= 0.0)
        {
            return Err(Error::Sampling {
                option: "threshold",
                expected: "0 or more".into(),
                found: threshold.to_string(),
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
    /// Images that the model was asked of: all, unless predictions are reused.
    pub asked: usize,
}

/// Called after each step; `Break` cancels.
pub type DenoisingProgress<'a> = dyn FnMut(DenoisingStep) -> ControlFlow<()> + 'a;

/// [`DenoisingProgress`] with the routes of the step: of the images in their order and, with guidance, once more of
/// the same images without their class.
pub type TracedProgress<'a> = dyn FnMut(DenoisingStep, &RouterTrace) -> ControlFlow<()> + 'a;

impl Dit {
    /// Draws latents. Image i depends on its own request alone, not on the others.
    ///
    /// Experts with a threshold are routed on the device: a step reads back one number per image, which tells whether
    /// its latents are finite.
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
        self.sample(requests, sampling, RouterTrace::off, &mut |step, _| {
            progress(step)
        })
    }

    /// [`generate`](Self::generate) that also reports the routes of every step. The images are the same, bit for bit;
    /// every layer of every step reads its scores back to the host.
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
        let trace = || RouterTrace::new(Mode::Inference);
        self.sample(requests, sampling, trace, progress)
    }

    /// Takes all steps, each with a new trace.
    fn sample(
        &self,
        requests: &[ImageRequest],
        sampling: &SampleConfig,
        new_trace: fn() -> RouterTrace,
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

    /// [`generate`](Self::generate) step by step: to cancel, stop asking.
    ///
    /// # Errors
    /// An option out of range, a class that does not exist.
    pub fn denoising(
        &self,
        requests: &[ImageRequest],
        sampling: &SampleConfig,
    ) -> Result<Denoising> {
        sampling.validate()?;
        ImageRequest::check_classes(requests, self.config.num_classes)?;
        // On an autodiff device every step would be recorded; `valid` takes the parameters off it.
        let model = self.valid();
        let mut noise: Vec<_> = requests
            .iter()
            .map(|request| streams::PICTURE_NOISE.of(request.seed))
            .collect();
        Ok(Denoising {
            x: model.draw(&mut noise),
            model,
            requests: requests.to_vec(),
            sampling: sampling.clone(),
            chain: Ddpm::new(sampling.steps),
            noise,
            step: 0,
            reuse: sampling
                .cache
                .map(|cache| Reuse::new(cache, requests.len())),
        })
    }

    /// The routes of given latents at inference, after noising them to `time` (in 0..1000). Image i has the seed
    /// `seed + i`.
    ///
    /// # Shapes
    /// - latents: `[batch, in_channels, input_size, input_size]`
    /// - labels: one per image
    ///
    /// # Errors
    /// [`Error::Dense`] if there are no experts.
    pub fn route(
        &self,
        latents: Tensor<4>,
        labels: &[Option<usize>],
        time: f32,
        seed: u64,
    ) -> Result<RouterTrace> {
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
        let mut trace = RouterTrace::new(Mode::Inference);
        self.forward(x, &vec![time; batch], labels, &mut trace);
        Ok(trace)
    }

    /// Noise for every image from its own random numbers, `[images, channels, height, width]`.
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

    /// The model's prediction with guidance; both branches run as one batch.
    ///
    /// # Shapes
    /// - x: `[images, in_channels, input_size, input_size]`, as the prediction
    fn guided(
        &self,
        x: Tensor<4>,
        time: f32,
        requests: &[ImageRequest],
        sampling: &SampleConfig,
        trace: &mut RouterTrace,
    ) -> Prediction {
        let (batch, channels) = (requests.len(), self.config.in_channels);
        let guides = sampling.cfg_scale != 1.0;
        let classes = requests.iter().map(|request| request.class);
        let mut labels: Vec<_> = classes.collect();
        let mut input = x;
        if guides {
            labels.resize(2 * batch, None);
            input = Tensor::cat(vec![input.clone(), input], 0);
        }
        let output = self.forward(input, &vec![time; labels.len()], &labels, trace);
        let cond = output.clone().narrow(0, 0, batch);
        let variance = || cond.clone().narrow(1, channels, channels);
        let variance = self.config.learn_sigma.then(variance);
        let cond = cond.narrow(1, 0, channels);
        if !guides {
            return Prediction {
                output: cond,
                variance,
            };
        }
        let uncond = output.narrow(0, batch, batch).narrow(1, 0, channels);
        Prediction {
            output: uncond.clone() + (cond - uncond) * sampling.cfg_scale,
            variance,
        }
    }
}

/// Images on their way from noise to latents, made by [`Dit::denoising`].
#[derive(Debug)]
pub struct Denoising {
    model: Dit,
    requests: Vec<ImageRequest>,
    sampling: SampleConfig,
    chain: Ddpm,
    /// Each image's random numbers.
    noise: Vec<Rng>,
    /// `[images, in_channels, input_size, input_size]`
    x: Tensor<4>,
    /// Steps taken.
    step: usize,
    /// What is reused.
    reuse: Option<Reuse>,
}

impl Denoising {
    /// Takes the next step; `None` after the last. The trace decides whether the routes of the step are recorded.
    ///
    /// # Errors
    /// Latents that are not finite.
    pub fn advance(&mut self, trace: &mut RouterTrace) -> Result<Option<DenoisingStep>> {
        let steps = self.sampling.steps;
        if self.step == steps || self.requests.is_empty() {
            return Ok(None);
        }
        self.step += 1;
        let (step, at) = (self.step, steps - self.step);
        let (model, x) = (&self.model, self.x.clone());
        let time = match model.config.process {
            Process::Ddpm => self.chain.time(at) as f32,
            Process::Flow => flow::model_time(1.0 - (step - 1) as f64 / steps as f64),
        };
        let mut asked = self.requests.len();
        let Prediction { output, variance } = match &mut self.reuse {
            None => model.guided(x.clone(), time, &self.requests, &self.sampling, trace),
            Some(reuse) => {
                let due = reuse.due(&x, step - 1, steps);
                asked = due.len();
                let new = (asked > 0).then(|| {
                    let requests: Vec<_> = due.iter().map(|&image| self.requests[image]).collect();
                    model.guided(of_images(&x, &due), time, &requests, &self.sampling, trace)
                });
                reuse.take(&x, &due, new)
            }
        };
        self.x = match model.config.process {
            Process::Ddpm => {
                let fresh = (at > 0).then(|| model.draw(&mut self.noise));
                self.chain.step(x, output, variance, fresh, at)
            }
            Process::Flow => x - output / steps as f64,
        };
        for (image, size) in sizes(&self.x).into_iter().enumerate() {
            if !size.is_finite() {
                return Err(Error::NonFinite { step, steps, image });
            }
            if size > MOST {
                return Err(Error::Large {
                    step,
                    steps,
                    image,
                    size,
                });
            }
        }
        Ok(Some(DenoisingStep {
            step,
            steps,
            time,
            asked,
        }))
    }

    /// The latents so far, noisy before the last step: `[images, in_channels, input_size, input_size]`.
    pub fn latents(&self) -> Array4<f32> {
        download(self.x.clone())
    }
}

/// A prediction of the model, `[images, channels, height, width]` each.
#[derive(Debug, Clone)]
pub(crate) struct Prediction {
    /// The noise, or the velocity of a flow.
    pub output: Tensor<4>,
    /// The interpolation of the variance, with a learned sigma.
    pub variance: Option<Tensor<4>>,
}

/// Mean magnitude of normalized latents, which is about 1, from which on they are none: a decoder's normalization would
/// make a flat picture of them.
const MOST: f32 = 1e4;

/// The mean magnitude of each image's latents, finite only if all of them are. What crosses to the host is a number per
/// image.
///
/// # Shapes
/// - x: `[images, channels, height, width]`
fn sizes(x: &Tensor<4>) -> Vec<f32> {
    let [images, channels, height, width] = x.dims();
    let rows = x.clone().reshape([images, channels * height * width]); // [images, latents]
    host_values(rows.abs().mean_dim(1)) // [images, 1]
}
