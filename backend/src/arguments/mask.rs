//! Which keys a query sees.

use std::ops::Range;
use std::sync::Arc;

/// Which keys each query of an attention sees, the same in every batch and head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    #[default]
    All,
    /// Those up to its own position; the last query is aligned with the last key.
    Causal,
    /// A run `start..end` of consecutive keys for each query: documents, windows, or a rank's part of a causal mask. An
    /// empty run sees nothing.
    Runs(Arc<[[u32; 2]]>),
}

impl Mask {
    /// The keys that a query sees; `sizes` are the numbers of queries and keys.
    ///
    /// # Panics
    /// If there are fewer runs than queries.
    pub fn run(&self, query: usize, [queries, keys]: [usize; 2]) -> Range<usize> {
        match self {
            Self::All => 0..keys,
            Self::Causal => 0..(query + keys + 1).saturating_sub(queries).min(keys),
            Self::Runs(runs) => {
                let [start, end] = runs[query].map(|key| (key as usize).min(keys));
                start.min(end)..end
            }
        }
    }

    /// Number of pairs of a query and a key that it sees.
    pub fn pairs(&self, sizes: [usize; 2]) -> u64 {
        (0..sizes[0])
            .map(|query| self.run(query, sizes).len() as u64)
            .sum()
    }
}
