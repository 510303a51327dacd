//! Ring Attention (Liu et al., arXiv 2310.01889), plain and zigzag: keys and values travel around all ranks, and each
//! rank computes on the block it holds while the next one is in flight.

use crate::comm::collective::Member;
use crate::comm::communicator::Comm;
use crate::error::Result;
use crate::methods::method::Method;
use crate::methods::ring_pass::{Block, Ring, RingPass, ring_reduce};
use crate::methods::rows::Rows;
use crate::methods::state::State;
use crate::methods::task::{Forward, Partial, Saved, Task, delta, local};
use crate::methods::wire::WireDtype;
use burn::tensor::Tensor;
use tessera_backend::ops;

/// Ring Attention on the ranks of a communicator.
#[derive(Debug, Clone)]
pub struct RingAttention {
    pub(crate) comm: Comm,
    pub(crate) method: Method,
}

impl RingAttention {
    pub(crate) fn forward(&self, task: &Task, [q, k, v]: [Tensor<4>; 3]) -> Result<Forward> {
        let blocks = self.blocks(task);
        let queries = blocks[0].clone();
        let attend = |kv: &Block| {
            let [k, v] = kv.rows.clone().tensors_like([&k, &v]);
            State::of(local([q.clone(), k, v], task, &queries, &kv.positions))
        };
        let kv = Rows::of(&[&k, &v]);
        let pass = RingPass::new(self.ring(), task.wire_dtype, blocks, kv, attend);
        let Partial { out, lse } = State::merge_all(pass)?.partial(&q.device());
        let saved = Saved {
            q,
            k,
            v,
            out: out.clone(),
            lse,
        };
        Ok(Forward { out, saved })
    }

    /// Keys and values travel as in the forward pass. Their gradients follow one step behind, collect every rank's
    /// contribution and return to their owner in one step more.
    pub(crate) fn backward(
        &self,
        task: &Task,
        saved: Saved,
        d_out: Tensor<4>,
    ) -> Result<[Tensor<4>; 3]> {
        let Saved { q, k, v, out, lse } = saved;
        let blocks = self.blocks(task);
        let tokens: Vec<_> = blocks.iter().map(Vec::len).collect();
        let queries = blocks[0].clone();
        let delta = delta(&out, &d_out);
        let mut dq: Option<Tensor<4>> = None;
        let gradients = |kv: &Block| {
            let [k, v] = kv.rows.clone().tensors_like([&k, &v]);
            let mask = task.mask.between(&queries, &kv.positions);
            let (d_out, lse, delta) = (d_out.clone(), lse.clone(), delta.clone());
            let [dq_part, dk, dv] =
                ops::attention_gradients([q.clone(), k, v], d_out, lse, delta, mask);
            dq = Some(match dq.take() {
                None => dq_part,
                Some(dq) => dq + dq_part,
            });
            Rows::of(&[&dk, &dv])
        };
        let kv = Rows::of(&[&k, &v]);
        let pass = RingPass::new(self.ring(), task.wire_dtype, blocks, kv, gradients);
        let mut dkv = ring_reduce(self.ring(), &tokens, pass)?;
        if self.comm.size() > 1 {
            let Ring { comm, peers } = self.ring();
            dkv = dkv.send_recv(comm, peers, tokens[0], WireDtype::F32)?;
        }
        let [dk, dv] = dkv.tensors_like([&k, &v]);
        Ok([dq.expect("a ring has a rank"), dk, dv])
    }

    fn ring(&self) -> Ring<'_> {
        Ring {
            comm: &self.comm,
            peers: self.comm.ring_forward(),
        }
    }

    /// The positions of the keys, by block in order of arrival: this rank's own, then those of the ranks before it.
    fn blocks(&self, task: &Task) -> Vec<Vec<usize>> {
        let Member { rank, ranks } = self.comm.member();
        let layout = self.method.layout();
        let owner = |step| Member {
            rank: (rank + ranks - step) % ranks,
            ranks,
        };
        (0..ranks)
            .map(|step| layout.positions(owner(step), task.tokens))
            .collect()
    }
}
