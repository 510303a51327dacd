//! Which tokens see which, by their positions in the whole sequence.

use std::ops::Range;
use std::sync::Arc;
use tessera_backend::ops;

/// What of a sequence a token sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask {
    /// Only tokens up to its own.
    pub causal: bool,
    /// Only tokens of its own document: where each document begins, ascending from 0. `None` is one document.
    pub documents: Option<Arc<[usize]>>,
}

impl Mask {
    /// All see all.
    pub fn all() -> Self {
        Self::default()
    }

    /// Tokens see those up to their own.
    pub fn causal() -> Self {
        Self {
            causal: true,
            documents: None,
        }
    }

    /// The positions that the token at `position` sees.
    pub fn seen(&self, position: usize) -> Range<usize> {
        let (mut start, mut end) = (0, usize::MAX);
        if let Some(documents) = &self.documents {
            let next = documents.partition_point(|&document| document <= position);
            start = documents[next.saturating_sub(1)];
            end = documents.get(next).copied().unwrap_or(end);
        }
        if self.causal {
            end = end.min(position + 1);
        }
        start..end
    }

    /// The same for the kernel, between a share of the queries and a share of the keys, whose positions ascend: what a token
    /// sees of ascending keys is always a run of neighbours.
    pub fn between(&self, queries: &[usize], keys: &[usize]) -> ops::Mask {
        if !self.causal && self.documents.is_none() {
            return ops::Mask::All;
        }
        let run = |&position: &usize| {
            let seen = self.seen(position);
            [seen.start, seen.end].map(|end| keys.partition_point(|&key| key < end) as u32)
        };
        ops::Mask::Runs(queries.iter().map(run).collect())
    }
}
