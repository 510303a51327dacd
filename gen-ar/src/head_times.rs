//! Which way of drawing is faster for the head, measured while it draws.

use crate::head::Decoding;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Measurements of each way before one is chosen: the first call of a process also warms up.
const TRIALS: usize = 2;

/// More tokens at once fill the processor step by step.
const MOST_TOKENS: usize = 64;

/// Times of the head by numbers of tokens up to a power of two. Clones of a model share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeadTimes(Arc<Mutex<BTreeMap<usize, [Times; 2]>>>);

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    trials: usize,
    /// Per token.
    least: Duration,
}

impl HeadTimes {
    /// Runs `draw` for so many tokens, in the way that is `asked` for, or else in the one that has been faster.
    pub(crate) fn faster<R>(
        &self,
        tokens: usize,
        asked: Option<Decoding>,
        draw: impl FnOnce(Decoding) -> R,
    ) -> R {
        if let Some(decoding) = asked {
            return draw(decoding);
        }
        let size = tokens.next_power_of_two();
        let decoding = self.choice(size);
        let started = Instant::now();
        let result = draw(decoding);
        self.record(size, decoding, started.elapsed() / tokens.max(1) as u32);
        result
    }

    fn choice(&self, size: usize) -> Decoding {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slower = |[sequential, jacobi]: &[Times; 2]| {
            jacobi.trials == TRIALS && jacobi.least > sequential.least
        };
        let of_fewer = times.range(..size).any(|(_, times)| slower(times));
        let [sequential, jacobi] = times.get(&size).copied().unwrap_or_default();
        match size > MOST_TOKENS || of_fewer {
            true => Decoding::Sequential,
            false if sequential.trials <= jacobi.trials && sequential.trials < TRIALS => {
                Decoding::Sequential
            }
            false if jacobi.trials < TRIALS || jacobi.least <= sequential.least => Decoding::Jacobi,
            false => Decoding::Sequential,
        }
    }

    fn record(&self, size: usize, decoding: Decoding, time: Duration) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [sequential, jacobi] = times.entry(size).or_default();
        let times = match decoding {
            Decoding::Sequential => sequential,
            Decoding::Jacobi => jacobi,
        };
        if times.trials < TRIALS {
            times.least = match times.trials {
                0 => time,
                _ => time.min(times.least),
            };
            times.trials += 1;
        }
    }
}
