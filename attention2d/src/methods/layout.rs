//! Which rank owns which tokens.

use crate::comm::collective::Member;
use crate::methods::method::Method;
use crate::methods::shape::Shape;

/// How the tokens of a sequence are sharded over ranks. Each rank's tokens are in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Rank p owns the positions that are p mod P, which balances a causal mask on a grid.
    Cyclic,
    /// Rank p owns the p-th of P contiguous parts.
    Contiguous,
    /// Rank p owns parts p and 2P − 1 − p of 2P contiguous parts, which balances a causal mask on a ring.
    Zigzag,
}

impl Layout {
    /// How many of `tokens` tokens a rank owns.
    pub fn count(self, member: Member, tokens: usize) -> usize {
        match self {
            Self::Cyclic | Self::Contiguous => member.share(tokens),
            Self::Zigzag => halves(member)
                .iter()
                .map(|half| half.share(tokens))
                .sum::<usize>(),
        }
    }

    /// The positions that a rank owns, ascending; possibly none where there are fewer tokens than ranks.
    pub fn positions(self, member: Member, tokens: usize) -> Vec<usize> {
        let part = |part: Member| {
            let before = Member::all(part.ranks).take(part.rank);
            let start: usize = before.map(|other| other.share(tokens)).sum();
            start..start + part.share(tokens)
        };
        match self {
            Self::Cyclic => (member.rank..tokens).step_by(member.ranks).collect(),
            Self::Contiguous => part(member).collect(),
            Self::Zigzag => halves(member).into_iter().flat_map(part).collect(),
        }
    }
}

/// The two parts of a rank in [`Layout::Zigzag`].
fn halves(Member { rank, ranks }: Member) -> [Member; 2] {
    [rank, 2 * ranks - 1 - rank].map(|rank| Member {
        rank,
        ranks: 2 * ranks,
    })
}

impl Method {
    /// How tokens must be sharded for this method.
    pub fn layout(&self) -> Layout {
        match self {
            Self::Attention2D { .. } | Self::GatherKv => Layout::Cyclic,
            Self::Ring { zigzag: true } => Layout::Zigzag,
            Self::Ring { zigzag: false } | Self::Ulysses => Layout::Contiguous,
        }
    }

    /// How many tokens of each sequence each of `ranks` ranks owns.
    pub fn tokens_per_rank(&self, shape: Shape, ranks: usize) -> Vec<u64> {
        let count = |member| self.layout().count(member, shape.tokens) as u64;
        Member::all(ranks).map(count).collect()
    }
}
