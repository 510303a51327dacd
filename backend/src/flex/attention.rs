//! Softmax attention that never stores the score matrix (online softmax over tiles of keys) and returns the
//! log-sum-exp of every query's scores; the backward pass recomputes the probabilities from it.

use super::matmul::{Matrix, matmul};
use super::simd::{self, simd};
use super::{Shared, dims, filled, tensor, uninit, values};
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

/// Queries per tile.
const QUERIES: usize = 192;
/// Keys per tile.
const KEYS: usize = 512;

/// A `[batch, heads, seq, head_dim]` tensor seen through its strides; the last axis is contiguous.
struct Heads {
    tensor: FlexTensor,
    sizes: [usize; 4],
}

impl Heads {
    fn of(tensor: &FlexTensor) -> Self {
        let sizes = dims(tensor);
        let tensor = match tensor.layout().strides()[3] {
            1 => tensor.clone(),
            _ => tensor.to_contiguous(),
        };
        Self { tensor, sizes }
    }

    /// The `[seq, head_dim]` matrix of one head; `index` counts heads through the batch.
    fn head(&self, index: usize) -> Matrix {
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
unsafe fn row<'a>(matrix: Matrix, index: usize, len: usize) -> &'a [f32] {
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(matrix.at(index, 0).ptr, len) }
}

/// Output in memory as `[batch, seq, heads, head_dim]`, so that merging the heads afterwards moves nothing.
#[derive(Clone, Copy)]
struct Merged {
    heads: usize,
    seq: usize,
    head_dim: usize,
}

impl Merged {
    fn offset(self, index: usize, position: usize) -> usize {
        let (batch, head) = (index / self.heads, index % self.heads);
        ((batch * self.seq + position) * self.heads + head) * self.head_dim
    }

    fn ld(self) -> usize {
        self.heads * self.head_dim
    }

