//! What a model needs to have its tokens dealt to ranks: to take a rank's share of them, to attend over all, and to have all again.

use crate::attention::{Distributed, Saved, Task};
use crate::rows::{Rows, width};
use crate::{Comm, Error, Grid, Mask, Method, Payload, Result};
use burn::tensor::Tensor;
use std::ops::Range;
use std::sync::Arc;
use tessera_backend::device_indices;
use tessera_backend::ops::{self, Outside};

/// Where the tokens of a model's sequences are.
#[derive(Debug, Clone, Default)]
pub enum Sequence {
    /// All of them here.
    #[default]
    Whole,
    /// Dealt to the ranks of a grid, whose attention is exact over all.
    Dealt(Arc<Distributed>),
}

impl Sequence {
    /// On a grid of all ranks of `comm`; all of them call it.
    ///
    /// # Errors
    /// When the grid has another number of ranks, or one failed.
    pub fn on_grid(comm: &Comm, grid: Grid) -> Result<Self> {
        let method = Method::attention2d(grid);
        Ok(match grid.ranks() {
            1 => Self::Whole,
            _ => Self::Dealt(Arc::new(Distributed::new(comm, method)?)),
        })
    }

    /// Ranks that have a share.
    pub fn ranks(&self) -> usize {
        match self {
            Self::Whole => 1,
            Self::Dealt(attention) => attention.comm().size(),
        }
    }

    /// Sequences of so many tokens. Where there are fewer than ranks each rank has all of them.
    pub fn of(&self, tokens: usize) -> Tokens<'_> {
        let attention = match self {
            Self::Dealt(attention) if tokens >= self.ranks() => Some(attention),
            _ => None,
        };
        Tokens { attention, tokens }
    }

    /// This rank's part of things that do not know each other, such as rows of a head, as even as can be.
    pub fn part(&self, len: usize) -> Range<usize> {
        let Self::Dealt(attention) = self else {
            return 0..len;
        };
        let (rank, ranks) = (attention.comm().rank(), attention.comm().size());
        rank * len / ranks..(rank + 1) * len / ranks
    }

    /// All parts of `len` things, `per` values each, from everyone's [`part`](Self::part).
    ///
    /// # Panics
    /// With the [`Error`] as its payload, when a rank failed.
    pub fn all_parts(&self, part: Vec<u16>, len: usize, per: usize) -> Vec<u16> {
        let Self::Dealt(attention) = self else {
            return part;
        };
        let ranks = attention.comm().size();
        let count = |rank| ((rank + 1) * len / ranks - rank * len / ranks) * per;
        let counts: Vec<_> = (0..ranks).map(count).collect();
        or_unwind(attention.comm().all_gather(&part, &counts))
    }
}

/// Sequences of one length, whole or dealt.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// Of whom the tokens are, if they are dealt.
    attention: Option<&'a Arc<Distributed>>,
    tokens: usize,
}

impl Tokens<'_> {
    /// Whether each rank has only its own.
    pub fn dealt(self) -> bool {
        self.attention.is_some()
    }

    /// This rank's tokens of sequences that all ranks have.
    ///
    /// # Shapes
    /// - x: `[batch, tokens, d_model]`
    /// - output: `[batch, tokens here, d_model]`
    pub fn deal(self, x: Tensor<3>) -> Tensor<3> {
        let Some(attention) = self.attention else {
            return x;
        };
        assert_eq!(x.dims()[1], self.tokens, "all tokens are here");
        let rows = attention.positions(self.tokens);
        let rows: Vec<_> = rows.into_iter().map(|position| position as i32).collect();
        let count = rows.len();
        x.clone()
            .select(1, device_indices(rows, [count], &x.device()))
    }

    /// All tokens, from what each rank has of them. The gradient of a rank's tokens is the sum over all ranks.
    ///
    /// # Shapes
    /// - x: `[batch, tokens here, d_model]`
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
                ops::outside(x.unsqueeze_dim(1), Arc::new(op)).squeeze_dim::<3>(1)
            }
        }
    }

    /// Bidirectional attention over all tokens.
    ///
    /// # Shapes
    /// - q, output: `[batch, heads, tokens here, head_dim]`
    /// - k, v: `[batch, kv_heads, tokens here, head_dim]`
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
                ops::outside_3([q, k, v], Arc::new(op))
            }
        }
    }
}

/// Attention over all ranks, as an operation of a model.
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
            payload: Payload::F32,
        }
    }
}

impl Outside for Attend {
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

/// All tokens at every rank, as an operation of a model.
#[derive(Debug)]
struct Gather {
    attention: Arc<Distributed>,
    tokens: usize,
}

impl Gather {
    /// The positions of every rank's tokens, one rank after the other, and how many each has.
    fn dealt(&self) -> (Vec<usize>, Vec<usize>) {
        let (layout, ranks) = (self.attention.layout(), self.attention.comm().size());
        let lists = (0..ranks).map(|rank| layout.positions(rank, ranks, self.tokens));
        let lists: Vec<_> = lists.collect();
        (lists.concat(), lists.iter().map(Vec::len).collect())
    }
}

impl Outside for Gather {
    fn forward(&self, inputs: Vec<Tensor<4>>) -> (Tensor<4>, Vec<Tensor<4>>) {
        let x = &inputs[0];
        let (positions, counts) = self.dealt();
        let rows = Rows::of(&[x]).all_gather(self.attention.comm(), &counts, Payload::F32);
        let mut order = vec![0; positions.len()];
        for (row, &position) in positions.iter().enumerate() {
            order[position] = row;
        }
        let [all] = or_unwind(rows)
            .select(&order)
            .tensors([width(x)], &x.device());
        (all, Vec::new())
    }

    fn backward(&self, _: Vec<Tensor<4>>, gradient: Tensor<4>) -> Vec<Tensor<4>> {
        let (positions, counts) = self.dealt();
        let rows = Rows::of(&[&gradient]).select(&positions);
        let own = or_unwind(rows.reduce_scatter(self.attention.comm(), &counts));
        own.tensors([width(&gradient)], &gradient.device()).into()
    }
}

/// A model's forward pass has no way to return what goes wrong between ranks, after which there is nothing to go on with: it
/// unwinds with the error, which [`said`](crate::said) reads.
fn or_unwind<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error)))
}
