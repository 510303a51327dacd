//! What the steps of a picture may reuse of earlier ones, and when.

use serde::{Deserialize, Serialize};

/// What steps reuse.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// Features of an autoregressive model's backbone (LazyMAR, arXiv 2503.12450).
    Lazy(LazySchedule),
    /// Predictions of a diffusion transformer (EasyCache); not for autoregressive models.
    Easy(EasyThreshold),
}

/// Which steps compute everything; the others reuse keys, values and what guidance adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LazySchedule {
    /// All steps before this one compute everything, and this one; from the number of steps on, every step does.
    pub start: usize,
    /// From then on, so does every one of so many steps; 1 reuses nothing.
    pub refresh: usize,
}

/// How much change a prediction is reused for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EasyThreshold {
    /// The relative change, added up since the last prediction, from which on the model is asked again; 0 reuses
    /// nothing.
    pub threshold: f32,
}

impl Default for EasyThreshold {
    fn default() -> Self {
        Self { threshold: 0.2 }
    }
}

/// The settings that LazyMAR has for so many steps.
const PAPER_STEPS: usize = 64;

impl LazySchedule {
    /// LazyMAR's schedule, which starts at step 5 of 64 and computes everything at each ninth, scaled to `steps`.
    pub fn of_steps(steps: usize) -> Self {
        let scaled = |of_64: usize| (of_64 * steps + PAPER_STEPS / 2) / PAPER_STEPS;
        Self {
            start: scaled(5).max(1),
            refresh: scaled(9).max(2),
        }
    }

    /// Whether a step, counted from 0, computes everything.
    pub fn is_full(self, step: usize) -> bool {
        step < self.start || (step - self.start).is_multiple_of(self.refresh)
    }
}

/// The share of rows that the decoder's later blocks compute, from which of 64 steps on.
const KEPT: [(usize, f64); 7] = [
    (0, 1.0),
    (20, 0.6),
    (21, 0.5),
    (25, 0.4),
    (30, 0.15),
    (35, 0.12),
    (40, 0.05),
];

/// How many of `rows` rows the decoder's later blocks compute in a step, of which `needed` are drawn or were just
/// drawn. LazyMAR adds 15 to those, of its 320 rows.
pub(crate) fn kept_rows(step: usize, steps: usize, needed: usize, rows: usize) -> usize {
    let of_64 = step * PAPER_STEPS / steps;
    let (_, share) = KEPT
        .iter()
        .rfind(|(from, _)| *from <= of_64)
        .expect("from step 0 on");
    let more = (15 * rows).div_ceil(320);
    ((rows as f64 * share) as usize)
        .max(needed + more)
        .min(rows)
}

/// The decoder's block within which rows are pruned: the fourth of 16, as many of another depth; none if that is past
/// the last.
pub(crate) fn pruning_block(depth: usize) -> usize {
    ((3 * depth + 8) / 16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_64_steps_the_schedule_is_the_paper_s() {
        let schedule = LazySchedule::of_steps(64);
        assert_eq!(
            schedule,
            LazySchedule {
                start: 5,
                refresh: 9
            }
        );
        let full: Vec<_> = (0..64).filter(|&step| schedule.is_full(step)).collect();
        assert_eq!(full, [0, 1, 2, 3, 4, 5, 14, 23, 32, 41, 50, 59]);
        let kept = |step| kept_rows(step, 64, 2, 320);
        let counts = [0, 19, 20, 21, 24, 25, 29, 30, 34, 35, 39, 40, 63].map(kept);
        assert_eq!(
            counts,
            [320, 320, 192, 160, 160, 128, 128, 48, 48, 38, 38, 17, 17]
        );
        assert_eq!(kept_rows(63, 64, 14, 320), 29);
        assert_eq!(pruning_block(16), 3);
    }

    #[test]
    fn other_numbers_of_steps_have_the_same_shares() {
        assert_eq!(
            LazySchedule::of_steps(32),
            LazySchedule {
                start: 3,
                refresh: 5
            }
        );
        assert_eq!(
            LazySchedule::of_steps(1),
            LazySchedule {
                start: 1,
                refresh: 2
            }
        );
        assert_eq!(kept_rows(31, 32, 300, 320), 315);
        assert_eq!(kept_rows(15, 32, 2, 320), 48);
        assert_eq!([1, 2, 6, 32].map(pruning_block), [1, 1, 1, 6]);
    }
}
