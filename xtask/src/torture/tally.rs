//! What was tried, what held, and what did not.

use anyhow::Result;
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Violations that are printed of one command and kind.
const SHOWN: usize = 5;

/// How long nothing is said while all holds.
const QUIET: Duration = Duration::from_secs(30);

/// How a try ended.
#[derive(Debug)]
pub enum Outcome {
    /// All that is promised held.
    Held,
    /// The point was not reached.
    Missed,
    /// Something did not.
    Broken(String),
}

/// The tries of one command and kind.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many.
    pub tried: usize,
    /// Of those, how many reached no point of interest.
    pub missed: usize,
    /// What did not hold.
    pub broken: Vec<String>,
}

impl Tally {
    /// Adds how one ended.
    pub fn count(&mut self, outcome: Outcome) {
        self.tried += 1;
        match outcome {
            Outcome::Held => {}
            Outcome::Missed => self.missed += 1,
            Outcome::Broken(what) => self.broken.push(what),
        }
    }
}

/// Tries every point, on so many threads. What breaks is said on stderr at once, and every now and then how far it is.
///
/// # Errors
/// The first error, which is none of the program's.
pub fn in_parallel<T: Sync>(
    what: &str,
    points: &[T],
    jobs: usize,
    each: impl Fn(&T) -> Result<Outcome> + Sync,
) -> Result<Tally> {
    let next = AtomicUsize::new(0);
    let said = Mutex::new(Instant::now());
    let tally = Mutex::new(Ok(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = each(point);
                    let mut tally = tally.lock().unwrap_or_else(|broken| broken.into_inner());
                    match (&mut *tally, outcome) {
                        (Ok(tally), Ok(outcome)) => {
                            if let Outcome::Broken(fault) = &outcome {
                                eprintln!("{what}: {fault}");
                            }
                            tally.count(outcome);
                            let mut said = said.lock().unwrap_or_else(|broken| broken.into_inner());
                            if said.elapsed() > QUIET && tally.tried < points.len() {
                                *said = Instant::now();
                                eprintln!("{what}: {} of {}", tally.tried, points.len());
                            }
                        }
                        (tally @ Ok(_), Err(error)) => *tally = Err(error),
                        (Err(_), _) => {}
                    }
                }
            });
        }
    });
    tally
        .into_inner()
        .unwrap_or_else(|broken| broken.into_inner())
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// The command or the format.
    pub name: String,
    /// What was done to it.
    pub kind: &'static str,
    /// The tries.
    pub tally: Tally,
}

impl Row {
    /// The row as text, with what did not hold below it.
    pub fn text(&self) -> String {
        let Self { name, kind, tally } = self;
        let mut text = format!(
            "{name:<28} {kind:<7} {:>7} tried {:>5} missed {:>5} broken",
            tally.tried,
            tally.missed,
            tally.broken.len()
        );
        for what in tally.broken.iter().take(SHOWN) {
            text += &format!("\n    {what}");
        }
        if tally.broken.len() > SHOWN {
            text += &format!("\n    and {} more", tally.broken.len() - SHOWN);
        }
        text
    }

    /// The row as JSON.
    pub fn json(&self) -> Value {
        json!({
            "name": self.name,
            "kind": self.kind,
            "tried": self.tally.tried,
            "missed": self.tally.missed,
            "broken": self.tally.broken,
        })
    }
}
