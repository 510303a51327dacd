//! Gathers and reductions along one line of the grid, a row or a column, with tokens in ascending order of position.

use crate::comm::communicator::Comm;
use crate::error::Result;
use crate::methods::ring_pass::Ring;
use crate::methods::rows::Rows;
use crate::methods::wire::WireDtype;
use burn::tensor::Tensor;

/// The ranks of a row or a column.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub comm: Comm,
    /// The ranks of the job, in the order of the line.
    pub ranks: Vec<usize>,
}

/// The tokens of a line's ranks, in ascending order.
pub(crate) struct LineTokens {
    /// Their positions, ascending.
    pub positions: Vec<usize>,
    /// For each of them, its row in the order of the ranks.
    pub order: Vec<usize>,
    /// How many each rank has.
    pub counts: Vec<usize>,
}

impl LineTokens {
    /// Of the positions that each rank has.
    pub fn of(lists: &[Vec<usize>]) -> Self {
        let all = lists.iter().flatten().copied().enumerate();
        let mut sorted: Vec<_> = all.map(|(row, position)| (position, row)).collect();
        sorted.sort_unstable();
        let (positions, order) = sorted.into_iter().unzip();
        Self {
            positions,
            order,
            counts: lists.iter().map(Vec::len).collect(),
        }
    }

    /// The inverse of `order`: for each row in the order of the ranks, its place among the ascending positions.
    pub fn inverse(&self) -> Vec<usize> {
        let mut inverse = vec![0; self.order.len()];
        for (place, &row) in self.order.iter().enumerate() {
            inverse[row] = place;
        }
        inverse
    }
}

impl Line {
    /// The rank of the job that is `steps` places further along the line, cyclically.
    pub fn ahead(&self, steps: usize) -> usize {
        self.ranks[(self.comm.rank() + steps) % self.comm.size()]
    }

    /// The ring on which blocks come from the ranks ahead, nearest first.
    pub fn ring(&self) -> Ring<'_> {
        Ring {
            comm: &self.comm,
            peers: self.comm.ring_backward(),
        }
    }

    /// All-gather: the tokens of all ranks of the line, in ascending order of position.
    ///
    /// # Shapes
    /// - tensors: `[batch, heads, local_tokens, features]`
    /// - outputs: `[batch, heads, line_tokens, features]`
    pub fn all_gather<const N: usize>(
        &self,
        tokens: &LineTokens,
        tensors: [&Tensor<4>; N],
        dtype: WireDtype,
    ) -> Result<[Tensor<4>; N]> {
        let rows = Rows::of(&tensors).all_gather(&self.comm, &tokens.counts, dtype)?;
        Ok(rows.select(&tokens.order).tensors_like(tensors))
    }

    /// Reduce-scatter: the sum over all ranks of the line, for this rank's tokens.
    ///
    /// # Shapes
    /// - tensors: `[batch, heads, line_tokens, features]`
    /// - outputs: `[batch, heads, local_tokens, features]`
    pub fn reduce_scatter<const N: usize>(
        &self,
        tokens: &LineTokens,
        tensors: [&Tensor<4>; N],
    ) -> Result<[Tensor<4>; N]> {
        let by_rank = Rows::of(&tensors).select(&tokens.inverse());
        let sum = by_rank.reduce_scatter(&self.comm, &tokens.counts)?;
        Ok(sum.tensors_like(tensors))
    }
}
