//! What a person sees of a training: a line for every step, and pictures at the end of epochs.

use super::Flow;
use crate::interrupt;
use crate::progress::{Cadence, Progress};
use std::ops::ControlFlow;
use tessera::train::{Observer, StepReport};

/// What one kind of training shows of itself.
pub trait Shows<M> {
    /// The line of a step, beside the bar.
    fn line(&self, report: &StepReport) -> String;

    /// Whether there is something to show at the end of that epoch, where grids are drawn at this cadence.
    fn at_end_of(&self, epoch: u64, cadence: Cadence) -> bool {
        cadence.draws(epoch)
    }

    /// Whether all that the end of that epoch shows is on disk.
    fn is_shown(&self, epoch: u64, cadence: Cadence) -> bool;

    /// Shows the averaged weights at the end of an epoch.
    ///
    /// # Errors
    /// What ends the run.
    fn show(&mut self, epoch: u64, ema: &M, cadence: Cadence) -> Flow;
}

/// Watches a training until Ctrl-C.
pub struct Watching<S> {
    /// What this kind of training shows.
    pub of: S,
    progress: Progress,
    cadence: Cadence,
}

impl<S> Watching<S> {
    /// Shows steps on `progress` and grids at `cadence`.
    pub fn new(of: S, progress: Progress, cadence: Cadence) -> Self {
        Self {
            of,
            progress,
            cadence,
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.progress.finish();
    }
}

impl<M, S: Shows<M>> Observer<M> for Watching<S> {
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        let speed = report.images_per_second;
        let line = format!("{} {speed:.0} img/s", self.of.line(report));
        self.progress.set(report.step, line);
        interrupt::flow()
    }

    fn stops(&self) -> bool {
        interrupt::requested()
    }

    fn saves(&mut self) -> bool {
        self.cadence.saves()
    }

    fn watches(&self, epoch: u64) -> bool {
        self.of.at_end_of(epoch, self.cadence)
    }

    fn on_resume(&mut self, epoch: u64, model: &M, ema: &M) -> Flow {
        match self.of.is_shown(epoch, self.cadence) {
            true => Ok(ControlFlow::Continue(())),
            false => self.on_epoch(epoch, model, ema),
        }
    }

    fn on_epoch(&mut self, epoch: u64, _: &M, ema: &M) -> Flow {
        self.of.show(epoch, ema, self.cadence)
    }
}