    /// The tensor `[batch, heads, seq, head_dim]` of values laid out so.
    fn tensor(self, data: Vec<f32>, batch: usize) -> FlexTensor {
        tensor(data, [batch, self.seq, self.heads, self.head_dim]).permute(&[0, 2, 1, 3])
    }
}

/// How many of the keys `[start, start + len)` the query at `position` sees, the last query seeing the last key.
fn visible(
    causal: bool,
    position: usize,
    [queries, keys]: [usize; 2],
    start: usize,
    len: usize,
) -> usize {
    if causal {
        (position + keys + 1)
            .saturating_sub(queries + start)
            .min(len)
    } else {
        len
    }
}

/// `softmax(q kᵀ · head_dim^-½) v` and the log-sum-exp `[batch, heads, queries]` of the scaled scores.
pub(crate) fn attention(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    causal: bool,
) -> (FlexTensor, FlexTensor) {
    let (q, k, v) = (Heads::of(q), Heads::of(k), Heads::of(v));
    let ([batch, heads, queries, head_dim], keys) = (q.sizes, k.sizes[2]);
    let scale = (head_dim as f32).powf(-0.5);
    let (tiles, layout) = (
        queries.div_ceil(QUERIES),
        Merged {
            heads,
            seq: queries,
            head_dim,
        },
    );
    let mut lse = uninit(batch * heads * queries);
    let out = filled(batch * heads * queries * head_dim, |out| {
        let (out, lse) = (Shared(out.as_mut_ptr()), Shared(lse.as_mut_ptr()));
        // Small heads share a task: a task per head would cost more than the head.
        let work = QUERIES.min(queries) * keys * head_dim;
        (0..batch * heads * tiles)
            .into_par_iter()
            .with_min_len((1 << 17) / work.max(1) + 1)
            .for_each_init(
                || uninit(QUERIES.min(queries) * KEYS.min(keys)),
                |scores, job| {
                    let (index, first) = (job / tiles, job % tiles * QUERIES);
                    let rows = QUERIES.min(queries - first);
                    // SAFETY: each job has its own queries.
                    let lse = unsafe { { lse }.part(index * queries + first, rows) };
                    let tile = Tile {
                        out,
                        layout,
                        index,
                        first,
                        rows,
                    };
                    tile.run(&q, &k, &v, lse, scores, scale, causal);
                },
            );
    });
    (
        layout.tensor(out, batch),
        tensor(lse, [batch, heads, queries]),
    )
}

/// A block of queries of one head.
struct Tile {
    out: Shared<f32>,
    layout: Merged,
    index: usize,
    first: usize,
    rows: usize,
}

impl Tile {
    #[allow(clippy::mut_from_ref)]
    fn out_row(&self, r: usize) -> &mut [f32] {
        let offset = self.layout.offset(self.index, self.first + r);
        // SAFETY: the tile owns its rows of the output.
        unsafe { self.out.part(offset, self.layout.head_dim) }
    }

    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        q: &Heads,
        k: &Heads,
        v: &Heads,
        lse: &mut [f32],
        scores: &mut [f32],
        scale: f32,
        causal: bool,
    ) {
        let ([_, _, queries, head_dim], keys, rows) = (q.sizes, k.sizes[2], self.rows);
        let width = KEYS.min(keys);
        let (q, k, v) = (
            q.head(self.index).at(self.first, 0),
            k.head(self.index),
            v.head(self.index),
        );
        let (mut max, mut sum) = ([f32::NEG_INFINITY; QUERIES], [0.0_f32; QUERIES]);
        for start in (0..keys).step_by(KEYS) {
            let len = KEYS.min(keys - start);
            // SAFETY: the tile lies inside q, k and the scratch memory.
            unsafe {
                matmul(
                    [rows, len, head_dim],
                    scores.as_mut_ptr(),
                    width,
                    false,
                    q,
                    k.at(start, 0).t(),
                    false,
                )
            };
            for r in 0..rows {
                let (seen, hidden) = scores[r * width..r * width + len].split_at_mut(visible(
                    causal,
                    self.first + r,
                    [queries, keys],
                    start,
                    len,
                ));
                hidden.fill(0.0);
                if seen.is_empty() {
                    continue;
                }
                // Not −∞, which scores of nothing but −∞ would give: e^(−∞ + ∞) is not the 0 they weigh.
                let new_max = max[r].max(simd::max(seen) * scale).max(f32::MIN);
                if start > 0 && new_max > max[r] {
                    let shrink = (max[r] - new_max).exp();
                    sum[r] *= shrink;
                    simd::scale(self.out_row(r), shrink);
                }
                max[r] = new_max;
                sum[r] += simd::exp_scaled(seen, scale, new_max);
            }
            let out = self
                .out
                .0
                .wrapping_add(self.layout.offset(self.index, self.first));
            // SAFETY: the scores are the tile's own; `out` holds its rows at the layout's distance.
            unsafe {
                matmul(
                    [rows, head_dim, len],
                    out,
                    self.layout.ld(),
                    start > 0,
                    Matrix {
                        ptr: scores.as_ptr(),
                        row_stride: width as isize,
                        col_stride: 1,
                    },
                    v.at(start, 0),
                    false,
                );
            }
        }
        if keys == 0 {
            (0..rows).for_each(|r| self.out_row(r).fill(0.0));
        }
        for r in 0..rows {
            // A query that sees no key gets zero, not 0/0.
            simd::scale(
                self.out_row(r),
                if sum[r] > 0.0 { 1.0 / sum[r] } else { 0.0 },
            );
            lse[r] = max[r] + sum[r].ln();
        }
    }
}

#[inline(always)]
fn score_gradient_body(p: &[f32], dp: &mut [f32], inner: f32, scale: f32) {
    for (dp, &p) in dp.iter_mut().zip(p) {
        *dp = p * (*dp - inner) * scale;
    }
}
simd!(score_gradient = score_gradient_body(p: &[f32], dp: &mut [f32], inner: f32, scale: f32));

