//! [`TokenSharding`]: what a model needs to run on a shard of its tokens: take the shard, attend to all tokens, gather
//! them again.

use crate::comm::collective::Member;
use crate::comm::communicator::Comm;
use crate::error::{Error, Result};
use crate::methods::distributed::Distributed;
use crate::methods::grid::Grid;
use crate::methods::mask::Mask;
use crate::methods::method::Method;
use crate::methods::rows::Rows;
use crate::methods::task::{Saved, Task};
use crate::methods::wire::WireDtype;
use burn::tensor::Tensor;
use std::ops::Range;
use std::sync::Arc;
use tessera_backend::device_indices;
use tessera_backend::ops::{self, CustomOp};

/// Where the tokens of a model's sequences are.
#[derive(Debug, Clone, Default)]
pub enum TokenSharding {
    /// All tokens are on this rank.
    #[default]
    Local,
    /// Tokens are sharded over the ranks of a grid, whose attention is exact over all of them.
    Sharded(Arc<Distributed>),
}

impl TokenSharding {
    /// Sharding over a grid of all ranks of `comm`; all of them call it.
    ///
    /// # Errors
    /// When the grid has another number of ranks, or a rank failed.
    pub fn on_grid(comm: &Comm, grid: Grid) -> Result<Self> {
        let method = Method::attention2d(grid);
        Ok(match grid.ranks() {
            1 => Self::Local,
            _ => Self::Sharded(Arc::new(Distributed::new(comm, method)?)),
        })
    }

    /// The number of ranks that share a sequence.
    pub fn ranks(&self) -> usize {
        self.member().ranks
    }

    /// This rank, of those that share a sequence.
    fn member(&self) -> Member {
        match self {
            Self::Local => Member { rank: 0, ranks: 1 },
            Self::Sharded(attention) => attention.comm().member(),
        }
    }

    /// Sequences of `tokens` tokens. With fewer tokens than ranks every rank keeps all of them.
    pub fn of(&self, tokens: usize) -> Tokens<'_> {
        let attention = match self {
            Self::Sharded(attention) if tokens >= self.ranks() => Some(attention),
            _ => None,
        };
        Tokens { attention, tokens }
    }

    /// This rank's part of `len` independent items, such as rows of a head, split as evenly as possible.
    pub fn part(&self, len: usize) -> Range<usize> {
        range(self.member(), len)
    }

    /// All `len` items of `width` values each, from every rank's [`part`](Self::part).
    ///
    /// # Panics
    /// With the [`Error`] as its payload, when a rank failed.
    pub fn all_parts(&self, part: Vec<u16>, len: usize, width: usize) -> Vec<u16> {
        let Self::Sharded(attention) = self else {
            return part;
        };
        let count = |member| range(member, len).len() * width;
        let counts: Vec<_> = Member::all(self.ranks()).map(count).collect();
        or_unwind(attention.comm().all_gather(&part, &counts))
    }
}

/// A member's part of `len` items.
fn range(Member { rank, ranks }: Member, len: usize) -> Range<usize> {
    rank * len / ranks..(rank + 1) * len / ranks
}

/// Sequences of one length, local or sharded.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// `None` if each rank has all tokens.
    attention: Option<&'a Arc<Distributed>>,
    tokens: usize,
}

