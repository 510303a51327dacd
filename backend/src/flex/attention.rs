//! Softmax attention that never stores the score matrix (online softmax over tiles of keys) and returns the
//! log-sum-exp of every query's scores; the backward pass recomputes the probabilities from it.

use super::matmul::{Matrix, Product, Threads};
use super::simd::{self, simd};
use super::{Shared, contiguous, dims, filled, tensor, uninit, values};
use crate::arguments::Mask;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;
use std::ops::Range;

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
            _ => contiguous(tensor),
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

/// Output in memory as `[batch, seq, heads, head_dim]`, so that merging the heads copies nothing.
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

/// The part of a tile of keys, which begins at `tile.0` and has length `tile.1`, inside a run.
fn part(run: &Range<usize>, (start, len): (usize, usize)) -> Range<usize> {
    let within = |key: usize| key.clamp(start, start + len) - start;
    within(run.start)..within(run.end).max(within(run.start))
}

/// The tiles of keys, start and length, that any query of these runs sees. Tiles begin at multiples of [`KEYS`], so
/// that the partition of a query's sum does not depend on other queries.
fn tiles_of(runs: &[Range<usize>]) -> impl Iterator<Item = (usize, usize)> + use<> {
    let seen = || runs.iter().filter(|run| !run.is_empty());
    let start = seen().map(|run| run.start).min().unwrap_or(0);
    let end = seen().map(|run| run.end).max().unwrap_or(0);
    (start / KEYS * KEYS..end)
        .step_by(KEYS)
        .map(move |tile| (tile, KEYS.min(end - tile)))
}

/// What probabilities are multiplied by in dropout: `[batch, heads, queries, keys]`, row by row.
#[derive(Clone, Copy)]
struct Keep<'a> {
    values: &'a [f32],
    keys: usize,
}

impl<'a> Keep<'a> {
    fn of(keep: Option<&'a FlexTensor>) -> Option<Self> {
        keep.map(|keep| Self {
            values: values(keep),
            keys: dims::<4>(keep)[3],
        })
    }

    /// From a query on, counted through heads and batch.
    fn from(self, query: usize) -> Self {
        let values = &self.values[query * self.keys..];
        Self { values, ..self }
    }

    /// Multiplies a query's probabilities of the keys from `start` on.
    fn apply(self, query: usize, start: usize, probabilities: &mut [f32]) {
        let keep = &self.values[query * self.keys + start..][..probabilities.len()];
        simd::mul_assign(probabilities, keep);
    }

    /// The same for `rows` queries and `len` keys each.
    fn apply_rows(self, start: usize, probabilities: &mut [f32], [rows, len]: [usize; 2]) {
        let rows = probabilities.chunks_exact_mut(len).take(rows);
        rows.enumerate()
            .for_each(|(query, row)| self.apply(query, start, row));
    }
}

/// `softmax(q kᵀ · head_dim^-½) v` and the log-sum-exp `[batch, heads, queries]` of the scaled scores. Probabilities
/// are multiplied by `keep` if there is dropout.
pub(crate) fn attention(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    keep: Option<&FlexTensor>,
    mask: &Mask,
) -> (FlexTensor, FlexTensor) {
    let keep = keep.map(contiguous);
    let keep = Keep::of(keep.as_ref());
    let (q, k, v) = (Heads::of(q), Heads::of(k), Heads::of(v));
    let ([batch, heads, queries, head_dim], keys) = (q.sizes, k.sizes[2]);
    let group = heads / k.sizes[1].max(1);
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
                        keep: keep.map(|keep| keep.from(index * queries + first)),
                    };
                    let runs: Vec<_> = (first..first + rows)
                        .map(|query| mask.run(query, [queries, keys]))
                        .collect();
                    let (q, kv) = (q.head(index).at(first, 0), index / group);
                    tile.run(q, k.head(kv), v.head(kv), lse, scores, scale, &runs);
                },
            );
    });
    (
        layout.tensor(out, batch),
        tensor(lse, [batch, heads, queries]),
    )
}

/// A block of queries of one head.
struct Tile<'a> {
    out: Shared<f32>,
    layout: Merged,
    index: usize,
    first: usize,
    rows: usize,
    /// Of its queries.
    keep: Option<Keep<'a>>,
}

