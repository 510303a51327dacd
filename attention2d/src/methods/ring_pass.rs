//! The two patterns of all overlapped methods: [`RingPass`] passes blocks around a ring of ranks, each computing on the
//! block it holds; [`ring_reduce`] passes sums around, each rank computing its contribution.

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

/// Tokens that are sent together.
#[derive(Debug)]
pub(crate) struct Block {
    pub positions: Vec<usize>,
    pub rows: Rows,
}

/// One pass of blocks around a ring. Each step calls `compute` on the current block while it is sent on and the next
/// one arrives; the last block is not sent on. Yields the results of `compute`, one per block.
pub(crate) struct RingPass<'a, F> {
    ring: Ring<'a>,
    dtype: WireDtype,
    /// The block that this rank holds.
    current: Option<Block>,
    /// The positions of the blocks that are yet to arrive.
    coming: vec::IntoIter<Vec<usize>>,
    compute: F,
}

impl<'a, T, F: FnMut(&Block) -> T> RingPass<'a, F> {
    /// A pass that begins with the block `rows`. `blocks` has the positions of all blocks in their order of arrival.
    pub fn new(
        ring: Ring<'a>,
        dtype: WireDtype,
        blocks: Vec<Vec<usize>>,
        rows: Rows,
        compute: F,
    ) -> Self {
        let mut coming = blocks.into_iter();
        let current = coming.next().map(|positions| Block { positions, rows });
        Self {
            ring,
            dtype,
            current,
            coming,
            compute,
        }
    }
}

impl<T, F: FnMut(&Block) -> T> Iterator for RingPass<'_, F> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let block = self.current.take()?;
        let mut compute = || (self.compute)(&block);
        let Some(positions) = self.coming.next() else {
            return Some(Ok(compute()));
        };
        let Ring { comm, peers } = self.ring;
        let tokens = positions.len();
        let sent = block
            .rows
            .send_recv_while(comm, peers, tokens, self.dtype, compute);
        Some(sent.map(|(rows, result)| {
            self.current = Some(Block { positions, rows });
            result
        }))
    }
}

/// Values that a ring can sum up.
pub(crate) trait Accumulate {
    fn rows(&self) -> &Rows;

    /// This rank's contribution plus the sum that arrived.
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

/// A reduce-scatter around a ring (algorithm 7). Each step sends the current sum on, computes this rank's contribution
/// while the next sum arrives, and adds the two. `tokens` has the number of tokens of each contribution.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    const RANKS: usize = 4;

    fn rows(values: &[f32]) -> Rows {
        Rows {
            values: values.to_vec(),
            width: 1,
        }
    }

    fn ring(comm: &Comm) -> Ring<'_> {
        Ring {
            comm,
            peers: comm.ring_forward(),
        }
    }

    /// Rank r has r + 1 tokens with the value r.
    fn blocks(comm: &Comm) -> (Vec<Vec<usize>>, Rows) {
        let owners = (0..RANKS).map(|step| (comm.rank() + RANKS - step) % RANKS);
        let blocks = owners.map(|owner| vec![owner; owner + 1]).collect();
        (blocks, rows(&vec![comm.rank() as f32; comm.rank() + 1]))
    }

    #[test]
    fn a_pass_computes_on_every_block_and_keeps_the_last() -> Result<()> {
        threads::run(RANKS, |comm| {
            let (blocks, own) = blocks(&comm);
            let expected = blocks.clone();
            let seen = |block: &Block| {
                let values = block.rows.values.iter().map(|&value| value as usize);
                (values.collect::<Vec<_>>(), block.positions.clone())
            };
            let pass = RingPass::new(ring(&comm), WireDtype::F32, blocks, own, seen);
            let seen = pass.collect::<Result<Vec<_>>>()?;
            let expected: Vec<_> = expected
                .into_iter()
                .map(|block| (block.clone(), block))
                .collect();
            assert_eq!(seen, expected);
            assert_eq!(comm.traffic().messages(), RANKS as u64 - 1);
            Ok(())
        })?;
        Ok(())
    }

    #[test]
    fn a_reduction_sums_the_contributions_of_all_ranks() -> Result<()> {
        threads::run(RANKS, |comm| {
            let (blocks, own) = blocks(&comm);
            let tokens: Vec<_> = blocks.iter().map(Vec::len).collect();
            let scale = 10.0 + comm.rank() as f32;
            let contribution = |block: &Block| {
                let values = block.rows.values.iter().map(|value| scale * value);
                rows(&values.collect::<Vec<_>>())
            };
            let pass = RingPass::new(ring(&comm), WireDtype::F32, blocks, own, contribution);
            let sum = ring_reduce(ring(&comm), &tokens, pass)?;
            // The last block is that of the next rank.
            let owner = (comm.rank() + 1) % RANKS;
            let expected = (10.0 + 11.0 + 12.0 + 13.0) * owner as f32;
            assert_eq!(sum.values, vec![expected; owner + 1]);
            Ok(())
        })?;
        Ok(())
    }
}
