//! Which tokens of a sequence are whose.

use crate::Method;
use crate::collective::share;

/// How tokens are dealt to ranks; all are in order at each rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Rank p has the positions that are p modulo P: what balances a causal mask on a grid.
    Cyclic,
    /// Neighbouring tokens, the first ones at rank 0.
    Contiguous,
    /// Of 2P contiguous parts rank p has numbers p and 2P − 1 − p: what balances a causal mask on a ring.
    Zigzag,
}

impl Layout {
    /// How many positions a rank has.
    pub fn count(self, rank: usize, ranks: usize, tokens: usize) -> usize {
        match self {
            Self::Cyclic | Self::Contiguous => share(tokens, ranks, rank),
            Self::Zigzag => {
                share(tokens, 2 * ranks, rank) + share(tokens, 2 * ranks, 2 * ranks - 1 - rank)
            }
        }
    }

    /// The positions of a rank, ascending; none where there are fewer tokens than ranks.
    pub fn positions(self, rank: usize, ranks: usize, tokens: usize) -> Vec<usize> {
        let part = |number, parts| {
            let before = |number| (0..number).map(|i| share(tokens, parts, i)).sum::<usize>();
            before(number)..before(number + 1)
        };
        match self {
            Self::Cyclic => (rank..tokens).step_by(ranks).collect(),
            Self::Contiguous => part(rank, ranks).collect(),
            Self::Zigzag => part(rank, 2 * ranks)
                .chain(part(2 * ranks - 1 - rank, 2 * ranks))
                .collect(),
        }
    }
}

impl Method {
    /// How tokens must be dealt.
    pub fn layout(&self) -> Layout {
        match self {
            Self::Attention2D { .. } | Self::GatherKv => Layout::Cyclic,
            Self::Ring { zigzag: true } => Layout::Zigzag,
            Self::Ring { zigzag: false } | Self::Ulysses => Layout::Contiguous,
        }
    }
}
