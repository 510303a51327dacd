//! [`Distributed`]: attention by any of the methods.

use crate::comm::communicator::Comm;
use crate::error::Result;
use crate::methods::grid_attention::GridAttention;
use crate::methods::layout::Layout;
use crate::methods::method::Method;
use crate::methods::ring::RingAttention;
use crate::methods::shape::Shape;
use crate::methods::task::{Forward, Saved, Task};
use crate::methods::ulysses::Ulysses;
use burn::tensor::Tensor;

/// A method on the ranks of a communicator.
#[derive(Debug, Clone)]
pub enum Distributed {
    /// Attention2D, and gathering keys and values, which is its P×1 grid.
    Grid(GridAttention),
    /// Ring Attention.
    Ring(RingAttention),
    /// Ulysses.
    Ulysses(Ulysses),
}

impl Distributed {
    /// Prepares the method, forming the groups of ranks that it needs. All ranks call it.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when this number of ranks cannot compute the method; any error when a
    /// rank failed.
    pub fn new(comm: &Comm, method: Method) -> Result<Self> {
        let ranks = comm.size();
        // The heads are checked by each pass, which knows them.
        let shape = Shape {
            batch: 1,
            tokens: 1,
            heads: ranks,
            kv_heads: ranks,
            head_dim: 1,
        };
        method.check(shape, ranks)?;
        let comm = comm.clone();
        Ok(match method {
            Method::Attention2D { .. } | Method::GatherKv => {
                Self::Grid(GridAttention::new(&comm, method)?)
            }
            Method::Ring { .. } => Self::Ring(RingAttention { comm, method }),
            Method::Ulysses => Self::Ulysses(Ulysses { comm }),
        })
    }

    /// The method.
    pub fn method(&self) -> Method {
        match self {
            Self::Grid(grid) => grid.method,
            Self::Ring(ring) => ring.method,
            Self::Ulysses(_) => Method::Ulysses,
        }
    }

    /// All ranks of the method.
    pub fn comm(&self) -> &Comm {
        match self {
            Self::Grid(grid) => &grid.world,
            Self::Ring(ring) => &ring.comm,
            Self::Ulysses(ulysses) => &ulysses.comm,
        }
    }

    /// How tokens are sharded over the ranks.
    pub fn layout(&self) -> Layout {
        self.method().layout()
    }

    /// The positions of this rank's tokens in a sequence of `tokens`.
    pub fn positions(&self, tokens: usize) -> Vec<usize> {
        self.layout().positions(self.comm().member(), tokens)
    }

    /// This rank's part of the attention over all ranks. It equals dense attention up to rounding.
    ///
    /// # Shapes
    /// - q, output: `[batch, heads, local_tokens, head_dim]`
    /// - k, v: `[batch, kv_heads, local_tokens, head_dim]`
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when the method cannot have these heads; any error when a rank failed.
    pub fn forward(&self, task: &Task, [q, k, v]: [Tensor<4>; 3]) -> Result<Forward> {
        let shape = Shape::of(&q, &k, task.tokens);
        self.method().check(shape, self.comm().size())?;
        match self {
            Self::Grid(grid) => grid.forward(task, [q, k, v]),
            Self::Ring(ring) => ring.forward(task, [q, k, v]),
            Self::Ulysses(ulysses) => ulysses.forward(task, [q, k, v]),
        }
    }

    /// The gradients of this rank's q, k and v.
    ///
    /// # Shapes
    /// - d_out: `[batch, heads, local_tokens, head_dim]`
    /// - outputs: those of q, k and v
    ///
    /// # Errors
    /// When a rank failed.
    pub fn backward(&self, task: &Task, saved: Saved, d_out: Tensor<4>) -> Result<[Tensor<4>; 3]> {
        match self {
            Self::Grid(grid) => grid.backward(task, saved, d_out),
            Self::Ring(ring) => ring.backward(task, saved, d_out),
            Self::Ulysses(ulysses) => ulysses.backward(task, saved, d_out),
        }
    }
}
