//! DeepSpeed Ulysses (Jacobs et al., arXiv 2309.14509): an all-to-all from a part of the tokens with all heads to all
//! tokens with a part of the heads, local attention, and an all-to-all back.

use crate::comm::collective::Member;
use crate::comm::communicator::Comm;
use crate::error::Result;
use crate::methods::method::Method;
use crate::methods::rows::{RowShape, Rows};
use crate::methods::task::{Forward, Partial, Saved, Task, delta, local};
use crate::methods::wire::WireDtype;
use burn::tensor::Tensor;
use tessera_backend::ops;

/// Ulysses on the ranks of a communicator.
#[derive(Debug, Clone)]
pub struct Ulysses {
    pub(crate) comm: Comm,
}

impl Ulysses {
    pub(crate) fn forward(&self, task: &Task, [q, k, v]: [Tensor<4>; 3]) -> Result<Forward> {
        let [q, k, v] = self.to_heads(task, [&q, &k, &v], task.wire_dtype)?;
        let all: Vec<_> = (0..task.tokens).collect();
        let qkv = [q.clone(), k.clone(), v.clone()];
        let Partial { out, lse } = local(qkv, task, &all, &all);
        let [own] = self.to_tokens(task, [&out])?;
        let saved = Saved { q, k, v, out, lse };
        Ok(Forward { out: own, saved })
    }

    pub(crate) fn backward(
        &self,
        task: &Task,
        saved: Saved,
        d_out: Tensor<4>,
    ) -> Result<[Tensor<4>; 3]> {
        let [d_out] = self.to_heads(task, [&d_out], task.wire_dtype)?;
        let all: Vec<_> = (0..task.tokens).collect();
        let (delta, mask) = (delta(&saved.out, &d_out), task.mask.between(&all, &all));
        let qkv = [saved.q, saved.k, saved.v];
        let [dq, dk, dv] = ops::attention_gradients(qkv, d_out, saved.lse, delta, mask);
        self.to_tokens(task, [&dq, &dk, &dv])
    }

    /// From a part of the tokens to a part of the heads.
    ///
    /// # Shapes
    /// - tensors: `[batch, heads, local_tokens, features]`
    /// - outputs: `[batch, heads / P, tokens, features]`
    fn to_heads<const N: usize>(
        &self,
        task: &Task,
        tensors: [&Tensor<4>; N],
        dtype: WireDtype,
    ) -> Result<[Tensor<4>; N]> {
        let (size, counts) = (self.comm.size(), self.counts(task));
        let own = counts[self.comm.rank()];
        let heads_of = |rank: usize| {
            let parts = tensors.map(|tensor| {
                let heads = tensor.dims()[1] / size;
                tensor.clone().narrow(1, rank * heads, heads) // [batch, heads / P, local_tokens, features]
            });
            Rows::of(&parts.each_ref())
        };
        let rows = Rows::concat((0..size).map(heads_of));
        let rows = rows.all_to_all(&self.comm, &vec![own; size], &counts, dtype)?;
        let shapes = tensors.map(|tensor| {
            let shape = RowShape::of(tensor);
            RowShape {
                heads: shape.heads / size,
                ..shape
            }
        });
        Ok(rows.tensors(shapes, &tensors[0].device()))
    }

    /// From a part of the heads to a part of the tokens.
    ///
    /// # Shapes
    /// - tensors: `[batch, heads / P, tokens, features]`
    /// - outputs: `[batch, heads, local_tokens, features]`
    fn to_tokens<const N: usize>(
        &self,
        task: &Task,
        tensors: [&Tensor<4>; N],
    ) -> Result<[Tensor<4>; N]> {
        let (size, counts) = (self.comm.size(), self.counts(task));
        let own = counts[self.comm.rank()];
        let rows = Rows::of(&tensors);
        let rows = rows.all_to_all(&self.comm, &counts, &vec![own; size], WireDtype::F32)?;
        // Each rank sent its part of the heads.
        let length = own * rows.width;
        let mut by_tensor = tensors.map(|_| Vec::with_capacity(size));
        for rank in 0..size {
            let part = Rows {
                values: rows.values[rank * length..][..length].to_vec(),
                width: rows.width,
            };
            let parts = part.tensors_like(tensors);
            for (tensor, part) in by_tensor.iter_mut().zip(parts) {
                tensor.push(part);
            }
        }
        Ok(by_tensor.map(|parts| Tensor::cat(parts, 1))) // [batch, heads, local_tokens, features]
    }

    /// Tokens of each rank.
    fn counts(&self, task: &Task) -> Vec<usize> {
        let layout = Method::Ulysses.layout();
        Member::all(self.comm.size())
            .map(|member| layout.count(member, task.tokens))
            .collect()
    }
}
