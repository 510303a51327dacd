//! Attention2D on a grid: the forward pass without overlap (algorithm 1) and the backward pass. The forward pass with
//! overlap is in `overlap.rs`, the reduce-scatter along a row in `reduce_scatter.rs`.

use crate::comm::collective::{Member, Peers};
use crate::comm::communicator::Comm;
use crate::error::Result;
use crate::methods::gather::{Line, LineTokens};
use crate::methods::grid::{Grid, Place};
use crate::methods::layout::Layout;
use crate::methods::method::{Keys, Merge, Method};
use crate::methods::reduce_scatter::reduce_scatter;
use crate::methods::rows::Rows;
use crate::methods::state::State;
use crate::methods::task::{Forward, Partial, Saved, Task, delta, local};
use crate::methods::wire::WireDtype;
use burn::tensor::Tensor;
use tessera_backend::ops;

/// Attention2D on the ranks of a grid.
#[derive(Debug, Clone)]
pub struct GridAttention {
    pub(super) method: Method,
    pub(super) world: Comm,
    grid: Grid,
    merge: Merge,
    keys: Keys,
    overlap: bool,
    /// The ranks that queries and outputs are communicated with.
    pub(super) row: Line,
    /// The ranks that keys and values are communicated with.
    pub(super) column: Line,
}

impl GridAttention {
    /// Attention2D, or gathering keys and values as its P×1 grid. All ranks call it, to form the rows and columns.
    pub(super) fn new(world: &Comm, method: Method) -> Result<Self> {
        let (grid, merge, keys, overlap) = match method {
            Method::Attention2D {
                grid,
                merge,
                keys,
                overlap,
            } => (grid, merge, keys, overlap),
            _ => {
                let grid = Grid::new(world.size(), 1)?;
                (grid, Merge::default(), Keys::default(), false)
            }
        };
        let Place { row, col } = grid.place(world.rank());
        Ok(Self {
            row: Line {
                comm: world.split(row, col)?,
                ranks: grid.row(row).collect(),
            },
            column: Line {
                comm: world.split(col, row)?,
                ranks: grid.column(col).collect(),
            },
            method,
            world: world.clone(),
            grid,
            merge,
            keys,
            overlap,
        })
    }

    /// Algorithm 1, or with overlap algorithm 4.
    pub(super) fn forward(&self, task: &Task, [q, k, v]: [Tensor<4>; 3]) -> Result<Forward> {
        let [k, v] = self.transpose(task, [k, v])?; // K_t, V_t
        let state = match self.overlap {
            false => self.gathered(task, [&q, &k, &v])?,
            true => self.overlapped(task, [&q, &k, &v])?,
        };
        let Partial { out, lse } = state.partial(&q.device());
        let saved = Saved {
            q,
            k,
            v,
            out: out.clone(),
            lse,
        };
        Ok(Forward { out, saved })
    }

    /// Algorithm 1 after the transpose: gathers along both sides, one local attention, a reduce-scatter along the row.
    fn gathered(&self, task: &Task, [q, k, v]: [&Tensor<4>; 3]) -> Result<State> {
        let (queries, keys) = (self.row_queries(task), self.column_keys(task));
        let [q] = self.row.all_gather(&queries, [q], task.wire_dtype)?; // Q_g
        let [k, v] = self.column.all_gather(&keys, [k, v], task.wire_dtype)?; // K_g, V_g
        let part = State::of(local([q, k, v], task, &queries.positions, &keys.positions));
        let by_rank = part.with(part.rows.select(&queries.inverse()));
        reduce_scatter(&self.row, self.merge, by_rank, &queries.counts)
    }

