//! The learning rate as a function of the step.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Half a period of a cosine, from the peak to the minimum.
    #[default]
    Cosine,
    /// The peak to the end.
    Constant,
}

/// Linear warm-up from 0, then [`Decay`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The highest learning rate.
    pub peak: f64,
    /// Where the cosine ends.
    pub min: f64,
    /// Steps of linear growth.
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// What follows the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// The learning rate of a step, counted from 0. As in the reference, the first step of a warm-up has rate 0:
    /// it only starts the moments.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        match self.decay {
            Decay::Constant => self.peak,
            Decay::Cosine => {
                let after = (step - self.warmup_steps) as f64;
                let span = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
                let cosine = (PI * (after / span).min(1.0)).cos();
                self.min + (self.peak - self.min) * 0.5 * (1.0 + cosine)
            }
        }
    }
}

/// The learning rate for a batch, from the rate `base` for a batch of 256: `base * batch / 256`.
pub fn scaled_lr(base: f64, batch: usize) -> f64 {
    base * batch as f64 / 256.0
}
