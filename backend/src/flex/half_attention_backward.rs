//! The backward pass of attention with products in bf16: the probabilities are computed again, a tile at a time.

use super::amx;
use super::half::Kernel;
use super::half_attention::{Half, multiply, rows};
use super::half_operands::{PANEL, ROWS, STEP, pack_columns, pack_wide, transpose_rounded};
use super::heads::{Heads, KEYS, Keep, part, score_gradient, tiles_of};
use super::simd;
use super::{Shared, filled, uninit};
use crate::arguments::Mask;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;
use std::ops::Range;

/// Queries of a block, which share the panels of keys and values.
const QUERIES: usize = 512;
/// Queries whose probabilities are in the cache at the same time.
const SCORED: usize = 64;

/// See [`gradients`](super::attention::gradients).
pub(super) fn gradients(
    kernel: Kernel,
    tensors: [&Heads; 4],
    [lse, delta]: [&[f32]; 2],
    keep: Option<Keep<'_>>,
    mask: &Mask,
) -> [FlexTensor; 3] {
    let [q, k, v, g] = tensors;
    let ([batch, heads, queries, head_dim], [_, kv_heads, keys, _]) = (q.sizes, k.sizes);
    let group = heads / kv_heads.max(1);
    let (of_queries, of_keys) = (q.merged(), k.merged());
    let size_k = batch * kv_heads * keys * head_dim;
    let (mut dk, mut dv) = (vec![0.0; size_k], vec![0.0; size_k]);
    let dq = filled(batch * heads * queries * head_dim, |dq| {
        let [dq, dk, dv] = [dq, &mut dk[..], &mut dv[..]].map(|x| Shared(x.as_mut_ptr()));
        (0..batch * kv_heads).into_par_iter().for_each_init(
            || Scratch::new([queries, keys, head_dim]),
            |scratch, kv| {
                let _tiles = (kernel == Kernel::Tiles).then(amx::Tiles::configure);
                let blocks = (kv * group..(kv + 1) * group)
                    .flat_map(|head| (0..queries).step_by(QUERIES).map(move |q| (head, q)));
                for (head, first) in blocks {
                    let here = QUERIES.min(queries - first);
                    let runs: Vec<_> = (first..first + here)
                        .map(|query| mask.run(query, [queries, keys]))
                        .collect();
                    let of_block = |x: &Heads| {
                        // SAFETY: the block lies in the head.
                        unsafe { rows(x.head(head).at(first, 0), [here, head_dim]) }
                    };
                    let at = head * queries + first;
                    let mut block = Block {
                        kernel,
                        scale: (head_dim as f32).powf(-0.5),
                        q: of_block(q),
                        g: of_block(g),
                        lse: &lse[at..at + here],
                        delta: &delta[at..at + here],
                        keep: keep.map(|keep| keep.from(at)),
                        runs: &runs,
                        scratch,
                    };
                    block.begin();
                    for (start, len) in tiles_of(&runs) {
                        let of_tile = |x: &Heads| {
                            // SAFETY: the tile lies in the head.
                            unsafe { rows(x.head(kv).at(start, 0), [len, head_dim]) }
                        };
                        block.tile(of_tile(k), of_tile(v), (start, len));
                        let sums = [(dk, &block.scratch.dk), (dv, &block.scratch.dv)];
                        for (out, sums) in sums {
                            for (key, sums) in sums.chunks_exact(head_dim).take(len).enumerate() {
                                let at = of_keys.offset(kv, start + key);
                                // SAFETY: the task has its own head of keys and values.
                                simd::add_assign(unsafe { { out }.part(at, head_dim) }, sums);
                            }
                        }
                    }
                    let sums = block.scratch.dq.chunks_exact(head_dim).take(here);
                    for (row, sums) in sums.enumerate() {
                        let at = of_queries.offset(head, first + row);
                        // SAFETY: the task has its own heads of queries.
                        unsafe { { dq }.part(at, head_dim) }.copy_from_slice(sums);
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

/// The memory of a task. The sizes of matrices are rounded up to whole tiles.
struct Scratch {
    head_dim: usize,
    /// `[queries, head_dim]` each
    q: Half,
    g: Half,
    /// Panels of a tile's keys and values, transposed: scores are their products.
    k_columns: Vec<u16>,
    v_columns: Vec<u16>,
    /// Panels of the keys as they are.
    k_rows: Vec<u16>,
    /// Panels of some queries, or of their outputs' gradients.
    few: Vec<u16>,
    /// `[SCORED, keys]`: the probabilities, and the gradient of the scores.
    p: Vec<f32>,
    dp: Vec<f32>,
    /// `[SCORED, keys]` and its transpose, of either.
    half: Half,
    transposed: Half,
    /// `[queries, head_dim]`
    dq: Vec<f32>,
    /// `[keys, head_dim]` each, of a tile
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl Scratch {
    /// For at most so many queries and keys.
    fn new([queries, keys, head_dim]: [usize; 3]) -> Self {
        let (queries, keys) = (QUERIES.min(queries) + SCORED, KEYS.min(keys));
        let wide = keys.next_multiple_of(PANEL);
        let panels = || vec![0; wide * head_dim];
        Self {
            head_dim,
            q: Half::new(queries, head_dim),
            g: Half::new(queries, head_dim),
            k_columns: panels(),
            v_columns: panels(),
            k_rows: panels(),
            few: vec![0; SCORED * head_dim],
            p: uninit(SCORED * wide),
            dp: uninit(SCORED * wide),
            half: Half::new(SCORED, keys),
            transposed: Half::new(wide, SCORED),
            dq: uninit(queries * head_dim),
            dk: uninit(wide * head_dim),
            dv: uninit(wide * head_dim),
        }
    }
}

/// A block of queries of one head; rows of tensors with their distance.
struct Block<'a> {
    kernel: Kernel,
    scale: f32,
    q: (&'a [f32], usize),
    g: (&'a [f32], usize),
    lse: &'a [f32],
    delta: &'a [f32],
    /// Of its queries.
    keep: Option<Keep<'a>>,
    runs: &'a [Range<usize>],
    scratch: &'a mut Scratch,
}

impl Block<'_> {
    /// Rounds queries and gradients, and clears the gradient of the queries.
    fn begin(&mut self) {
        let head_dim = self.scratch.head_dim;
        for row in 0..self.runs.len() {
            let of = |(values, stride): (_, usize)| {
                let values: &[f32] = values;
                &values[row * stride..][..head_dim]
            };
            self.scratch.q.set(row, of(self.q));
            self.scratch.g.set(row, of(self.g));
        }
        let padded = self.runs.len().next_multiple_of(ROWS);
        self.scratch.dq[..padded * head_dim].fill(0.0);
    }

    /// What a tile of keys adds to the gradient of the queries, and the tile's `dk` and `dv`.
    fn tile(&mut self, k: (&[f32], usize), v: (&[f32], usize), (start, len): (usize, usize)) {
        let (kernel, scratch) = (self.kernel, &mut *self.scratch);
        let head_dim = scratch.head_dim;
        let (wide, deep) = (len.next_multiple_of(PANEL), len.next_multiple_of(STEP));
        let across = [0, head_dim, head_dim];
        pack_columns(&mut scratch.k_columns, k.0, k.1, across, [0, len]);
        pack_columns(&mut scratch.v_columns, v.0, v.1, across, [0, len]);
        pack_wide(&mut scratch.k_rows, k.0, k.1, [0, len, deep], [0, head_dim]);
        scratch.dk[..wide * head_dim].fill(0.0);
        scratch.dv[..wide * head_dim].fill(0.0);
        for first in (0..self.runs.len()).step_by(SCORED) {
            let here = SCORED.min(self.runs.len() - first);
            let whole = here.next_multiple_of(STEP) * wide;
            let (p, dp) = (&mut scratch.p[..whole], &mut scratch.dp[..whole]);
            p.fill(0.0);
            let of_keys = [here, len, head_dim];
            multiply(kernel, &scratch.q, first, &scratch.k_columns, p, of_keys);
            p[here * wide..].fill(0.0);
            for (row, p) in p.chunks_exact_mut(wide).take(here).enumerate() {
                let seen = part(&self.runs[first + row], (start, len));
                p[..seen.start].fill(0.0);
                p[seen.end..].fill(0.0);
                simd::exp_scaled(&mut p[seen], self.scale, self.lse[first + row]);
            }
            // Dropout is applied to what v is multiplied by, and to the gradient that comes back from there.
            dp.copy_from_slice(p);
            self.keep.inspect(|keep| {
                let rows = dp.chunks_exact_mut(wide).take(here).enumerate();
                rows.for_each(|(row, dp)| keep.apply(first + row, start, &mut dp[..len]));
            });
            let depth = [0, here, here.next_multiple_of(STEP)];
            let of_few = |few: &mut [u16], (values, stride): (&[f32], usize)| {
                pack_wide(few, &values[first * stride..], stride, depth, [0, head_dim]);
            };
            let of_queries = [len, head_dim, here];
            of_few(&mut scratch.few, self.g);
            transpose(&mut scratch.transposed, dp, wide, len);
            multiply(
                kernel,
                &scratch.transposed,
                0,
                &scratch.few,
                &mut scratch.dv,
                of_queries,
            );
            dp.fill(0.0);
            multiply(kernel, &scratch.g, first, &scratch.v_columns, dp, of_keys);
            dp[here * wide..].fill(0.0);
            for (row, dp) in dp.chunks_exact_mut(wide).take(here).enumerate() {
                self.keep
                    .inspect(|keep| keep.apply(first + row, start, &mut dp[..len]));
                let p = &p[row * wide..][..wide];
                score_gradient(p, dp, self.delta[first + row], self.scale);
                scratch.half.set(row, &dp[..len]);
            }
            of_few(&mut scratch.few, self.q);
            transpose(&mut scratch.transposed, dp, wide, len);
            multiply(
                kernel,
                &scratch.transposed,
                0,
                &scratch.few,
                &mut scratch.dk,
                of_queries,
            );
            let dq = &mut scratch.dq[first * head_dim..];
            multiply(
                kernel,
                &scratch.half,
                0,
                &scratch.k_rows,
                dq,
                [here, head_dim, len],
            );
        }
    }
}

/// The first columns of a matrix whose rows are `stride` values apart, as rows in bf16.
fn transpose(out: &mut Half, values: &[f32], stride: usize, columns: usize) {
    let out_stride = out.stride;
    for first in (0..columns).step_by(ROWS) {
        let half = &mut out.values[first * out_stride..][..ROWS * out_stride];
        transpose_rounded(half, &values[first..], stride, ROWS, out_stride);
    }
}

#[cfg(test)]
mod tests {
    use super::super::attention::{attention, gradients, row_dots};
    use super::super::half_attention;
    use super::super::{contiguous, tensor, values};
    use super::*;
    use crate::precision::ComputePrecision;
    use proptest::prelude::*;

    fn documents(queries: usize, keys: usize) -> Mask {
        let run = |query: usize| [query / 3, keys.min(query + 50)].map(|key| key as u32);
        Mask::Runs((0..queries).map(run).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Output and gradients beside those in f32, whose operands are not rounded to 8 bits: within 2^-5 of the
        /// largest value, and within 2^-10 in the mean. Beside the plain kernel's, whose operands are rounded too:
        /// within 2^-8, as a sum in another order may round an operand the other way.
        #[test]
        fn every_kernel_gives_nearly_what_f32_gives(
            [batch, kv_heads, group] in [1..3_usize, 1..3, 1..3], queries in prop_oneof![64..150_usize, Just(520)],
            keys in prop_oneof![64..150_usize, Just(530)], wide in any::<bool>(), hidden in 0..3_usize,
            dropout in any::<bool>(), seed in any::<u64>(),
        ) {
            let (heads, head_dim) = (kv_heads * group, if wide { 2 * PANEL } else { PANEL });
            let mask = [Mask::All, Mask::Causal, documents(queries, keys)][hidden].clone();
            let mut rng = crate::Rng::new(seed, 0);
            let mut draw = |shape: [usize; 4]| {
                let data = (0..shape.iter().product()).map(|_| rng.normal()).collect();
                tensor(data, shape)
            };
            let [q, g] = [0, 1].map(|_| draw([batch, heads, queries, head_dim]));
            // Keys as they come from a merged projection: positions are not beside each other.
            let k = draw([batch, keys, kv_heads, head_dim]).permute(&[0, 2, 1, 3]);
            let v = draw([batch, kv_heads, keys, head_dim]);
            let drawn = draw([batch, heads, queries, keys]);
            let keep = values(&drawn).iter().map(|&x| if x < -0.5 { 0.0 } else { 1.4 }).collect();
            let keep = tensor(keep, [batch, heads, queries, keys]);
            let keep = dropout.then_some(&keep);
            let (out, lse) = attention(&q, &k, &v, keep, &mask);
            let delta = row_dots(&g, &out);
            let tensors = [&q, &k, &v, &g];
            let exact = gradients(tensors, [&lse, &delta], keep, &mask, ComputePrecision::F32);
            let mut plain: Option<Vec<FlexTensor>> = None;
            for kernel in Kernel::available().into_iter().rev() {
                let heads = tensors.map(Heads::of);
                let [q, k, v, g] = heads.each_ref();
                let keep = Keep::of(keep);
                let (half_out, half_lse) = half_attention::attention(kernel, [q, k, v], keep, &mask);
                let sums = [values(&lse), values(&delta)];
                let [dq, dk, dv] = super::gradients(kernel, [q, k, v, g], sums, keep, &mask);
                let [exact_dq, exact_dk, exact_dv] = &exact;
                let found = [half_out, half_lse, dq, dk, dv].map(|found| contiguous(&found));
                let expected = [&out, &lse, exact_dq, exact_dk, exact_dv].map(contiguous);
                for (index, name) in ["out", "lse", "dq", "dk", "dv"].into_iter().enumerate() {
                    let (found, expected) = (values(&found[index]), values(&expected[index]));
                    let finite = expected.iter().filter(|x| x.is_finite());
                    let largest = finite.clone().map(|x| x.abs()).fold(0.0_f32, f32::max);
                    let apart = |others: &[f32]| -> Vec<f32> {
                        let pairs = found.iter().zip(others);
                        pairs.map(|(x, other)| if x == other { 0.0 } else { (x - other).abs() }).collect()
                    };
                    let errors = apart(expected);
                    for (error, (found, expected)) in errors.iter().zip(found.iter().zip(expected)) {
                        prop_assert!(*error <= largest / 32.0, "{name}, {kernel:?}: {found} for {expected}");
                    }
                    let mean = errors.iter().sum::<f32>() / errors.len() as f32;
                    prop_assert!(mean <= largest / 1024.0, "{name}, {kernel:?}: {mean} in the mean of {largest}");
                    if let Some(plain) = &plain {
                        for error in apart(values(&plain[index])) {
                            prop_assert!(error <= largest / 256.0, "{name}, {kernel:?}: {error} from the plain one");
                        }
                    }
                }
                plain.get_or_insert_with(|| found.into());
            }
        }
    }
}
