//! Which keys a query sees.

use std::ops::Range;
use std::sync::Arc;

/// Which keys each query of an attention sees, the same in every batch and head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    #[default]
    All,
    /// Those up to its own position, the last query being aligned with the last key.
    Causal,
    /// A run `start..end` of neighbouring keys for each query: documents, windows, or the part of a causal mask that falls to a
    /// share of the tokens. An empty run sees nothing.
    Runs(Arc<[[u32; 2]]>),
}

impl Mask {
    /// The keys that a query sees, `sizes` being the numbers of queries and keys.
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

    /// How many pairs of query and key see each other.
    pub fn pairs(&self, sizes: [usize; 2]) -> u64 {
        (0..sizes[0])
            .map(|query| self.run(query, sizes).len() as u64)
            .sum()
    }
}
