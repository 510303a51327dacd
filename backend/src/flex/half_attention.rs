//! Softmax attention whose products are in bf16: queries, keys, values and weights are rounded; scores, softmax and
//! sums stay f32. As in [`attention`](super::attention), no score matrix is stored.

use super::amx;
use super::half::{Block, Kernel};
use super::half_operands::{PANEL, ROWS, STEP, pack_columns, pack_wide, round_row};
use super::heads::{self, Heads, KEYS, Keep, Softmax, tiles_of};
use super::matmul::Matrix;
use super::{Shared, filled, tensor, uninit};
use crate::arguments::Mask;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

/// Queries of a task, which share the panels of keys and values.
const QUERIES: usize = 512;
/// Queries whose scores are in the cache at the same time.
const SCORED: usize = 48;

/// Whether products in bf16 are faster: a head fills whole panels, and packing is small beside the products.
pub(super) fn pays([queries, keys, head_dim]: [usize; 3]) -> bool {
    head_dim.is_multiple_of(PANEL) && queries >= 4 * ROWS && keys >= PANEL
}

/// The first values of a matrix whose rows are contiguous, and the distance of its rows.
///
/// # Safety
/// The rows lie in the tensor that the matrix looks into, one after the other.
pub(super) unsafe fn rows<'a>(matrix: Matrix, [rows, columns]: [usize; 2]) -> (&'a [f32], usize) {
    let stride = matrix.row_stride.unsigned_abs();
    let len = rows.saturating_sub(1) * stride + columns;
    // SAFETY: the caller's contract.
    (
        unsafe { std::slice::from_raw_parts(matrix.ptr, len) },
        stride,
    )
}

/// Rows in bf16, as [`multiply`] takes them.
pub(super) struct Half {
    pub(super) values: Vec<u16>,
    pub(super) stride: usize,
}

impl Half {
    /// `rows` rows for at most `columns` values.
    pub(super) fn new(rows: usize, columns: usize) -> Self {
        let stride = columns.next_multiple_of(STEP);
        let values = vec![0; rows.next_multiple_of(ROWS) * stride];
        Self { values, stride }
    }

    pub(super) fn set(&mut self, row: usize, x: &[f32]) {
        let (row, padding) = self.values[row * self.stride..][..self.stride].split_at_mut(x.len());
        round_row(row, x);
        // Up to the end of the last step, which is multiplied.
        let padding_len = x.len().next_multiple_of(STEP) - x.len();
        padding[..padding_len].fill(0);
    }
}

/// `sums[rows, columns] += x panels` of `depth` inputs; rows, columns and depth are whole tiles in memory.
pub(super) fn multiply(
    kernel: Kernel,
    x: &Half,
    first: usize,
    panels: &[u16],
    sums: &mut [f32],
    [rows, columns, depth]: [usize; 3],
) {
    let deep = depth.next_multiple_of(STEP);
    let columns = columns.next_multiple_of(PANEL);
    let padded = rows.next_multiple_of(ROWS);
    assert!(x.stride >= deep && x.values.len() >= (first + padded) * x.stride);
    assert!(sums.len() >= padded * columns && panels.len() >= columns * deep);
    for (index, panel) in panels
        .chunks_exact(deep * PANEL)
        .take(columns / PANEL)
        .enumerate()
    {
        for row in (0..rows).step_by(kernel.rows()) {
            let block = Block {
                x: x.values[(first + row) * x.stride..].as_ptr(),
                x_stride: x.stride,
                panel: panel.as_ptr(),
                pairs: deep / 2,
                sums: sums[row * columns + index * PANEL..].as_mut_ptr(),
                stride: columns,
            };
            // SAFETY: the kernel is one of the processor's, the sizes were checked, and the caller's task has
            // configured its tiles.
            unsafe { kernel.run(kernel.rows().min(rows - row), block) };
        }
    }
}

