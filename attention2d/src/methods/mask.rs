//! Which tokens attend to which, by their positions in the whole sequence.

use std::ops::Range;
use std::sync::Arc;
use tessera_backend::ops;

/// The keys that each query sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask {
    /// Whether a token sees only tokens up to itself.
    pub causal: bool,
    /// The start of each document, ascending from 0; tokens see only their own document. `None` for a single document.
    pub documents: Option<Arc<[usize]>>,
}

impl Mask {
    /// Every token sees every token.
    pub fn all() -> Self {
        Self::default()
    }

    /// Every token sees the tokens up to itself.
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

    /// The kernel's mask between some of the queries and some of the keys, given their ascending positions. Of such
    /// keys a query always sees one contiguous run.
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