impl Tokens<'_> {
    /// Whether each rank has only its own tokens.
    pub fn is_sharded(self) -> bool {
        self.attention.is_some()
    }

    /// This rank's tokens of sequences that every rank has.
    ///
    /// # Shapes
    /// - x: `[batch, tokens, d_model]`
    /// - output: `[batch, local_tokens, d_model]`
    pub fn shard(self, x: Tensor<3>) -> Tensor<3> {
        let Some(attention) = self.attention else {
            return x;
        };
        assert_eq!(x.dims()[1], self.tokens, "all tokens are here");
        let positions = attention.positions(self.tokens);
        let count = positions.len();
        let indices = positions.into_iter().map(|position| position as i32);
        let indices = device_indices(indices.collect(), [count], &x.device());
        x.select(1, indices)
    }

    /// All tokens, gathered from every rank. The gradient of a rank's tokens is summed over all ranks.
    ///
    /// # Shapes
    /// - x: `[batch, local_tokens, d_model]`
    /// - output: `[batch, tokens, d_model]`
    ///
    /// # Panics
    /// With the [`Error`] as its payload, when a rank failed.
    pub fn gather(self, x: Tensor<3>) -> Tensor<3> {
        match self.attention {
            None => x,
            Some(attention) => {
                let op = Gather {
                    attention: attention.clone(),
                    tokens: self.tokens,
                };
                let x = x.unsqueeze_dim(1); // [batch, 1, local_tokens, d_model]
                ops::custom_op(x, Arc::new(op)).squeeze_dim::<3>(1) // [batch, tokens, d_model]
            }
        }
    }

    /// Bidirectional attention over all tokens.
    ///
    /// # Shapes
    /// - q, output: `[batch, heads, local_tokens, head_dim]`
    /// - k, v: `[batch, kv_heads, local_tokens, head_dim]`
    ///
    /// # Panics
    /// With the [`Error`] as its payload, when a rank failed.
    pub fn attention(self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
        match self.attention {
            None => ops::attention(q, k, v, ops::Mask::All),
            Some(attention) => {
                let op = Attend {
                    attention: attention.clone(),
                    tokens: self.tokens,
                };
                ops::custom_op_3([q, k, v], Arc::new(op))
            }
        }
    }
}

/// Attention over all ranks, as an operation of autodiff.
#[derive(Debug)]
struct Attend {
    attention: Arc<Distributed>,
    tokens: usize,
}

impl Attend {
    fn task(&self) -> Task {
        Task {
            tokens: self.tokens,
            mask: Mask::all(),
            wire_dtype: WireDtype::F32,
        }
    }
}

impl CustomOp for Attend {
    fn forward(&self, inputs: Vec<Tensor<4>>) -> (Tensor<4>, Vec<Tensor<4>>) {
        let qkv = <[_; 3]>::try_from(inputs).expect("q, k and v");
        let forward = or_unwind(self.attention.forward(&self.task(), qkv));
        (forward.out, forward.saved.into_tensors())
    }

    fn backward(&self, saved: Vec<Tensor<4>>, gradient: Tensor<4>) -> Vec<Tensor<4>> {
        let saved = Saved::from_tensors(saved);
        let gradients = self.attention.backward(&self.task(), saved, gradient);
        or_unwind(gradients).into()
    }
}

/// All-gather of tokens, as an operation of autodiff.
#[derive(Debug)]
struct Gather {
    attention: Arc<Distributed>,
    tokens: usize,
}

impl Gather {
    /// The positions of every rank's tokens.
    fn positions(&self) -> Vec<Vec<usize>> {
        let (layout, ranks) = (self.attention.layout(), self.attention.comm().size());
        let positions = |member| layout.positions(member, self.tokens);
        Member::all(ranks).map(positions).collect()
    }
}

impl CustomOp for Gather {
    fn forward(&self, inputs: Vec<Tensor<4>>) -> (Tensor<4>, Vec<Tensor<4>>) {
        let x = &inputs[0];
        let lists = self.positions();
        let counts: Vec<_> = lists.iter().map(Vec::len).collect();
        let rows = Rows::of(&[x]).all_gather(self.attention.comm(), &counts, WireDtype::F32);
        let mut order = vec![0; self.tokens];
        for (row, &position) in lists.iter().flatten().enumerate() {
            order[position] = row;
        }
        let [all] = or_unwind(rows).select(&order).tensors_like([x]);
        (all, Vec::new())
    }

    fn backward(&self, _: Vec<Tensor<4>>, gradient: Tensor<4>) -> Vec<Tensor<4>> {
        let lists = self.positions();
        let counts: Vec<_> = lists.iter().map(Vec::len).collect();
        let by_rank = Rows::of(&[&gradient]).select(&lists.concat());
        let own = or_unwind(by_rank.reduce_scatter(self.attention.comm(), &counts));
        own.tensors_like([&gradient]).into()
    }
}

/// `forward` cannot return a `Result`, so communication errors panic with the error as the payload. The rank's entry
/// point catches it; [`panic_message`](crate::panic_message) reads it.
fn or_unwind<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error)))
}
