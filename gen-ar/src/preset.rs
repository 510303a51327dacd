//! Trades of time for quality by name, as a study of them has it (docs/cheaper-sampling.md).

use crate::cache::{Cache, LazySchedule};
use crate::order::Order;
use crate::request::SampleConfig;
use serde::{Deserialize, Serialize};

/// How much time drawing may save.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingPreset {
    /// The model's own steps at random, each computed in full.
    Exact,
    /// Half the steps, in stages.
    Balanced,
    /// Half the steps, but a quarter of the positions at most, in stages; most steps reuse features of earlier ones.
    Fast,
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
}

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
