//! What the sampler is asked for, and what it reports.

use crate::stages::StageBreakdown;
use crate::{Error, Result};
use ndarray::{ArrayView2, ArrayView3};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::Duration;

pub use tessera_backend::ImageRequest;

/// How the guidance scale changes over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CfgSchedule {
    /// From 1 to the scale, in proportion to the positions generated.
    #[default]
    Linear,
    /// The scale at every step.
    Constant,
}

/// Sampling options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Number of steps; more steps than positions count as one per position.
    pub steps: usize,
    /// Guidance scale; 1 turns guidance off and halves the backbone's work.
    pub cfg_scale: f32,
    /// How the guidance scale changes over the steps.
    pub cfg_schedule: CfgSchedule,
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keeps the `top_k` likeliest levels; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest likeliest levels whose probabilities add up to `top_p`; 1 keeps all.
    pub top_p: f32,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self {
            steps: 64,
            cfg_scale: 3.0,
            cfg_schedule: CfgSchedule::Linear,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
        }
    }
}

impl SampleConfig {
    /// With another number of steps.
    pub fn steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    /// With another guidance scale.
    pub fn guidance(self, cfg_scale: f32) -> Self {
        Self { cfg_scale, ..self }
    }

    /// With another temperature.
    pub fn temperature(self, temperature: f32) -> Self {
        Self {
            temperature,
            ..self
        }
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::Sampling`] names the first option that is out of range.
    pub fn validate(&self) -> Result<()> {
        let check = |option, ok: bool, expected, found: String| match ok {
            true => Ok(()),
            false => Err(Error::Sampling {
                option,
                expected,
                found,
            }),
        };
        let Self {
            steps,
            cfg_scale,
            temperature,
            top_p,
            ..
        } = *self;
        check("steps", steps > 0, "at least 1", steps.to_string())?;
        check(
            "cfg_scale",
            cfg_scale.is_finite(),
            "finite",
            cfg_scale.to_string(),
        )?;
        check(
            "temperature",
            temperature.is_finite() && temperature >= 0.0,
            "finite and at least 0",
            temperature.to_string(),
        )?;
        check(
            "top_p",
            top_p > 0.0 && top_p <= 1.0,
            "above 0 and at most 1",
            top_p.to_string(),
        )
    }

    /// Whether guidance is on, so that the backbone also runs without the class.
    pub(crate) fn guides(&self) -> bool {
        self.cfg_scale != 1.0
    }
}

/// A sampling step that has been done.
#[derive(Debug)]
pub struct SamplingStep<'a> {
    /// Its number, from 1.
    pub step: usize,
    /// Number of steps in total.
    pub steps: usize,
    /// The indices so far, `[images, seq, dims]`; 0 at positions not generated yet.
    pub canvas: ArrayView3<'a, u16>,
    /// Which positions have been generated, `[images, seq]`.
    pub known: ArrayView2<'a, bool>,
    /// The time of this step by stage. On a device that queues its work, a stage's time includes the work it waited
    /// for.
    pub spent: StageBreakdown<Duration>,
}

/// Called after each step; `Break` stops with [`Error::Cancelled`].
pub type SamplingProgress<'a> = &'a mut dyn FnMut(SamplingStep<'_>) -> ControlFlow<()>;