/// Gradients of q, k and v.
#[allow(clippy::too_many_arguments)]
pub(crate) fn attention_backward(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    out: &FlexTensor,
    lse: &FlexTensor,
    g: &FlexTensor,
    causal: bool,
) -> [FlexTensor; 3] {
    let (q, k, v, out, g) = (
        Heads::of(q),
        Heads::of(k),
        Heads::of(v),
        Heads::of(out),
        Heads::of(g),
    );
    let ([batch, heads, queries, head_dim], keys) = (q.sizes, k.sizes[2]);
    let scale = (head_dim as f32).powf(-0.5);
    let lse = values(lse);
    let of_queries = Merged {
        heads,
        seq: queries,
        head_dim,
    };
    let of_keys = Merged {
        seq: keys,
        ..of_queries
    };
    let (size_q, size_k) = (
        batch * heads * queries * head_dim,
        batch * heads * keys * head_dim,
    );
    let (mut dk, mut dv) = (uninit(size_k), uninit(size_k));
    let dq = filled(size_q, |dq| {
        let (dq, dk, dv) = (
            Shared(dq.as_mut_ptr()),
            Shared(dk.as_mut_ptr()),
            Shared(dv.as_mut_ptr()),
        );
        let work = queries * keys * head_dim;
        (0..batch * heads)
            .into_par_iter()
            .with_min_len((1 << 16) / work.max(1) + 1)
            .for_each_init(
                || (vec![0.0_f32; QUERIES * keys], vec![0.0_f32; QUERIES * keys]),
                |(p, dp), index| {
                    let (q, k, v, out, g) = (
                        q.head(index),
                        k.head(index),
                        v.head(index),
                        out.head(index),
                        g.head(index),
                    );
                    let (dk, dv) = (
                        { dk }.0.wrapping_add(of_keys.offset(index, 0)),
                        { dv }.0.wrapping_add(of_keys.offset(index, 0)),
                    );
                    for first in (0..queries).step_by(QUERIES) {
                        let rows = QUERIES.min(queries - first);
                        let (q, g, out) = (q.at(first, 0), g.at(first, 0), out.at(first, 0));
                        let probabilities = Matrix {
                            ptr: p.as_ptr(),
                            row_stride: keys as isize,
                            col_stride: 1,
                        };
                        let d_scores = Matrix {
                            ptr: dp.as_ptr(),
                            ..probabilities
                        };
                        let ld = of_keys.ld();
                        // SAFETY: every part lies in its tensor; the job owns its head of dq, dk and dv.
                        unsafe {
                            matmul(
                                [rows, keys, head_dim],
                                p.as_mut_ptr(),
                                keys,
                                false,
                                q,
                                k.t(),
                                false,
                            );
                            for r in 0..rows {
                                let seen = visible(causal, first + r, [queries, keys], 0, keys);
                                let (row, hidden) = p[r * keys..(r + 1) * keys].split_at_mut(seen);
                                simd::exp_scaled(row, scale, lse[index * queries + first + r]);
                                hidden.fill(0.0);
                            }
                            matmul(
                                [keys, head_dim, rows],
                                dv,
                                ld,
                                first > 0,
                                probabilities.t(),
                                g,
                                false,
                            );
                            matmul(
                                [rows, keys, head_dim],
                                dp.as_mut_ptr(),
                                keys,
                                false,
                                g,
                                v.t(),
                                false,
                            );
                            for r in 0..rows {
                                let inner = simd::dot(row(g, r, head_dim), row(out, r, head_dim));
                                let at = r * keys..(r + 1) * keys;
                                score_gradient(&p[at.clone()], &mut dp[at], inner, scale);
                            }
                            let dq = { dq }.0.wrapping_add(of_queries.offset(index, first));
                            matmul(
                                [rows, head_dim, keys],
                                dq,
                                of_queries.ld(),
                                false,
                                d_scores,
                                k,
                                false,
                            );
                            matmul(
                                [keys, head_dim, rows],
                                dk,
                                ld,
                                first > 0,
                                d_scores.t(),
                                q,
                                false,
                            );
                        }
                    }
                },
            );
    });
    [
        of_queries.tensor(dq, batch),
        of_keys.tensor(dk, batch),
        of_keys.tensor(dv, batch),
    ]
}