    /// The gradients of this rank's q, k and v: gathers as in the forward pass, with dO, L and δ beside Q; one backward
    /// kernel; sums along both sides. Keys and values were saved transposed, so only their gradients are exchanged.
    ///
    /// Derived from the forward pass: the text of the paper's algorithm 3 was not available.
    pub(super) fn backward(
        &self,
        task: &Task,
        saved: Saved,
        d_out: Tensor<4>,
    ) -> Result<[Tensor<4>; 3]> {
        let Saved { q, k, v, out, lse } = saved;
        let (queries, keys) = (self.row_queries(task), self.column_keys(task));
        let delta = delta(&out, &d_out).unsqueeze_dim::<4>(3); // [batch, heads, local_tokens, 1]
        let lse = lse.unsqueeze_dim::<4>(3); // [batch, heads, local_tokens, 1]
        let dtype = task.wire_dtype;
        let [q, d_out] = self.row.all_gather(&queries, [&q, &d_out], dtype)?;
        let scalars = [&lse, &delta];
        let [lse, delta] = self.row.all_gather(&queries, scalars, WireDtype::F32)?;
        let [k, v] = self.column.all_gather(&keys, [&k, &v], dtype)?;
        let mask = task.mask.between(&queries.positions, &keys.positions);
        let [lse, delta] = [lse, delta].map(|x| x.squeeze_dim::<3>(3)); // [batch, heads, row_tokens]
        let [dq, dk, dv] = ops::attention_gradients([q, k, v], d_out, lse, delta, mask);
        let [dq] = self.row.reduce_scatter(&queries, [&dq])?;
        let dkv = self.column.reduce_scatter(&keys, [&dk, &dv])?;
        let [dk, dv] = self.transpose_gradients(task, dkv)?;
        Ok([dq, dk, dv])
    }

    /// Exchanges keys and values with the transposed rank (algorithm 1, line 1).
    fn transpose(&self, task: &Task, kv: [Tensor<4>; 2]) -> Result<[Tensor<4>; 2]> {
        let peers = self.grid.transposed(self.world.rank());
        let tokens = self.positions(task, peers.from).len();
        self.exchange(kv, peers, tokens, task.wire_dtype)
    }

    /// Returns the gradients of keys and values to their owners.
    fn transpose_gradients(&self, task: &Task, dkv: [Tensor<4>; 2]) -> Result<[Tensor<4>; 2]> {
        let rank = self.world.rank();
        let Peers { to, from } = self.grid.transposed(rank);
        let back = Peers { to: from, from: to };
        let tokens = self.positions(task, rank).len();
        self.exchange(dkv, back, tokens, WireDtype::F32)
    }

    /// An exchange in which all ranks take part, also those on the diagonal, which keep what they have. Without
    /// transposed keys, or on a grid of one row or column, there is none.
    fn exchange(
        &self,
        [a, b]: [Tensor<4>; 2],
        peers: Peers,
        tokens: usize,
        dtype: WireDtype,
    ) -> Result<[Tensor<4>; 2]> {
        if self.keys == Keys::AsSharded || self.grid.rows == 1 || self.grid.cols == 1 {
            return Ok([a, b]);
        }
        let rows = Rows::of(&[&a, &b]).send_recv(&self.world, peers, tokens, dtype)?;
        Ok(rows.tensors_like([&a, &b]))
    }

    /// The positions of the tokens that a rank owns.
    pub(super) fn positions(&self, task: &Task, rank: usize) -> Vec<usize> {
        let ranks = self.grid.ranks();
        Layout::Cyclic.positions(Member { rank, ranks }, task.tokens)
    }

    /// The positions of the keys that a rank contributes to its column.
    pub(super) fn key_positions(&self, task: &Task, rank: usize) -> Vec<usize> {
        match self.keys {
            Keys::AsSharded => self.positions(task, rank),
            Keys::Transposed => self.positions(task, self.grid.transposed(rank).from),
        }
    }

    fn row_queries(&self, task: &Task) -> LineTokens {
        let of = |&rank: &usize| self.positions(task, rank);
        LineTokens::of(&self.row.ranks.iter().map(of).collect::<Vec<_>>())
    }

    pub(super) fn column_keys(&self, task: &Task) -> LineTokens {
        let of = |&rank: &usize| self.key_positions(task, rank);
        LineTokens::of(&self.column.ranks.iter().map(of).collect::<Vec<_>>())
    }
}
