//! Softmax attention that never stores the score matrix (online softmax over tiles of keys) and returns the
//! log-sum-exp of every query's scores; the backward pass recomputes the probabilities from it.

use super::half::Kernel;
use super::half_attention;
use super::half_attention_backward;
use super::heads::{Heads, KEYS, Keep, Merged, Softmax, part, row, score_gradient, tiles_of};
use super::matmul::{Matrix, Product, Threads};
use super::simd;
use super::{Shared, contiguous, filled, tensor, uninit, values};
use crate::arguments::Mask;
use crate::precision::{ComputePrecision, autocasting};
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;
use std::ops::Range;

/// Queries per tile.
const QUERIES: usize = 192;

/// `softmax(q kᵀ · head_dim^-½) v` and the log-sum-exp `[batch, heads, queries]` of the scaled scores. Probabilities
/// are multiplied by `keep` if there is dropout. Within [`autocast`](crate::autocast) the products are in bf16, where
/// that is faster.
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
    let half = Kernel::of(autocasting());
    if let Some(kernel) = half.filter(|_| half_attention::pays([queries, keys, head_dim])) {
        return half_attention::attention(kernel, [&q, &k, &v], keep, mask);
    }
    let group = heads / k.sizes[1].max(1);
    let scale = (head_dim as f32).powf(-0.5);
    let (tiles, layout) = (queries.div_ceil(QUERIES), q.merged());
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
        let mut softmax = Softmax::new(scale, runs, self.keep);
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
            for (r, scores) in scores.chunks_exact_mut(len).take(rows).enumerate() {
                softmax.weigh(r, start, scores, later.then(|| self.out_row(r)));
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
        for (r, lse) in lse.iter_mut().enumerate() {
            let (factor, log_sum_exp) = softmax.finish(r);
            simd::scale(self.out_row(r), factor);
            *lse = log_sum_exp;
        }
    }
}

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

/// Gradients of q, k and v over a subset of the keys; `lse` and `delta` belong to all keys, `keep` to the subset. The
/// products are computed in `precision`, where that is faster.
pub(crate) fn gradients(
    [q, k, v, g]: [&FlexTensor; 4],
    [lse, delta]: [&FlexTensor; 2],
    keep: Option<&FlexTensor>,
    mask: &Mask,
    precision: ComputePrecision,
) -> [FlexTensor; 3] {
    let keep = keep.map(contiguous);
    let keep = Keep::of(keep.as_ref());
    let (q, k, v, g) = (Heads::of(q), Heads::of(k), Heads::of(v), Heads::of(g));
    let ([batch, heads, queries, head_dim], [_, kv_heads, keys, _]) = (q.sizes, k.sizes);
    let (group, scale) = (heads / kv_heads.max(1), (head_dim as f32).powf(-0.5));
    let (lse, delta) = (contiguous(lse), contiguous(delta));
    let (lse, delta) = (values(&lse), values(&delta));
    let half = Kernel::of(precision);
    if let Some(kernel) = half.filter(|_| half_attention::pays([queries, keys, head_dim])) {
        let tensors = [&q, &k, &v, &g];
        return half_attention_backward::gradients(kernel, tensors, [lse, delta], keep, mask);
    }
    let (of_queries, of_keys) = (q.merged(), k.merged());
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
