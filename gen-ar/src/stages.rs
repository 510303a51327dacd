//! The three stages of the generator, and the time each takes.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// One value per stage of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StageBreakdown<T> {
    /// The backbone's encoder.
    pub encoder: T,
    /// The backbone's decoder.
    pub decoder: T,
    /// The head, sampling included.
    pub head: T,
}

impl<T: AddAssign> AddAssign for StageBreakdown<T> {
    fn add_assign(&mut self, other: Self) {
        self.encoder += other.encoder;
        self.decoder += other.decoder;
        self.head += other.head;
    }
}

/// What a step took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    pub spent: StageBreakdown<Duration>,
    pub flops: StageBreakdown<f64>,
}

/// Runs `work` and adds its time to `spent`.
pub(crate) fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *spent += started.elapsed();
    result
}