/// See [`attention`](super::attention::attention).
pub(super) fn attention(
    kernel: Kernel,
    [q, k, v]: [&Heads; 3],
    keep: Option<Keep<'_>>,
    mask: &Mask,
) -> (FlexTensor, FlexTensor) {
    let ([batch, heads, queries, head_dim], [_, kv_heads, keys, _]) = (q.sizes, k.sizes);
    let (group, blocks) = (heads / kv_heads.max(1), queries.div_ceil(QUERIES));
    let layout = q.merged();
    let mut lse = uninit(batch * heads * queries);
    let out = filled(batch * heads * queries * head_dim, |out| {
        let (out, lse) = (Shared(out.as_mut_ptr()), Shared(lse.as_mut_ptr()));
        (0..batch * heads * blocks).into_par_iter().for_each_init(
            || Scratch::new([QUERIES.min(queries), KEYS.min(keys), head_dim]),
            |scratch, task| {
                let (index, first) = (task / blocks, task % blocks * QUERIES);
                let rows = QUERIES.min(queries - first);
                let runs: Vec<_> = (first..first + rows)
                    .map(|query| mask.run(query, [queries, keys]))
                    .collect();
                let keep = keep.map(|keep| keep.from(index * queries + first));
                let mut softmax = Softmax::new((head_dim as f32).powf(-0.5), &runs, keep);
                let heads = [
                    q.head(index).at(first, 0),
                    k.head(index / group),
                    v.head(index / group),
                ];
                let tiles = tiles_of(&runs);
                scratch.run(kernel, heads, tiles, &mut softmax, [rows, head_dim]);
                for (row, sums) in scratch.sums.chunks_exact(head_dim).take(rows).enumerate() {
                    let (factor, log_sum_exp) = softmax.finish(row);
                    let at = layout.offset(index, first + row);
                    // SAFETY: the task has its own queries.
                    let (out, lse) = unsafe {
                        (
                            { out }.part(at, head_dim),
                            { lse }.part(index * queries + first + row, 1),
                        )
                    };
                    lse[0] = log_sum_exp;
                    out.iter_mut()
                        .zip(sums)
                        .for_each(|(out, sum)| *out = sum * factor);
                }
            },
        );
    });
    (
        layout.tensor(out, batch),
        tensor(lse, [batch, heads, queries]),
    )
}

/// The memory of a task.
struct Scratch {
    /// `[queries, head_dim]`
    q: Half,
    /// Panels of the keys of a tile, transposed.
    k: Vec<u16>,
    /// Panels of its values.
    v: Vec<u16>,
    /// `[SCORED, keys]`
    scores: Vec<f32>,
    /// The same in bf16, after the softmax.
    weights: Half,
    /// `[queries, head_dim]`: the output before it is divided by the sum of weights.
    sums: Vec<f32>,
}

impl Scratch {
    /// For at most so many queries and keys.
    fn new([queries, keys, head_dim]: [usize; 3]) -> Self {
        Self {
            q: Half::new(queries + SCORED, head_dim),
            k: vec![0; keys.next_multiple_of(PANEL) * head_dim],
            v: vec![0; keys.next_multiple_of(STEP) * head_dim],
            scores: uninit(SCORED * keys.next_multiple_of(PANEL)),
            weights: Half::new(SCORED, keys),
            sums: uninit((queries + SCORED) * head_dim),
        }
    }

    /// The `sums` of `rows` queries over tiles of keys: start and length.
    fn run(
        &mut self,
        kernel: Kernel,
        [q, k, v]: [Matrix; 3],
        tiles: impl Iterator<Item = (usize, usize)>,
        softmax: &mut Softmax<'_>,
        [rows, head_dim]: [usize; 2],
    ) {
        let _tiles = (kernel == Kernel::Tiles).then(amx::Tiles::configure);
        for row in 0..rows {
            // SAFETY: the row lies in q.
            self.q.set(row, unsafe { heads::row(q, row, head_dim) });
        }
        self.sums[..rows.next_multiple_of(ROWS) * head_dim].fill(0.0);
        for (start, len) in tiles {
            let (wide, deep) = (len.next_multiple_of(PANEL), len.next_multiple_of(STEP));
            // SAFETY: the tile lies in k and v.
            let ((k, k_stride), (v, v_stride)) = unsafe {
                (
                    self::rows(k.at(start, 0), [len, head_dim]),
                    self::rows(v.at(start, 0), [len, head_dim]),
                )
            };
            pack_columns(&mut self.k, k, k_stride, [0, head_dim, head_dim], [0, len]);
            pack_wide(&mut self.v, v, v_stride, [0, len, deep], [0, head_dim]);
            for first in (0..rows).step_by(SCORED) {
                let here = SCORED.min(rows - first);
                self.scores[..here.next_multiple_of(ROWS) * wide].fill(0.0);
                multiply(
                    kernel,
                    &self.q,
                    first,
                    &self.k,
                    &mut self.scores,
                    [here, len, head_dim],
                );
                let sums = &mut self.sums[first * head_dim..];
                for (row, scores) in self.scores.chunks_exact_mut(wide).take(here).enumerate() {
                    let before = &mut sums[row * head_dim..][..head_dim];
                    let scores = &mut scores[..len];
                    softmax.weigh(first + row, start, scores, Some(before));
                    self.weights.set(row, scores);
                }
                multiply(
                    kernel,
                    &self.weights,
                    0,
                    &self.v,
                    sums,
                    [here, head_dim, len],
                );
            }
        }
    }
}
