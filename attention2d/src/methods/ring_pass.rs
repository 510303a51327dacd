//! Rings of ranks: blocks that travel around one while each rank computes on the block it holds, and sums that travel
//! around one while each rank computes its contribution.

use crate::comm::collective::Peers;
use crate::comm::communicator::Comm;
use crate::error::Result;
use crate::methods::rows::Rows;
use crate::methods::state::State;
use crate::methods::wire::WireDtype;
use std::vec;

/// A ring of ranks with a direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ring<'a> {
    pub comm: &'a Comm,
    pub peers: Peers,
}

/// Tokens that travel together.
#[derive(Debug)]
pub(crate) struct Block {
    pub positions: Vec<usize>,
    pub rows: Rows,
}

/// One trip of blocks around a ring: each step computes on the block that is here while it is sent on and the next one
/// arrives. The last block is not sent on. Yields what `compute` returns, step by step.
pub(crate) struct RingPass<'a, F> {
    ring: Ring<'a>,
    dtype: WireDtype,
    here: Option<Block>,
    /// The positions of the blocks to come.
    coming: vec::IntoIter<Vec<usize>>,
    compute: F,
}

impl<'a, T, F: FnMut(&Block) -> T> RingPass<'a, F> {
    /// A trip that begins with `rows`; `blocks` are the positions of all blocks in the order in which they get here.
    pub fn new(
        ring: Ring<'a>,
        dtype: WireDtype,
        blocks: Vec<Vec<usize>>,
        rows: Rows,
        compute: F,
    ) -> Self {
        let mut coming = blocks.into_iter();
        let here = coming.next().map(|positions| Block { positions, rows });
        Self {
            ring,
            dtype,
            here,
            coming,
            compute,
        }
    }
}

impl<T, F: FnMut(&Block) -> T> Iterator for RingPass<'_, F> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let here = self.here.take()?;
        let mut compute = || (self.compute)(&here);
        let Some(positions) = self.coming.next() else {
            return Some(Ok(compute()));
        };
        let Ring { comm, peers } = self.ring;
        let tokens = positions.len();
        let sent = here
            .rows
            .send_recv_while(comm, peers, tokens, self.dtype, compute);
        Some(sent.map(|(rows, result)| {
            self.here = Some(Block { positions, rows });
            result
        }))
    }
}

/// What a ring can add up.
pub(crate) trait Accumulate {
    fn rows(&self) -> &Rows;

    /// Adds the sum that arrived to this contribution.
    fn accumulate(self, sum: &Rows) -> Self;
}

/// Softmax states, by ⊕.
impl Accumulate for State {
    fn rows(&self) -> &Rows {
        &self.rows
    }

    fn accumulate(self, sum: &Rows) -> Self {
        self.merge(&sum.values)
    }
}

/// Gradients, by +.
impl Accumulate for Rows {
    fn rows(&self) -> &Rows {
        self
    }

    fn accumulate(mut self, sum: &Rows) -> Self {
        for (own, &arrived) in self.values.iter_mut().zip(&sum.values) {
            *own += arrived;
        }
        self
    }
}

/// A reduce-scatter around a ring (algorithm 7): each step sends the sum on, computes this rank's contribution to the
/// sum that arrives meanwhile, and adds the two. `tokens` are those of the contributions.
pub(crate) fn ring_reduce<T: Accumulate>(
    Ring { comm, peers }: Ring<'_>,
    tokens: &[usize],
    contributions: impl IntoIterator<Item = Result<T>>,
) -> Result<T> {
    let mut contributions = contributions.into_iter();
    let mut next = || contributions.next().expect("one contribution per step");
    let mut sum = next()?;
    for &tokens in &tokens[1..] {
        let (arrived, own) =
            sum.rows()
                .send_recv_while(comm, peers, tokens, WireDtype::F32, &mut next)?;
        sum = own?.accumulate(&arrived);
    }
    Ok(sum)
}
