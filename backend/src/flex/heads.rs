//! What the kernels of attention have in common: heads in memory, the tiles of keys, dropout, and the softmax that is
//! carried on from tile to tile.

use super::matmul::Matrix;
use super::simd::{self, simd};
use super::{contiguous, dims, tensor, values};
use burn::backend::flex::FlexTensor;
use std::ops::Range;

/// Keys per tile.
pub(super) const KEYS: usize = 512;

/// A `[batch, heads, seq, head_dim]` tensor seen through its strides; the last axis is contiguous, and
/// positions follow each other.
pub(super) struct Heads {
    tensor: FlexTensor,
    pub(super) sizes: [usize; 4],
}

impl Heads {
    pub(super) fn of(tensor: &FlexTensor) -> Self {
        let sizes = dims(tensor);
        let tensor = match tensor.layout().strides()[3] {
            1 if tensor.layout().strides()[2] >= 0 => tensor.clone(),
            _ => contiguous(tensor),
        };
        Self { tensor, sizes }
    }

    /// The layout of an output that has a value for each of these.
    pub(super) fn merged(&self) -> Merged {
        let [_, heads, seq, head_dim] = self.sizes;
        Merged {
            heads,
            seq,
            head_dim,
        }
    }

    /// The `[seq, head_dim]` matrix of one head; `index` counts heads through the batch.
    pub(super) fn head(&self, index: usize) -> Matrix {
        let layout = self.tensor.layout();
        let strides = layout.strides();
        let (batch, head) = (index / self.sizes[1], index % self.sizes[1]);
        let offset = layout.start_offset() as isize
            + batch as isize * strides[0]
            + head as isize * strides[1];
        Matrix {
            ptr: self
                .tensor
                .storage::<f32>()
                .as_ptr()
                .wrapping_offset(offset),
            row_stride: strides[2],
            col_stride: 1,
        }
    }
}

/// A row of `len` values of a matrix whose rows are contiguous.
///
/// # Safety
/// The row lies in the tensor the matrix looks into.
pub(super) unsafe fn row<'a>(matrix: Matrix, index: usize, len: usize) -> &'a [f32] {
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(matrix.at(index, 0).ptr, len) }
}

/// Output in memory as `[batch, seq, heads, head_dim]`, so that merging the heads copies nothing.
#[derive(Clone, Copy)]
pub(super) struct Merged {
    heads: usize,
    seq: usize,
    pub(super) head_dim: usize,
}

impl Merged {
    pub(super) fn offset(self, index: usize, position: usize) -> usize {
        let (batch, head) = (index / self.heads, index % self.heads);
        ((batch * self.seq + position) * self.heads + head) * self.head_dim
    }

    pub(super) fn ld(self) -> usize {
        self.heads * self.head_dim
    }

    /// The tensor `[batch, heads, seq, head_dim]` of values laid out so.
    pub(super) fn tensor(self, data: Vec<f32>, batch: usize) -> FlexTensor {
        tensor(data, [batch, self.seq, self.heads, self.head_dim]).permute(&[0, 2, 1, 3])
    }
}

/// The part of a tile of keys, which begins at `tile.0` and has length `tile.1`, inside a run.
pub(super) fn part(run: &Range<usize>, (start, len): (usize, usize)) -> Range<usize> {
    let within = |key: usize| key.clamp(start, start + len) - start;
    within(run.start)..within(run.end).max(within(run.start))
}

/// The tiles of keys, start and length, that any query of these runs sees. Tiles begin at multiples of [`KEYS`], so
/// that the partition of a query's sum does not depend on other queries.
pub(super) fn tiles_of(runs: &[Range<usize>]) -> impl Iterator<Item = (usize, usize)> + use<> {
    let seen = || runs.iter().filter(|run| !run.is_empty());
    let start = seen().map(|run| run.start).min().unwrap_or(0);
    let end = seen().map(|run| run.end).max().unwrap_or(0);
    (start / KEYS * KEYS..end)
        .step_by(KEYS)
        .map(move |tile| (tile, KEYS.min(end - tile)))
}

