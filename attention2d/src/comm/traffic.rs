//! Counters of what a rank received.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What one rank received, over all groups of a job.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes: AtomicU64,
    messages: AtomicU64,
    waiting_ns: AtomicU64,
}

impl Traffic {
    pub(crate) fn add(&self, bytes: usize, messages: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_waiting(&self, time: Duration) {
        let ns = time.as_nanos() as u64;
        self.waiting_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Bytes received from other ranks. Reductions count as rings: a reduce-scatter as the other ranks' parts, an
    /// all-reduce as a reduce-scatter and an all-gather.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Messages received from other ranks.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Time spent in collectives, without the computation that overlapped with them.
    pub fn waiting(&self) -> Duration {
        Duration::from_nanos(self.waiting_ns.load(Ordering::Relaxed))
    }

    /// Sets all counters to zero.
    pub fn reset(&self) {
        for counter in [&self.bytes, &self.messages, &self.waiting_ns] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}
