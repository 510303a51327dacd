//! How many positions each step generates: MAR's cosine, with at least one per step.

use crate::request::CfgSchedule;
use std::f64::consts::FRAC_PI_2;

/// One step of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleStep {
    /// Positions masked before the step.
    pub masked: usize,
    /// Positions it generates.
    pub predicted: usize,
    /// Masked positions after the step as the guidance schedule counts them: 1 after the last step, although none is
    /// left, as in the released sampler.
    pub mask_len: usize,
}

/// The schedule of `seq` positions in at most `steps` steps. Every step generates at least one position, and each
/// position is generated once.
///
/// # Panics
/// If `steps` or `seq` is 0.
pub fn schedule(seq: usize, steps: usize) -> Vec<ScheduleStep> {
    assert!(
        steps > 0 && seq > 0,
        "there is something to generate and a step to do it in"
    );
    let steps = steps.min(seq);
    let mut masked = seq;
    let predicted = (0..steps).map(|step| {
        let ratio = (FRAC_PI_2 * (step + 1) as f64 / steps as f64).cos();
        let left = match step + 1 == steps {
            true => 0,
            false => ((seq as f64 * ratio) as usize).min(masked - 1).max(1),
        };
        std::mem::replace(&mut masked, left) - left
    });
    steps_of(&predicted.collect::<Vec<_>>())
}

/// The schedule whose steps generate so many positions.
pub(crate) fn steps_of(predicted: &[usize]) -> Vec<ScheduleStep> {
    let mut masked = predicted.iter().sum();
    let step = |&predicted: &usize| {
        let before = masked;
        masked -= predicted;
        ScheduleStep {
            masked: before,
            predicted,
            mask_len: masked.max(1),
        }
    };
    predicted.iter().map(step).collect()
}

impl ScheduleStep {
    /// The guidance scale of this step, in a schedule of `seq` positions.
    pub fn guidance(&self, scale: f32, schedule: CfgSchedule, seq: usize) -> f32 {
        match schedule {
            CfgSchedule::Constant => scale,
            CfgSchedule::Linear => 1.0 + (scale - 1.0) * (seq - self.mask_len) as f32 / seq as f32,
        }
    }
}