/// What probabilities are multiplied by in dropout: `[batch, heads, queries, keys]`, row by row.
#[derive(Clone, Copy)]
pub(super) struct Keep<'a> {
    values: &'a [f32],
    keys: usize,
}

impl<'a> Keep<'a> {
    pub(super) fn of(keep: Option<&'a FlexTensor>) -> Option<Self> {
        keep.map(|keep| Self {
            values: values(keep),
            keys: dims::<4>(keep)[3],
        })
    }

    /// From a query on, counted through heads and batch.
    pub(super) fn from(self, query: usize) -> Self {
        let values = &self.values[query * self.keys..];
        Self { values, ..self }
    }

    /// Multiplies a query's probabilities of the keys from `start` on.
    pub(super) fn apply(self, query: usize, start: usize, probabilities: &mut [f32]) {
        let keep = &self.values[query * self.keys + start..][..probabilities.len()];
        simd::mul_assign(probabilities, keep);
    }

    /// The same for `rows` queries and `len` keys each.
    pub(super) fn apply_rows(
        self,
        start: usize,
        probabilities: &mut [f32],
        [rows, len]: [usize; 2],
    ) {
        let rows = probabilities.chunks_exact_mut(len).take(rows);
        rows.enumerate()
            .for_each(|(query, row)| self.apply(query, start, row));
    }
}

#[inline(always)]
fn score_gradient_body(p: &[f32], dp: &mut [f32], inner: f32, scale: f32) {
    for (dp, &p) in dp.iter_mut().zip(p) {
        *dp = p * (*dp - inner) * scale;
    }
}
simd!(
    /// From the gradient of the probabilities to that of the scores, before they are scaled.
    score_gradient = score_gradient_body(p: &[f32], dp: &mut [f32], inner: f32, scale: f32)
);

/// The softmax of some queries, a tile of keys after the other.
pub(super) struct Softmax<'a> {
    scale: f32,
    /// The keys that each query sees.
    runs: &'a [Range<usize>],
    /// Of the queries.
    keep: Option<Keep<'a>>,
    max: Vec<f32>,
    sum: Vec<f32>,
}

impl<'a> Softmax<'a> {
    /// Of queries that see these keys.
    pub(super) fn new(scale: f32, runs: &'a [Range<usize>], keep: Option<Keep<'a>>) -> Self {
        Self {
            scale,
            runs,
            keep,
            max: vec![f32::NEG_INFINITY; runs.len()],
            sum: vec![0.0; runs.len()],
        }
    }

    /// The scores of a query with a tile of keys, `start` the first, become its weights; what the tiles before gave
    /// shrinks to the new maximum.
    pub(super) fn weigh(
        &mut self,
        query: usize,
        start: usize,
        scores: &mut [f32],
        before: Option<&mut [f32]>,
    ) {
        let seen = part(&self.runs[query], (start, scores.len()));
        scores[..seen.start].fill(0.0);
        scores[seen.end..].fill(0.0);
        let from = start + seen.start;
        let seen = &mut scores[seen];
        if seen.is_empty() {
            return;
        }
        let (max, sum) = (&mut self.max[query], &mut self.sum[query]);
        // Clamped above −∞, the maximum if all scores are −∞: e^(−∞ + ∞) is NaN and not the weight 0.
        let new_max = max.max(simd::max(seen) * self.scale).max(f32::MIN);
        if let Some(before) = before.filter(|_| new_max > *max) {
            let shrink = (*max - new_max).exp();
            *sum *= shrink;
            simd::scale(before, shrink);
        }
        *max = new_max;
        *sum += simd::exp_scaled(seen, self.scale, new_max);
        if let Some(keep) = self.keep {
            keep.apply(query, from, seen);
        }
    }

    /// What a query's output is multiplied by, and the log-sum-exp of its scores.
    pub(super) fn finish(&self, query: usize) -> (f32, f32) {
        let (max, sum) = (self.max[query], self.sum[query]);
        // A query that sees no key gets zero, not 0/0.
        let factor = if sum > 0.0 { 1.0 / sum } else { 0.0 };
        (factor, max + sum.ln())
    }
}
