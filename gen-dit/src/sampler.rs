//! Drawing latents, each image from its own seed.

use crate::ddpm::{Ddpm, TRAIN_STEPS};
use crate::{Dit, Error, Process, Result, flow};
use burn::tensor::Tensor;
use ndarray::Array4;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use tessera_backend::device_values;
use tessera_backend::{Rng, host_values};
use tessera_moe::{Mode, Trace};

/// The stream of a seed that an image's noise is drawn from.
const NOISE: u64 = 1;

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

/// A step that was done.
#[derive(Debug)]
pub struct StepInfo<'a> {
    /// Which, from 1.
    pub step: usize,
    /// Of how many.
    pub steps: usize,
    /// The time that the model was told, in 0..1000.
    pub time: f32,
    /// What the experts did: images in their order, with guidance once more without their class after that.
    pub trace: &'a Trace,
}

/// Hears of every step; `Break` cancels.
pub type Progress<'a> = dyn FnMut(StepInfo<'_>) -> ControlFlow<()> + 'a;

impl Dit {
    /// Draws latents. Image i depends on its own request alone, not on the others.
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
        progress: &mut Progress<'_>,
    ) -> Result<Array4<f32>> {
        sampling.validate()?;
        self.check_classes(requests)?;
        if requests.is_empty() {
            let (channels, side) = (self.config.in_channels, self.config.input_size);
            return Ok(Array4::zeros((0, channels, side, side)));
        }
        let steps = sampling.steps;
        let mut noise: Vec<_> = requests.iter().map(|r| Rng::new(r.seed, NOISE)).collect();
        let mut x = self.draw(&mut noise);
        let chain = Ddpm::new(steps);
        for step in 1..=steps {
            let mut trace = Trace::new(Mode::Alone);
            let time;
            x = match self.config.process {
                Process::Ddpm => {
                    let at = steps - step;
                    time = chain.time(at) as f32;
                    let (said, variance) =
                        self.guided(x.clone(), time, requests, sampling, &mut trace);
                    let fresh = (at > 0).then(|| self.draw(&mut noise));
                    chain.step(x, said, variance, fresh, at)
                }
                Process::Flow => {
                    let now = 1.0 - (step - 1) as f64 / steps as f64;
                    time = flow::told(now);
                    let (velocity, _) =
                        self.guided(x.clone(), time, requests, sampling, &mut trace);
                    x - velocity / steps as f64
                }
            };
            self.check_finite(&x, step, steps)?;
            let info = StepInfo {
                step,
                steps,
                time,
                trace: &trace,
            };
            if progress(info).is_break() && step < steps {
                return Err(Error::Cancelled { step, steps });
            }
        }
        let shape = x.dims();
        let values = host_values(x);
        Ok(Array4::from_shape_vec(shape, values).expect("a tensor fills its shape"))
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
            .map(|i| Rng::new(seed + i, NOISE))
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

    fn check_finite(&self, x: &Tensor<4>, step: usize, steps: usize) -> Result<()> {
        let each = x.dims()[1..].iter().product::<usize>();
        let values = host_values(x.clone());
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(Error::NonFinite {
                step,
                steps,
                image: index / each,
            }),
            None => Ok(()),
        }
    }
}
