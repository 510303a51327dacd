//! EasyCache: a prediction is reused, less the change of its input, as long as it changes little. It decides for each
//! picture by itself.

use crate::sampler::Prediction;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use tessera_backend::host_values;

/// How much change a prediction is reused for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EasyCache {
    /// The relative change of predictions, added up since the model was asked last, from which on it is asked again; 0
    /// reuses nothing.
    pub threshold: f32,
}

/// The part of the steps that may reuse: the first, and the last, ask the model.
const REUSING: Range<f64> = 0.15..0.95;

/// What a picture's steps go by.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// How much a prediction changed for a change of its input, ‖v − v′‖ / ‖x − x′‖, at the last step that asked the
    /// model.
    rate: f32,
    /// The relative change estimated since.
    change: f32,
}

/// Inputs and predictions of the step before, and what is reused of the last that asked the model.
#[derive(Debug)]
pub(crate) struct Reuse {
    cache: EasyCache,
    rates: Vec<Option<Rate>>,
    before: Option<Before>,
}

#[derive(Debug)]
struct Before {
    /// `[images, channels, height, width]`, as the prediction.
    x: Tensor<4>,
    prediction: Prediction,
    /// The prediction less its input, when the model was asked last.
    offset: Tensor<4>,
}

impl Reuse {
    pub(crate) fn new(cache: EasyCache, images: usize) -> Self {
        Self {
            cache,
            rates: vec![None; images],
            before: None,
        }
    }

    /// The images whose prediction at `x` the model must give in a step of `steps`, counted from 0.
    ///
    /// # Shapes
    /// - x: `[images, channels, height, width]`
    pub(crate) fn due(&mut self, x: &Tensor<4>, step: usize, steps: usize) -> Vec<usize> {
        let at = step as f64 / steps as f64;
        let reuses = REUSING.contains(&at) && step + 1 < steps && self.cache.threshold > 0.0;
        let Some(before) = self.before.as_ref().filter(|_| reuses) else {
            return (0..self.rates.len()).collect();
        };
        let moved = norms(x.clone() - before.x.clone());
        let sizes = norms(before.prediction.output.clone());
        let mut due = Vec::new();
        for (image, rate) in self.rates.iter_mut().enumerate() {
            let reused = rate.as_mut().is_some_and(|rate| {
                rate.change += rate.rate * moved[image] / sizes[image];
                // NaN asks.
                rate.change < self.cache.threshold
            });
            if !reused {
                due.push(image);
            }
        }
        due
    }

    /// The predictions of all images, given what the model said of those that were `due`.
    ///
    /// # Shapes
    /// - x: `[images, channels, height, width]`; new: as x, of the images that were due
    pub(crate) fn take(
        &mut self,
        x: &Tensor<4>,
        due: &[usize],
        new: Option<Prediction>,
    ) -> Prediction {
        let images = self.rates.len();
        let (prediction, offset) = match (&self.before, new) {
            (_, Some(new)) if due.len() == images => {
                let offset = new.output.clone() - x.clone();
                (new, offset)
            }
            (Some(before), new) => {
                let reused = Prediction {
                    output: x.clone() + before.offset.clone(),
                    variance: before.prediction.variance.clone(),
                };
                let now = reused.with(due, new);
                let offset = match due {
                    [] => before.offset.clone(),
                    due => {
                        let offset = now.output.clone() - x.clone();
                        replaced(before.offset.clone(), due, of_images(&offset, due))
                    }
                };
                (now, offset)
            }
            (None, _) => unreachable!("the first step asks the model of every image"),
        };
        if let Some(before) = &self.before {
            let changed = norms(prediction.output.clone() - before.prediction.output.clone());
            let moved = norms(x.clone() - before.x.clone());
            for &image in due {
                let rate = changed[image] / moved[image];
                self.rates[image] = Some(Rate { rate, change: 0.0 });
            }
        }
        self.before = Some(Before {
            x: x.clone(),
            prediction: prediction.clone(),
            offset,
        });
        prediction
    }
}

impl Prediction {
    /// These with `new` in place of those of some images.
    fn with(self, images: &[usize], new: Option<Self>) -> Self {
        let Some(new) = new else { return self };
        Self {
            output: replaced(self.output, images, new.output),
            variance: match (self.variance, new.variance) {
                (Some(all), Some(new)) => Some(replaced(all, images, new)),
                _ => None,
            },
        }
    }
}

/// `all` with `new` in place of some images.
fn replaced(all: Tensor<4>, images: &[usize], new: Tensor<4>) -> Tensor<4> {
    let [_, channels, height, width] = all.dims();
    let mut all = all;
    for (from, &image) in images.iter().enumerate() {
        let place = [image..image + 1, 0..channels, 0..height, 0..width];
        all = all.slice_assign(place, new.clone().narrow(0, from, 1));
    }
    all
}

/// Some images of `x`, at least one.
pub(crate) fn of_images(x: &Tensor<4>, images: &[usize]) -> Tensor<4> {
    let images = images.iter().map(|&image| x.clone().narrow(0, image, 1));
    Tensor::cat(images.collect(), 0)
}

/// The Euclidean norm of each image.
fn norms(x: Tensor<4>) -> Vec<f32> {
    let [images, channels, height, width] = x.dims();
    let rows = x.reshape([images, channels * height * width]); // [images, latents]
    host_values((rows.clone() * rows).sum_dim(1).sqrt()) // [images, 1]
}
