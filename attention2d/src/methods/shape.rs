//! The sizes of one attention.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// The sizes of one attention over all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// B, the number of sequences.
    pub batch: usize,
    /// N, the tokens of each sequence, over all ranks.
    pub tokens: usize,
    /// M, the query heads.
    pub heads: usize,
    /// The key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// H, the elements of a head.
    pub head_dim: usize,
}

impl Shape {
    /// The sizes of a rank's queries and keys, where `tokens` counts those of all ranks.
    ///
    /// # Shapes
    /// - q: `[batch, heads, local_tokens, head_dim]`
    /// - k: `[batch, kv_heads, local_tokens, head_dim]`
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

    /// E, the elements of Q over all ranks.
    pub fn elements(&self) -> usize {
        self.batch * self.tokens * self.heads * self.head_dim
    }
}
