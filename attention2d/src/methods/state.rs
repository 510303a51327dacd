//! The softmax state over a part of the keys and its merge operator ⊕ (algorithm 2, AttnFix).
//!
//! The paper's state of a query is (M, N, D): the largest score, the unnormalized output and its denominator. Here it
//! is the output O = N / D and the log-sum-exp L = M + ln D, which saves one number per message. ⊕ is associative and
//! commutative up to rounding, and (0, −∞) is its identity.

use crate::error::Result;
use crate::methods::rows::{RowShape, Rows};
use crate::methods::task::Partial;
use burn::tensor::Device;
use rayon::prelude::*;

/// The state of some queries over some of the keys, one row per query: O `[batch, heads, head_dim]`, then L `[batch,
/// heads]`.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub rows: Rows,
    /// That of O.
    shape: RowShape,
}

impl State {
    pub fn of(partial: Partial) -> Self {
        let lse = partial.lse.unsqueeze_dim(3); // [batch, heads, queries, 1]
        Self {
            rows: Rows::of(&[&partial.out, &lse]),
            shape: RowShape::of(&partial.out),
        }
    }

    /// A state of the same sizes with other rows.
    pub fn with(&self, rows: Rows) -> Self {
        Self { rows, ..*self }
    }

    /// This state ⊕ another one, given as rows.
    pub fn merge(mut self, other: &[f32]) -> Self {
        debug_assert_eq!(other.len(), self.rows.values.len());
        let (heads, head_dim, width) = (self.heads(), self.shape.features, self.rows.width.max(1));
        let rows = self.rows.values.par_chunks_exact_mut(width);
        rows.zip(other.par_chunks_exact(width))
            .for_each(|(row, other)| merge_row(row, other, heads, head_dim));
        self
    }

    /// ⊕ of states, in their order.
    pub fn merge_all(states: impl IntoIterator<Item = Result<Self>>) -> Result<Self> {
        let mut states = states.into_iter();
        let first = states.next().expect("at least one state")?;
        states.try_fold(first, |sum, state| Ok(sum.merge(&state?.rows.values)))
    }

    /// O and L as tensors.
    pub fn partial(self, device: &Device) -> Partial {
        let shapes = [
            self.shape,
            RowShape {
                features: 1,
                ..self.shape
            },
        ];
        let [out, lse] = self.rows.tensors(shapes, device);
        Partial {
            out,
            lse: lse.squeeze_dim::<3>(3), // [batch, heads, queries]
        }
    }

    /// The log-sum-exps, query by query.
    pub fn lse(&self) -> Vec<f32> {
        let rows = self.rows.values.chunks_exact(self.rows.width.max(1));
        rows.flat_map(|row| &row[self.shape.width()..])
            .copied()
            .collect()
    }

    /// For a reduction that can only add: replaces (O, L) by (w·O, w) with w = e^(L − max), where `max` holds the
    /// largest L of all states to be added, query by query.
    pub fn rescale(&mut self, max: &[f32]) {
        self.for_each_head(max, |out, lse, max| {
            let weight = match max == f32::NEG_INFINITY {
                true => 0.0,
                false => (*lse - max).exp(),
            };
            out.iter_mut().for_each(|out| *out *= weight);
            *lse = weight;
        });
    }

    /// Undoes [`rescale`](Self::rescale) after the sum: (Σ w·O / Σ w, max + ln Σ w).
    pub fn normalize(&mut self, max: &[f32]) {
        self.for_each_head(max, |out, sum, max| {
            if *sum > 0.0 {
                let scale = 1.0 / *sum;
                out.iter_mut().for_each(|out| *out *= scale);
            }
            *sum = max + sum.ln();
        });
    }

    /// Calls `update` with O, L and the maximum of every query and head.
    fn for_each_head(&mut self, max: &[f32], update: impl Fn(&mut [f32], &mut f32, f32)) {
        let (heads, head_dim) = (self.heads(), self.shape.features);
        let rows = self.rows.values.chunks_exact_mut(self.rows.width.max(1));
        for (row, max) in rows.zip(max.chunks_exact(heads.max(1))) {
            let (out, lse) = row.split_at_mut(heads * head_dim);
            for head in 0..heads {
                let out = &mut out[head * head_dim..(head + 1) * head_dim];
                update(out, &mut lse[head], max[head]);
            }
        }
    }

    /// Heads of all sequences.
    fn heads(&self) -> usize {
        self.shape.batch * self.shape.heads
    }
}

/// ⊕ for one query.
fn merge_row(row: &mut [f32], other: &[f32], heads: usize, head_dim: usize) {
    let (out, lse) = row.split_at_mut(heads * head_dim);
    let (other_out, other_lse) = other.split_at(heads * head_dim);
    for head in 0..heads {
        let (a, b) = (lse[head], other_lse[head]);
        let max = a.max(b);
        if max == f32::NEG_INFINITY {
            continue; // neither part has a key that the query sees
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
