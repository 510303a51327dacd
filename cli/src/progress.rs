//! Progress on stderr: a bar with rate and time left on a terminal, a line every tenth otherwise.

use crate::{interrupt, output};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tessera::OnProgress;
use tessera::weights::Loaded;

/// How long loading may take before it is shown.
const PATIENCE: Duration = Duration::from_millis(500);

/// Progress of a loop of known length.
pub struct Progress {
    bar: ProgressBar,
    label: String,
    total: u64,
    plain: bool,
    tenth: u64,
    done: u64,
}

impl Progress {
    /// A bar for `total` units; `quiet` shows nothing.
    pub fn new(label: &str, unit: &str, total: u64, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = match quiet || !terminal {
            true => ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden()),
            false => ProgressBar::new(total),
        };
        let template =
            format!("{label} {{wide_bar}} {{pos}}/{{len}} {unit} {{per_sec}} ETA {{eta}} {{msg}}");
        bar.set_style(ProgressStyle::with_template(&template).expect("the template is ours"));
        Self {
            bar,
            label: label.into(),
            total,
            plain: !quiet && !terminal,
            tenth: 0,
            done: 0,
        }
    }

    /// `done` units are done.
    pub fn set(&mut self, done: u64, message: impl Into<String>) {
        let message = message.into();
        self.done = done;
        let tenth = done * 10 / self.total.max(1);
        if self.plain && tenth > self.tenth {
            self.tenth = tenth;
            output::note(format_args!(
                "{} {done}/{} {message}",
                self.label, self.total
            ));
        }
        self.bar.set_message(message);
        self.bar.set_position(done);
    }

    /// `more` units are done.
    pub fn add(&mut self, more: u64) {
        self.set(self.done + more, "");
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// When sample grids are drawn, and when a checkpoint was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Cadence {
    /// Epochs between grids; 0 for none.
    pub sample_every: u64,
    /// Whether nothing is said.
    pub quiet: bool,
}

impl Cadence {
    /// Whether a grid is drawn at the end of that epoch.
    pub fn draws(self, epoch: u64) -> bool {
        self.sample_every > 0 && epoch.is_multiple_of(self.sample_every)
    }

    /// Whether somebody asked for a checkpoint; says so.
    pub fn saves(self) -> bool {
        let asked = interrupt::save_requested();
        if asked && !self.quiet {
            output::note("saving a checkpoint");
        }
        asked
    }
}

/// Runs what loads tensors, with a bar where that takes long.
///
/// # Errors
/// What `load` gives.
pub fn loading<T>(
    quiet: bool,
    load: impl FnOnce(&mut dyn FnMut(Loaded)) -> tessera::Result<T>,
) -> tessera::Result<T> {
    let started = Instant::now();
    let mut bar: Option<Progress> = None;
    let loaded = load(&mut |loaded| {
        if bar.is_none() && started.elapsed() > PATIENCE {
            bar = Some(Progress::new("load", "tensors", loaded.of as u64, quiet));
        }
        if let Some(bar) = &mut bar {
            bar.set(loaded.tensors as u64, "");
        }
    })?;
    if let Some(bar) = bar {
        bar.finish();
    }
    Ok(loaded)
}

/// Runs what encodes a data set, with a bar and until Ctrl-C.
///
/// # Errors
/// What `encode` gives.
pub fn encoding<T>(
    quiet: bool,
    encode: impl FnOnce(OnProgress<'_>) -> tessera::Result<T>,
) -> tessera::Result<T> {
    counting(["encode", "images"], quiet, encode)
}

/// Runs what probes a decoder dimension by dimension, with a bar and until Ctrl-C.
///
/// # Errors
/// What `probe` gives.
pub fn probing<T>(
    quiet: bool,
    probe: impl FnOnce(OnProgress<'_>) -> tessera::Result<T>,
) -> tessera::Result<T> {
    counting(["probe the decoder", "dimensions"], quiet, probe)
}

fn counting<T>(
    [task, unit]: [&'static str; 2],
    quiet: bool,
    work: impl FnOnce(OnProgress<'_>) -> tessera::Result<T>,
) -> tessera::Result<T> {
    let mut bar: Option<Progress> = None;
    let done = work(&mut |done, total| {
        let bar = bar.get_or_insert_with(|| Progress::new(task, unit, total as u64, quiet));
        bar.set(done as u64, "");
        interrupt::flow()
    })?;
    if let Some(bar) = bar {
        bar.finish();
    }
    Ok(done)
}
