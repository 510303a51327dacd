//! The state of a softmax over a part of the keys, and how two become one (algorithm 2, AttnFix).
//!
//! The paper's state of a query is (M, N, D): the largest score, the unnormalised output and its denominator. Here it is the
//! output N / D and the log-sum-exp L = M + ln D, which is the same with one number less to send; ⊕ is associative and
//! commutative up to rounding, and (0, −∞) is its identity.

use crate::rows::{Rows, Width};
use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

/// Outputs and log-sum-exps of some queries over some of the keys, a row per query: the outputs `[batch, heads, head_dim]`, then the
/// log-sum-exps `[batch, heads]`.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub rows: Rows,
    heads: usize,
    head_dim: usize,
}

impl State {
    /// # Shapes
    /// - out: `[batch, heads, queries, head_dim]`
    /// - lse: `[batch, heads, queries]`
    pub fn of((out, lse): (Tensor<4>, Tensor<3>)) -> Self {
        let [batch, heads, _, head_dim] = out.dims();
        Self {
            rows: Rows::of(&[&out, &lse.unsqueeze_dim(3)]),
            heads: batch * heads,
            head_dim,
        }
    }

    /// The same sizes with other rows.
    pub fn with(&self, rows: Rows) -> Self {
        Self { rows, ..*self }
    }

    /// ⊕ of this state and the others, in their order.
    pub fn merge<'a>(mut self, others: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let (heads, head_dim, width) = (self.heads, self.head_dim, self.rows.width);
        for other in others {
            debug_assert_eq!(other.len(), self.rows.values.len());
            let rows = self.rows.values.par_chunks_exact_mut(width.max(1));
            rows.zip(other.par_chunks_exact(width.max(1)))
                .for_each(|(row, other)| merge_row(row, other, heads, head_dim));
        }
        self
    }

    /// Outputs and log-sum-exps as tensors.
    pub fn tensors(
        self,
        [batch, heads, head_dim]: Width,
        device: &Device,
    ) -> (Tensor<4>, Tensor<3>) {
        let widths = [[batch, heads, head_dim], [batch, heads, 1]];
        let [out, lse] = self.rows.tensors(widths, device);
        (out, lse.squeeze_dim::<3>(3))
    }
}

/// One query's state becomes that over the keys of both.
fn merge_row(row: &mut [f32], other: &[f32], heads: usize, head_dim: usize) {
    let (out, lse) = row.split_at_mut(heads * head_dim);
    let (other_out, other_lse) = other.split_at(heads * head_dim);
    for head in 0..heads {
        let (a, b) = (lse[head], other_lse[head]);
        let max = a.max(b);
        if max == f32::NEG_INFINITY {
            continue; // neither saw a key
        }
        let (a, b) = ((a - max).exp(), (b - max).exp());
        let sum = a + b;
        let (a, b) = (a / sum, b / sum);
        let at = head * head_dim..(head + 1) * head_dim;
        for (out, other) in out[at.clone()].iter_mut().zip(&other_out[at]) {
            *out = a * *out + b * *other;
        }
        lse[head] = max + sum.ln();
    }
}

/// For a reduction that can only add: every query's output and 1, weighed by e^(L − M), M being the largest L of all parts.
pub(crate) fn weighed(state: &mut State, max: &[f32]) {
    let (heads, head_dim) = (state.heads, state.head_dim);
    let rows = state.rows.values.chunks_exact_mut(state.rows.width.max(1));
    for (row, max) in rows.zip(max.chunks_exact(heads.max(1))) {
        let (out, lse) = row.split_at_mut(heads * head_dim);
        for head in 0..heads {
            let weight = match max[head] == f32::NEG_INFINITY {
                true => 0.0,
                false => (lse[head] - max[head]).exp(),
            };
            out[head * head_dim..(head + 1) * head_dim]
                .iter_mut()
                .for_each(|out| *out *= weight);
            lse[head] = weight;
        }
    }
}

/// Undoes [`weighed`] after the sum: outputs divided by their weights, and the log-sum-exp.
pub(crate) fn unweighed(state: &mut State, max: &[f32]) {
    let (heads, head_dim) = (state.heads, state.head_dim);
    let rows = state.rows.values.chunks_exact_mut(state.rows.width.max(1));
    for (row, max) in rows.zip(max.chunks_exact(heads.max(1))) {
        let (out, sum) = row.split_at_mut(heads * head_dim);
        for head in 0..heads {
            if sum[head] > 0.0 {
                let scale = 1.0 / sum[head];
                out[head * head_dim..(head + 1) * head_dim]
                    .iter_mut()
                    .for_each(|out| *out *= scale);
            }
            sum[head] = max[head] + sum[head].ln();
        }
    }
}

/// The log-sum-exps of a state, query by query.
pub(crate) fn lse(state: &State) -> Vec<f32> {
    let rows = state.rows.values.chunks_exact(state.rows.width.max(1));
    rows.flat_map(|row| &row[state.heads * state.head_dim..])
        .copied()
        .collect()
}
