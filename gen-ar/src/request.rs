//! What the sampler is asked for, and what it reports.

use crate::cache::{Cache, LazySchedule};
use crate::head::Decoding;
use crate::order::Order;
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

/// How much time drawing may save, chosen by a study (docs/cheaper-sampling.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingPreset {
    /// The model's own steps, positions in random order, nothing reused.
    Exact,
    /// Half the steps, in stages.
    Balanced,
    /// Half the steps, one per four positions at most, in stages; steps between full ones reuse features.
    Fast,
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
    /// The order of the positions.
    #[serde(skip_serializing_if = "is_default")]
    pub order: Order,
    /// What steps reuse of earlier ones; nothing is exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// How the head draws, which changes no token on a CPU; `None` is what is faster there, as measured while it draws.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Decoding>,
    /// Where the settings are from, which changes no token; see [`SampleConfig::preset`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<SamplingPreset>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
            order: Order::Random,
            cache: None,
            head: None,
            preset: None,
        }
    }
}

impl SampleConfig {
    /// With a preset's steps, order and cache in place of its own, for pictures of `seq` positions.
    pub fn preset(self, preset: SamplingPreset, seq: usize) -> Self {
        let own = self.steps.min(seq);
        let half = own.div_ceil(2);
        let (steps, order, lazy) = match preset {
            SamplingPreset::Exact => (own, Order::Random, false),
            SamplingPreset::Balanced => (half, Order::Staged, false),
            SamplingPreset::Fast => (half.min(seq.div_ceil(4)), Order::Staged, true),
        };
        Self {
            steps,
            order,
            cache: lazy.then(|| Cache::Lazy(LazySchedule::of_steps(steps))),
            preset: Some(preset),
            ..self
        }
    }

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

    /// In another order.
    pub fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// With the features of earlier steps in place of most of the backbone's work; see [`LazySchedule::of_steps`].
    pub fn lazy(self, schedule: LazySchedule) -> Self {
        let cache = Some(Cache::Lazy(schedule));
        Self { cache, ..self }
    }

    /// With a head that draws in this way.
    pub fn head(self, decoding: Decoding) -> Self {
        let head = Some(decoding);
        Self { head, ..self }
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
            cache,
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
        )?;
        match cache {
            Some(Cache::Lazy(LazySchedule { refresh, .. })) => {
                check("refresh", refresh > 0, "at least 1", refresh.to_string())
            }
            Some(Cache::Easy(_)) => check(
                "cache",
                false,
                "none or lazy for an autoregressive model",
                "easy".into(),
            ),
            None => Ok(()),
        }
    }

    /// The steps that compute everything, if others reuse their features.
    pub(crate) fn lazy_schedule(&self) -> Option<LazySchedule> {
        match self.cache {
            Some(Cache::Lazy(schedule)) => Some(schedule),
            _ => None,
        }
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
    /// The arithmetic operations of its matrix products. A multiplication and an addition count as two; tokens have the
    /// mean number of experts.
    pub flops: StageBreakdown<f64>,
}

/// Called after each step; `Break` stops with [`Error::Cancelled`].
pub type SamplingProgress<'a> = &'a mut dyn FnMut(SamplingStep<'_>) -> ControlFlow<()>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_of_the_models_own_steps_and_positions() {
        for (own, seq, balanced, fast) in [
            (64, 64, 32, 16),
            (64, 256, 32, 32),
            (100, 16, 8, 4),
            (1, 1, 1, 1),
        ] {
            let config = SampleConfig::default().steps(own);
            let of = |preset| config.clone().preset(preset, seq);
            let exact = of(SamplingPreset::Exact);
            assert_eq!(
                (exact.steps, exact.order, exact.cache),
                (own.min(seq), Order::Random, None)
            );
            let found = of(SamplingPreset::Balanced);
            assert_eq!(
                (found.steps, found.order, found.cache),
                (balanced, Order::Staged, None)
            );
            let found = of(SamplingPreset::Fast);
            assert_eq!((found.steps, found.order), (fast, Order::Staged));
            assert_eq!(found.lazy_schedule(), Some(LazySchedule::of_steps(fast)));
            assert_eq!(found.preset, Some(SamplingPreset::Fast));
            found.validate().unwrap();
        }
    }
}
