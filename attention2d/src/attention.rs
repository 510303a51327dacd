//! Attention by any of the methods: what goes in at each rank, and what comes out.

use crate::mask::Mask;
use crate::volume::check;
use crate::{
    Comm, Layout, Method, Payload, Result, Shape, grid_attention::Attention2D, ring, ulysses,
};
use burn::tensor::Tensor;
use tessera_backend::device_indices;
use tessera_backend::ops;

/// One attention over all ranks.
#[derive(Debug, Clone)]
pub struct Task {
    /// N, tokens of all ranks together.
    pub tokens: usize,
    /// Which see which.
    pub mask: Mask,
    /// As what queries, keys and values travel.
    pub payload: Payload,
}

/// What the forward pass leaves for the backward pass, and its output.
#[derive(Debug, Clone)]
pub struct Forward {
    /// The output of this rank's tokens: `[batch, heads, tokens here, head_dim]`.
    pub out: Tensor<4>,
    /// As the method wants them back.
    pub saved: Saved,
}

/// Tensors that a backward pass wants back; not all methods keep what they were given.
#[derive(Debug, Clone)]
pub struct Saved {
    pub(crate) q: Tensor<4>,
    pub(crate) k: Tensor<4>,
    pub(crate) v: Tensor<4>,
    pub(crate) out: Tensor<4>,
    pub(crate) lse: Tensor<3>,
}

impl Saved {
    /// In the order q, k, v, out, and the log-sum-exp with an axis of 1 at its end.
    pub(crate) fn into_tensors(self) -> Vec<Tensor<4>> {
        let lse = self.lse.unsqueeze_dim(3);
        vec![self.q, self.k, self.v, self.out, lse]
    }

    pub(crate) fn from_tensors(tensors: Vec<Tensor<4>>) -> Self {
        let [q, k, v, out, lse] = <[_; 5]>::try_from(tensors).expect("five were saved");
        Self {
            q,
            k,
            v,
            out,
            lse: lse.squeeze_dim::<3>(3),
        }
    }
}

/// A method on the ranks of a communicator.
#[derive(Debug, Clone)]
pub struct Distributed {
    method: Method,
    comm: Comm,
    /// Of Attention2D, and of gathering keys and values, which is its P×1 grid.
    grid: Option<Attention2D>,
}

impl Distributed {
    /// Makes the groups that the method needs; all ranks call it.
    ///
    /// # Errors
    /// When the ranks cannot do the method, or one failed.
    pub fn new(comm: &Comm, method: Method) -> Result<Self> {
        let ranks = comm.size();
        // Which heads there are, only a pass knows.
        let shape = Shape {
            batch: 1,
            tokens: 1,
            heads: ranks,
            kv_heads: ranks,
            head_dim: 1,
        };
        check(method, shape, ranks)?;
        Ok(Self {
            grid: Attention2D::new(comm, &method)?,
            comm: comm.clone(),
            method,
        })
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The ranks.
    pub fn comm(&self) -> &Comm {
        &self.comm
    }

    /// How tokens are dealt.
    pub fn layout(&self) -> Layout {
        self.method.layout()
    }

    /// The positions of this rank's tokens.
    pub fn positions(&self, tokens: usize) -> Vec<usize> {
        self.layout()
            .positions(self.comm.rank(), self.comm.size(), tokens)
    }

    /// This rank's share of the attention, exact as if one rank had it all.
    ///
    /// # Shapes
    /// - q: `[batch, heads, tokens here, head_dim]`
    /// - k, v: `[batch, kv_heads, tokens here, head_dim]`
    ///
    /// # Errors
    /// When a rank failed, or the heads do not fit the method.
    pub fn forward(&self, task: &Task, [q, k, v]: [Tensor<4>; 3]) -> Result<Forward> {
        let shape = Shape::of(&q, &k, task.tokens);
        check(self.method, shape, self.comm.size())?;
        match (&self.grid, self.method) {
            (Some(grid), _) => grid.forward(task, [q, k, v]),
            (None, Method::Ulysses) => ulysses::forward(self, task, [q, k, v]),
            (None, _) => ring::forward(self, task, [q, k, v]),
        }
    }

    /// The gradients of this rank's q, k and v.
    ///
    /// # Shapes
    /// - d_out: as the output
    /// - outputs: as q, k and v
    ///
    /// # Errors
    /// When a rank failed.
    pub fn backward(&self, task: &Task, saved: Saved, d_out: Tensor<4>) -> Result<[Tensor<4>; 3]> {
        match (&self.grid, self.method) {
            (Some(grid), _) => grid.backward(task, saved, d_out),
            (None, Method::Ulysses) => ulysses::backward(self, task, saved, d_out),
            (None, _) => ring::backward(self, task, saved, d_out),
        }
    }
}

/// δ, the sum of `d_out · out` over the features (of the softmax's gradient).
pub(crate) fn delta(out: &Tensor<4>, d_out: &Tensor<4>) -> Tensor<3> {
    (out.clone() * d_out.clone()).sum_dim(3).squeeze_dim::<3>(3)
}

/// The kernel, on the tokens at hand.
pub(crate) fn local(
    [q, k, v]: [Tensor<4>; 3],
    task: &Task,
    queries: &[usize],
    keys: &[usize],
) -> (Tensor<4>, Tensor<3>) {
    ops::attention_with_lse(q, k, v, task.mask.between(queries, keys))
}

/// The tensor's share of a rank, of a sequence that is here as a whole: `[batch, heads, tokens, features]`.
pub fn deal(tensor: &Tensor<4>, positions: &[usize]) -> Tensor<4> {
    let rows = positions.iter().map(|&position| position as i32);
    let rows = device_indices(rows.collect(), [positions.len()], &tensor.device());
    tensor.clone().select(2, rows)
}

impl Shape {
    /// The sizes of tensors as a rank has them, `tokens` being of all ranks.
    pub fn of(q: &Tensor<4>, k: &Tensor<4>, tokens: usize) -> Self {
        let ([batch, heads, _, head_dim], [_, kv_heads, ..]) = (q.dims(), k.dims());
        Self {
            batch,
            tokens,
            heads,
            kv_heads,
            head_dim,
        }
    }
}
