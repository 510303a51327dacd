//! Progress on stderr: a bar with rate and time left on a terminal, a line every tenth otherwise.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// Progress of a loop of known length.
pub struct Progress {
    bar: ProgressBar,
    label: String,
    total: u64,
    plain: bool,
    tenth: u64,
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
        }
    }

    /// `done` units are done.
    pub fn set(&mut self, done: u64, message: impl Into<String>) {
        let message = message.into();
        let tenth = done * 10 / self.total.max(1);
        if self.plain && tenth > self.tenth {
            self.tenth = tenth;
            eprintln!("{} {done}/{} {message}", self.label, self.total);
        }
        self.bar.set_message(message);
        self.bar.set_position(done);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