impl Tile<'_> {
    #[allow(clippy::mut_from_ref)]
    fn out_row(&self, r: usize) -> &mut [f32] {
        let offset = self.layout.offset(self.index, self.first + r);
        // SAFETY: the tile owns its rows of the output.
        unsafe { self.out.part(offset, self.layout.head_dim) }
    }

    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        q: Matrix,
        k: Matrix,
        v: Matrix,
        lse: &mut [f32],
        scores: &mut [f32],
        scale: f32,
        runs: &[Range<usize>],
    ) {
        let (head_dim, rows) = (self.layout.head_dim, self.rows);
        let (mut max, mut sum) = ([f32::NEG_INFINITY; QUERIES], [0.0_f32; QUERIES]);
        let mut later = false;
        for (start, len) in tiles_of(runs) {
            // SAFETY: the tile lies inside q, k and the scratch memory.
            unsafe {
                Product {
                    sizes: [rows, len, head_dim],
                    a: q,
                    b: k.at(start, 0).t(),
                    threads: Threads::One,
                }
                .assign(scores.as_mut_ptr(), len)
            };
            for r in 0..rows {
                let row = &mut scores[r * len..(r + 1) * len];
                let seen = part(&runs[r], (start, len));
                row[..seen.start].fill(0.0);
                row[seen.end..].fill(0.0);
                let from = start + seen.start;
                let seen = &mut row[seen];
                if seen.is_empty() {
                    continue;
                }
                // Clamped above −∞, the maximum if all scores are −∞: e^(−∞ + ∞) is NaN and not the weight 0.
                let new_max = max[r].max(simd::max(seen) * scale).max(f32::MIN);
                if later && new_max > max[r] {
                    let shrink = (max[r] - new_max).exp();
                    sum[r] *= shrink;
                    simd::scale(self.out_row(r), shrink);
                }
                max[r] = new_max;
                sum[r] += simd::exp_scaled(seen, scale, new_max);
                if let Some(keep) = self.keep {
                    keep.apply(r, from, seen);
                }
            }
            let out = self
                .out
                .0
                .wrapping_add(self.layout.offset(self.index, self.first));
            // SAFETY: the scores are the tile's own; `out` holds its rows at the layout's distance.
            unsafe {
                let product = Product {
                    sizes: [rows, head_dim, len],
                    a: Matrix::rows(scores, len),
                    b: v.at(start, 0),
                    threads: Threads::One,
                };
                match later {
                    true => product.accumulate(out, self.layout.ld()),
                    false => product.assign(out, self.layout.ld()),
                };
            }
            later = true;
        }
        if !later {
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

/// Sums of the products of two tensors over the last axis: `[batch, heads, queries]`.
pub(crate) fn row_dots(a: &FlexTensor, b: &FlexTensor) -> FlexTensor {
    let (a, b) = (Heads::of(a), Heads::of(b));
    let [batch, heads, queries, head_dim] = a.sizes;
    let dots = (0..batch * heads).into_par_iter().flat_map_iter(|index| {
        let (a, b) = (a.head(index), b.head(index));
        // SAFETY: the rows lie in their tensors.
        let dot = move |i| unsafe { simd::dot(row(a, i, head_dim), row(b, i, head_dim)) };
        (0..queries).map(dot)
    });
    tensor(dots.collect(), [batch, heads, queries])
}

/// Gradients of q, k and v over a subset of the keys; `lse` and `delta` belong to all keys, `keep` to the subset.
pub(crate) fn gradients(
    [q, k, v]: [&FlexTensor; 3],
    g: &FlexTensor,
    lse: &FlexTensor,
    delta: &FlexTensor,
    keep: Option<&FlexTensor>,
    mask: &Mask,
) -> [FlexTensor; 3] {
    let keep = keep.map(contiguous);
    let keep = Keep::of(keep.as_ref());
    let (q, k, v, g) = (Heads::of(q), Heads::of(k), Heads::of(v), Heads::of(g));
    let ([batch, heads, queries, head_dim], [_, kv_heads, keys, _]) = (q.sizes, k.sizes);
    let (group, scale) = (heads / kv_heads.max(1), (head_dim as f32).powf(-0.5));
    let (lse, delta) = (contiguous(lse), contiguous(delta));
    let (lse, delta) = (values(&lse), values(&delta));
    let of_queries = Merged {
        heads,
        seq: queries,
        head_dim,
    };
    let of_keys = Merged {
        heads: kv_heads,
        seq: keys,
        head_dim,
    };
    let size_k = batch * kv_heads * keys * head_dim;
    let (mut dk, mut dv) = (vec![0.0; size_k], vec![0.0; size_k]);
    let dq = filled(batch * heads * queries * head_dim, |dq| {
        let [dq, dk, dv] = [dq, &mut dk[..], &mut dv[..]].map(|x| Shared(x.as_mut_ptr()));
        let work = group * queries * keys * head_dim;
        (0..batch * kv_heads)
            .into_par_iter()
            .with_min_len((1 << 16) / work.max(1) + 1)
            .for_each_init(
                || {
                    let tile = QUERIES.min(queries) * KEYS.min(keys);
                    [uninit(tile), uninit(tile)]
                },
                |scratch, kv| {
                    let at_keys = of_keys.offset(kv, 0);
                    let tiles = (kv * group..(kv + 1) * group)
                        .flat_map(|head| (0..queries).step_by(QUERIES).map(move |q| (head, q)));
                    for (head, first) in tiles {
                        let rows = QUERIES.min(queries - first);
                        let at = head * queries + first..head * queries + first + rows;
                        let runs: Vec<_> = (first..first + rows)
                            .map(|query| mask.run(query, [queries, keys]))
                            .collect();
                        let tile = GradientTile {
                            rows,
                            head_dim,
                            scale,
                            q: q.head(head).at(first, 0),
                            g: g.head(head).at(first, 0),
                            k: k.head(kv),
                            v: v.head(kv),
                            lse: &lse[at.clone()],
                            delta: &delta[at],
                            dq: { dq }.0.wrapping_add(of_queries.offset(head, first)),
                            dk: { dk }.0.wrapping_add(at_keys),
                            dv: { dv }.0.wrapping_add(at_keys),
                            ld: [of_queries.ld(), of_keys.ld()],
                            keep: keep.map(|keep| keep.from(head * queries + first)),
                        };
                        tile.run(&runs, scratch);
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

/// A block of queries of one head, with the keys and values they see.
struct GradientTile<'a> {
    rows: usize,
    head_dim: usize,
    scale: f32,
    q: Matrix,
    g: Matrix,
    k: Matrix,
    v: Matrix,
    lse: &'a [f32],
    delta: &'a [f32],
    /// Written.
    dq: *mut f32,
    /// Added to.
    dk: *mut f32,
    /// Added to.
    dv: *mut f32,
    /// Row strides of `dq`, and of `dk` and `dv`.
    ld: [usize; 2],
    /// Of its queries.
    keep: Option<Keep<'a>>,
}

impl GradientTile<'_> {
    fn run(&self, runs: &[Range<usize>], [p, dp]: &mut [Vec<f32>; 2]) {
        let Self { rows, head_dim, .. } = *self;
        let [ld_q, ld_k] = self.ld;
        let mut later = false;
        for (start, len) in tiles_of(runs) {
            let [k, v] = [self.k, self.v].map(|x| x.at(start, 0));
            let [dk, dv] = [self.dk, self.dv].map(|x| x.wrapping_add(start * ld_k));
            // SAFETY: every part lies in its tensor or in the scratch memory, which holds a tile; the job owns its
            // heads of dq, dk and dv.
            unsafe {
                Product {
                    sizes: [rows, len, head_dim],
                    a: self.q,
                    b: k.t(),
                    threads: Threads::One,
                }
                .assign(p.as_mut_ptr(), len);
                for r in 0..rows {
                    let row = &mut p[r * len..(r + 1) * len];
                    let seen = part(&runs[r], (start, len));
                    row[..seen.start].fill(0.0);
                    row[seen.end..].fill(0.0);
                    simd::exp_scaled(&mut row[seen], self.scale, self.lse[r]);
                }
                // Dropout is applied to what v is multiplied by, and to the gradient that comes back from there.
                let weights = match self.keep {
                    Some(keep) => {
                        dp[..rows * len].copy_from_slice(&p[..rows * len]);
                        keep.apply_rows(start, dp, [rows, len]);
                        Matrix::rows(dp, len)
                    }
                    None => Matrix::rows(p, len),
                };
                Product {
                    sizes: [len, head_dim, rows],
                    a: weights.t(),
                    b: self.g,
                    threads: Threads::One,
                }
                .accumulate(dv, ld_k);
                Product {
                    sizes: [rows, len, head_dim],
                    a: self.g,
                    b: v.t(),
                    threads: Threads::One,
                }
                .assign(dp.as_mut_ptr(), len);
                if let Some(keep) = self.keep {
                    keep.apply_rows(start, dp, [rows, len]);
                }
                for r in 0..rows {
                    let at = r * len..(r + 1) * len;
                    score_gradient(&p[at.clone()], &mut dp[at], self.delta[r], self.scale);
                }
                let d_scores = Matrix::rows(dp, len);
                let product = Product {
                    sizes: [rows, head_dim, len],
                    a: d_scores,
                    b: k,
                    threads: Threads::One,
                };
                match later {
                    true => product.accumulate(self.dq, ld_q),
                    false => product.assign(self.dq, ld_q),
                };
                Product {
                    sizes: [len, head_dim, rows],
                    a: d_scores.t(),
                    b: self.q,
                    threads: Threads::One,
                }
                .accumulate(dk, ld_k);
            }
            later = true;
        }
        if !later {
            for r in 0..rows {
                // SAFETY: the job owns its rows of dq.
                unsafe { std::slice::from_raw_parts_mut(self.dq.add(r * ld_q), head_dim) }
                    .fill(0.0);
            }
        }
    }
}
