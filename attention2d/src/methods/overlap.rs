//! The forward pass of Attention2D with communication behind computation (algorithms 4 to 6).

use crate::error::Result;
use crate::methods::gather::LineTokens;
use crate::methods::grid_attention::GridAttention;
use crate::methods::ring_pass::{Block, RingPass, ring_reduce};
use crate::methods::rows::Rows;
use crate::methods::state::State;
use crate::methods::task::{Task, local};
use burn::tensor::Tensor;
use std::iter;

impl GridAttention {
    /// Algorithm 4 after the transpose: the queries of the next column are in flight during algorithm 5; then follows
    /// algorithm 6.
    ///
    /// # Shapes
    /// - q: `[batch, heads, local_tokens, head_dim]`
    /// - k, v: `[batch, kv_heads, local_tokens, head_dim]`, transposed
    pub(super) fn overlapped(&self, task: &Task, [q, k, v]: [&Tensor<4>; 3]) -> Result<State> {
        let mut gathered = Rows::empty(&[k, v]);
        let mut gather_compute = || self.gather_compute(task, [q, k, v], &mut gathered);
        if self.row.comm.size() == 1 {
            return gather_compute();
        }
        let ring = self.row.ring();
        let tokens = self.positions(task, self.row.ahead(1)).len();
        let (next_q, own) = Rows::of(&[q]).send_recv_while(
            ring.comm,
            ring.peers,
            tokens,
            task.wire_dtype,
            gather_compute,
        )?;
        let order = LineTokens::of(&self.key_blocks(task)).order;
        let [k, v] = gathered.select(&order).tensors_like([k, v]); // K_g, V_g
        self.gather_compute_scatter(task, [q, &k, &v], next_q, own?)
    }

    /// GthrCmpt (algorithm 5): keys and values travel around the column while the own queries attend to them. Appends
    /// every block to `gathered`.
    fn gather_compute(
        &self,
        task: &Task,
        [q, k, v]: [&Tensor<4>; 3],
        gathered: &mut Rows,
    ) -> Result<State> {
        let queries = self.positions(task, self.world.rank());
        let attend = |kv: &Block| {
            gathered.values.extend_from_slice(&kv.rows.values);
            let [k, v] = kv.rows.clone().tensors_like([k, v]);
            State::of(local([q.clone(), k, v], task, &queries, &kv.positions))
        };
        let (ring, blocks) = (self.column.ring(), self.key_blocks(task));
        let pass = RingPass::new(ring, task.wire_dtype, blocks, Rows::of(&[k, v]), attend);
        State::merge_all(pass)
    }

    /// GthrCmptSctr (algorithm 6): queries travel around the row and attend to all keys of the column. Their states
    /// follow one step behind and merge with those of each rank, at last with the `own` state of their owner.
    fn gather_compute_scatter(
        &self,
        task: &Task,
        [q, k, v]: [&Tensor<4>; 3],
        next_q: Rows,
        own: State,
    ) -> Result<State> {
        let keys = self.column_keys(task).positions;
        let attend = |queries: &Block| {
            let [q] = queries.rows.clone().tensors_like([q]);
            let qkv = [q, k.clone(), v.clone()];
            State::of(local(qkv, task, &queries.positions, &keys))
        };
        // The queries of the columns ahead, nearest first, and the own ones.
        let steps = 1..=self.row.comm.size();
        let mut blocks: Vec<_> = steps
            .map(|step| self.positions(task, self.row.ahead(step)))
            .collect();
        let tokens: Vec<_> = blocks.iter().map(Vec::len).collect();
        blocks.pop();
        let ring = self.row.ring();
        let pass = RingPass::new(ring, task.wire_dtype, blocks, next_q, attend);
        ring_reduce(ring, &tokens, pass.chain(iter::once(Ok(own))))
    }

    /// The positions of the column's keys, by block in order of arrival.
    fn key_blocks(&self, task: &Task) -> Vec<Vec<usize>> {
        (0..self.column.comm.size())
            .map(|step| self.key_positions(task, self.column.ahead(step)))
            .collect()
    }
}
