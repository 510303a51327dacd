//! A mixture of experts: all products of one linear map in one launch, for any number of experts and tokens. The device
//! computes the routes, so it never waits for the host to read and sort scores. The host launches an upper bound on the
//! work, and blocks with no work exit immediately.

use super::elementwise::activate_one;
use super::{UNITS, cubes, dims, elem, empty, units, upload_floats};
use crate::arguments::{Activation, Routes};
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Side of the output block of a cube.
pub(super) const BLOCK: usize = 64;

/// Length of the inner axis in shared memory.
pub(super) const DEPTH: usize = 16;

/// Side of a thread's part of the block.
pub(super) const PART: usize = 4;

/// Threads along a side of the block.
pub(super) const SIDE: usize = BLOCK / PART;

/// Experts per token that one round has room for when routes are unknown to the host; more take further rounds.
const EXPECTED: usize = 4;

/// Whether a token goes to an expert. NaN does, so that it reaches the output.
#[cube]
fn reaches<F: Float>(scores: &Tensor<F>, at: usize, threshold: f32) -> bool {
    let below = f32::cast_from(scores[at]) < threshold;
    !below
}

/// Number of a thread's tokens that an expert has.
#[cube]
fn count_of_run<F: Float>(
    scores: &Tensor<F>,
    threshold: f32,
    expert: usize,
    start: usize,
    run: usize,
) -> i32 {
    let (tokens, experts) = (scores.shape(0), scores.shape(1));
    let mut count = 0i32;
    for i in 0..run {
        if start + i < tokens {
            let one = reaches::<F>(scores, (start + i) * experts + expert, threshold);
            count += select(one, 1i32, 0i32);
        }
    }
    count
}

/// Number of tokens of each expert: scores `[tokens, experts]`, one cube per expert.
#[cube(launch)]
fn count_kernel<F: Float>(
    scores: &Tensor<F>,
    threshold: &Tensor<F>,
    counts: &mut Tensor<i32>,
    #[define(F)] _dtype: ElemType,
) {
    let mut scratch = Shared::<[i32]>::new_slice(comptime!(UNITS as usize));
    let expert = CUBE_POS;
    if expert >= scores.shape(1) {
        terminate!();
    }
    let threshold = f32::cast_from(threshold[0]);
    let (unit, run) = (
        UNIT_POS as usize,
        scores.shape(0).div_ceil(CUBE_DIM as usize),
    );
    scratch[unit] = count_of_run::<F>(scores, threshold, expert, unit * run, run);
    sync_cube();
    if UNIT_POS == 0 {
        let mut count = 0i32;
        for unit in 0..CUBE_DIM as usize {
            count += scratch[unit];
        }
        counts[expert] = count;
    }
}

/// The first block of an expert.
#[cube]
pub(super) fn first_block(counts: &Tensor<i32>, expert: usize) -> usize {
    let mut blocks = 0usize;
    for other in 0..expert {
        blocks += usize::cast_from(counts[other]).div_ceil(BLOCK);
    }
    blocks
}

/// Gives the pairs of token and expert their places, sorted by expert and by token within each; every expert's begin
/// with a block of their own. A block is `[expert, pairs]`; a cube for an expert, of whose tokens each thread takes a
/// run.
#[cube(launch)]
fn place_kernel<F: Float>(
    scores: &Tensor<F>,
    threshold: &Tensor<F>,
    counts: &Tensor<i32>,
    places: &mut Tensor<i32>,
    row_of_place: &mut Tensor<i32>,
    blocks: &mut Tensor<i32>,
    total: &mut Tensor<i32>,
    #[define(F)] _dtype: ElemType,
) {
    let mut scratch = Shared::<[i32]>::new_slice(comptime!(UNITS as usize));
    let (expert, tokens, experts) = (CUBE_POS, scores.shape(0), scores.shape(1));
    if expert >= experts {
        terminate!();
    }
    let threshold = f32::cast_from(threshold[0]);
    let first = first_block(counts, expert);
    let pairs = usize::cast_from(counts[expert]);
    let unit = UNIT_POS as usize;
    let mut block = unit;
    while block * BLOCK < pairs {
        let mut rows = pairs - block * BLOCK;
        if rows > BLOCK {
            rows = BLOCK.runtime();
        }
        blocks[(first + block) * 2] = expert as i32;
        blocks[(first + block) * 2 + 1] = rows as i32;
        block += CUBE_DIM as usize;
    }
    if unit == 0 && expert + 1 == experts {
        total[0] = (first + pairs.div_ceil(BLOCK)) as i32;
    }

    let run = tokens.div_ceil(CUBE_DIM as usize);
    let start = unit * run;
    scratch[unit] = count_of_run::<F>(scores, threshold, expert, start, run);
    sync_cube();
    let mut place = first * BLOCK;
    for other in 0..unit {
        place += usize::cast_from(scratch[other]);
    }
    for i in 0..run {
        let token = start + i;
        if token < tokens {
            let at = token * experts + expert;
            if reaches::<F>(scores, at, threshold) {
                places[at] = place as i32;
                row_of_place[place] = token as i32;
                place += 1usize;
            } else {
                places[at] = -1i32;
            }
        }
    }
}

/// Zeros for a thread's part of a block.
#[cube]
pub(super) fn no_sums() -> Array<f32> {
    let mut sums = Array::<f32>::new(comptime!(PART * PART));
    #[unroll]
    for i in 0..comptime!(PART * PART) {
        sums[i] = 0.0f32;
    }
    sums
}

/// Adds `leftᵀ right` of the two tiles `[DEPTH, BLOCK]` to a thread's part of the block.
#[cube]
pub(super) fn multiply(
    sums: &mut Array<f32>,
    left: &Shared<[f32]>,
    right: &Shared<[f32]>,
    unit_row: usize,
    unit_column: usize,
) {
    for at in 0..DEPTH {
        #[unroll]
        for i in 0..PART {
            let a = left[at * BLOCK + unit_row + i];
            #[unroll]
            for j in 0..PART {
                sums[i * PART + j] += a * right[at * BLOCK + unit_column + j];
            }
        }
    }
}

/// `act(x W_e + b_e)`, or `x W_eᵀ` where transposed, for the pairs of the blocks from `first_block` on, as many as
/// there is room for: `[rows, in]` to `[places, out]`, places counted from that block's.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn grouped_kernel<F: Float>(
    x: &Tensor<F>,
    row_of_place: &Tensor<i32>,
    w: &Tensor<F>,
    b: &Tensor<F>,
    blocks: &Tensor<i32>,
    total: &Tensor<i32>,
    y: &mut Tensor<F>,
    first_block: u32,
    columns: u32,
    #[comptime] gathered: bool,
    #[comptime] transposed: bool,
    #[comptime] act: Activation,
    #[define(F)] _dtype: ElemType,
) {
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * BLOCK));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * BLOCK));
    let (block, column) = (CUBE_POS / columns as usize, CUBE_POS % columns as usize);
    let (of_all, first) = (first_block as usize + block, block * BLOCK);
    if first >= y.shape(0) || of_all >= usize::cast_from(total[0]) {
        terminate!();
    }
    let expert = usize::cast_from(blocks[of_all * 2]);
    let pairs = usize::cast_from(blocks[of_all * 2 + 1]);
    let mut inner = w.shape(1);
    let mut outputs = w.shape(2);
    if transposed {
        inner = w.shape(2);
        outputs = w.shape(1);
    }
    let unit = UNIT_POS as usize;
    let (unit_row, unit_column) = (unit / SIDE * PART, unit % SIDE * PART);
    let from_column = column * BLOCK;

    let mut sums = no_sums();
    let mut depth = 0usize;
    while depth < inner {
        let mut i = unit;
        while i < comptime!(DEPTH * BLOCK) {
            let (pair, at) = (i / DEPTH, depth + i % DEPTH);
            let mut value = 0.0f32;
            if pair < pairs && at < inner {
                let mut row = first + pair;
                if gathered {
                    row = usize::cast_from(row_of_place[of_all * BLOCK + pair]);
                }
                value = f32::cast_from(x[row * inner + at]);
            }
            left[(i % DEPTH) * BLOCK + pair] = value;
            // Adjacent threads read adjacent values in either layout of the weight.
            let mut down = i / BLOCK;
            let mut across = i % BLOCK;
            if transposed {
                down = i % DEPTH;
                across = i / DEPTH;
            }
            let (at, output) = (depth + down, from_column + across);
            let mut value = 0.0f32;
            if at < inner && output < outputs {
                let mut of_w = (expert * inner + at) * outputs + output;
                if transposed {
                    of_w = (expert * outputs + output) * inner + at;
                }
                value = f32::cast_from(w[of_w]);
            }
            right[down * BLOCK + across] = value;
            i += CUBE_DIM as usize;
        }
        sync_cube();
        multiply(&mut sums, &left, &right, unit_row, unit_column);
        sync_cube();
        depth += DEPTH;
    }
    #[unroll]
    for i in 0..PART {
        #[unroll]
        for j in 0..PART {
            let (pair, output) = (unit_row + i, from_column + unit_column + j);
            if pair < pairs && output < outputs {
                let mut value = sums[i * PART + j];
                if !transposed {
                    value += f32::cast_from(b[expert * outputs + output]);
                }
                y[(first + pair) * outputs + output] = F::cast_from(activate_one(value, act));
            }
        }
    }
}

/// Adds `Σ gate · out`, or `Σ out` where not weighted, over the places from the first block's on to each token's sum,
/// in the order of the experts; a cube for a token.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn combine_kernel<F: Float>(
    out: &Tensor<F>,
    gates: &Tensor<F>,
    places: &Tensor<i32>,
    total: &Tensor<i32>,
    y: &mut Tensor<f32>,
    first_block: u32,
    #[comptime] weighted: bool,
    #[define(F)] _dtype: ElemType,
) {
    let (token, experts, d) = (CUBE_POS, places.shape(1), y.shape(1));
    if token >= y.shape(0) || (first_block > 0 && first_block as i32 >= total[0]) {
        terminate!();
    }
    let from = first_block as i32 * BLOCK as i32;
    let to = from + out.shape(0) as i32;
    let mut i = UNIT_POS as usize;
    while i < d {
        let mut sum = 0.0f32;
        if first_block > 0 {
            sum = y[token * d + i];
        }
        for expert in 0..experts {
            let place = places[token * experts + expert];
            if place >= from && place < to {
                let mut value = f32::cast_from(out[usize::cast_from(place - from) * d + i]);
                if weighted {
                    value *= f32::cast_from(gates[token * experts + expert]);
                }
                sum += value;
            }
        }
        y[token * d + i] = sum;
        i += CUBE_DIM as usize;
    }
}

/// The places of the pairs of token and expert, sorted by expert and by token within each.
pub(super) struct Placed {
    /// `[experts]`, the number of pairs of each.
    pub(super) counts: CubeTensor,
    /// `[tokens, experts]`, the place of a pair, −1 where there is none.
    places: CubeTensor,
    /// The token of each place.
    pub(super) row_of_place: CubeTensor,
    /// `[most, 2]`: expert and pairs of each block.
    pub(super) blocks: CubeTensor,
    /// Number of blocks.
    pub(super) total: CubeTensor,
    /// Upper bound on the number of blocks.
    pub(super) most: usize,
}

/// What the rows of a matrix belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// A row for each token.
    Tokens,
    /// A row for each place: the tokens are gathered already.
    Places,
}

/// How one of the experts' two linear maps is used.
pub(super) struct Map<'a> {
    /// `[experts, in, out]`
    w: &'a CubeTensor,
    /// `[experts, out]`; `None`: the transposed map, without a bias.
    b: Option<&'a CubeTensor>,
    /// What goes in.
    rows: Rows,
    act: Activation,
}

impl<'a> Map<'a> {
    /// `act(x w + b)`
    pub(super) fn forward(
        w: &'a CubeTensor,
        b: &'a CubeTensor,
        rows: Rows,
        act: Activation,
    ) -> Self {
        Self {
            w,
            b: Some(b),
            rows,
            act,
        }
    }

    /// `x wᵀ`
    #[cfg(not(feature = "fusion"))]
    pub(super) fn back(w: &'a CubeTensor, rows: Rows) -> Self {
        Self {
            w,
            b: None,
            rows,
            act: Activation::None,
        }
    }
}

impl Placed {
    /// A pair for every score `[tokens, experts]` that reaches the threshold `[1]`.
    fn above(scores: CubeTensor, threshold: CubeTensor, most: usize) -> Self {
        let [tokens, experts] = dims(&scores);
        let integers = |count: usize| empty(&scores, [count], DType::I32);
        let placed = Self {
            counts: integers(experts),
            places: empty(&scores, [tokens, experts], DType::I32),
            row_of_place: integers(most * BLOCK),
            blocks: empty(&scores, [most, 2], DType::I32),
            total: integers(1),
            most,
        };
        let (client, dtype) = (scores.client.clone(), elem(&scores));
        let (count, threads) = (cubes(&scores, experts), units(&scores, tokens));
        count_kernel::launch(
            &client,
            count.clone(),
            CubeDim::new_1d(threads),
            scores.clone().into_tensor_arg(),
            threshold.clone().into_tensor_arg(),
            placed.counts.clone().into_tensor_arg(),
            dtype,
        );
        place_kernel::launch(
            &client,
            count,
            CubeDim::new_1d(threads),
            scores.into_tensor_arg(),
            threshold.into_tensor_arg(),
            placed.counts.clone().into_tensor_arg(),
            placed.places.clone().into_tensor_arg(),
            placed.row_of_place.clone().into_tensor_arg(),
            placed.blocks.clone().into_tensor_arg(),
            placed.total.clone().into_tensor_arg(),
            dtype,
        );
        placed
    }

    /// The places of routes with at least one pair.
    pub(super) fn of(routes: &Routes, like: &CubeTensor) -> Self {
        let (tokens, experts) = (routes.tokens(), routes.experts());
        let (mut mask, mut most) = (vec![0.0; tokens * experts], 0);
        for expert in 0..experts {
            let of_expert = routes.tokens_of(expert);
            most += of_expert.len().div_ceil(BLOCK);
            for &token in of_expert {
                mask[token as usize * experts + expert] = 1.0;
            }
        }
        let mask = upload_floats(like, mask, [tokens, experts]);
        Self::above(mask, upload_floats(like, vec![0.5], [1]), most)
    }

    /// Applies a map to the places of `at_once` blocks from `first` on.
    pub(super) fn product(
        &self,
        x: &CubeTensor,
        map: Map<'_>,
        first: usize,
        at_once: usize,
    ) -> CubeTensor {
        let [_, inputs, outputs] = dims(map.w);
        let outputs = if map.b.is_some() { outputs } else { inputs };
        let out = empty(x, [at_once * BLOCK, outputs], x.dtype);
        let columns = outputs.div_ceil(BLOCK);
        grouped_kernel::launch(
            &x.client,
            cubes(x, at_once * columns),
            CubeDim::new_1d((SIDE * SIDE) as u32),
            x.clone().into_tensor_arg(),
            self.row_of_place.clone().into_tensor_arg(),
            map.w.clone().into_tensor_arg(),
            map.b.unwrap_or(x).clone().into_tensor_arg(),
            self.blocks.clone().into_tensor_arg(),
            self.total.clone().into_tensor_arg(),
            out.clone().into_tensor_arg(),
            first as u32,
            columns as u32,
            map.rows == Rows::Tokens,
            map.b.is_none(),
            map.act,
            elem(x),
        );
        out
    }

    /// Sums the places from block `first` on for each token, weighted by the gates if given: `[tokens, d]` in f32.
    /// Block 0 overwrites `y`, later ones add to it.
    pub(super) fn combine(
        &self,
        out: CubeTensor,
        gates: Option<&CubeTensor>,
        y: &CubeTensor,
        first: usize,
    ) {
        let [tokens, d] = dims(y);
        let dtype = elem(&out);
        combine_kernel::launch(
            &y.client,
            cubes(y, tokens),
            CubeDim::new_1d(units(y, d)),
            out.clone().into_tensor_arg(),
            gates.unwrap_or(&out).clone().into_tensor_arg(),
            self.places.clone().into_tensor_arg(),
            self.total.clone().into_tensor_arg(),
            y.clone().into_tensor_arg(),
            first as u32,
            gates.is_some(),
            dtype,
        );
    }
}

/// See [`crate::Backend::grouped_experts`]; there is a pair.
pub(crate) fn experts(
    x: CubeTensor,
    gates: CubeTensor,
    weights: [CubeTensor; 4],
    routes: &Routes,
    act: Activation,
) -> CubeTensor {
    let placed = Placed::of(routes, &x);
    let at_once = placed.most;
    rounds(x, gates, weights, &placed, at_once, act)
}

/// See [`crate::Backend::experts_above`]; there is a token.
pub(crate) fn experts_above(
    x: CubeTensor,
    gates: CubeTensor,
    threshold: CubeTensor,
    weights: [CubeTensor; 4],
    act: Activation,
) -> CubeTensor {
    let gates = into_contiguous(gates);
    let [tokens, experts] = dims(&gates);
    let blocks = tokens.div_ceil(BLOCK);
    let placed = Placed::above(gates.clone(), threshold, experts * blocks);
    let at_once = placed.most.min(experts + EXPECTED * blocks);
    rounds(x, gates, weights, &placed, at_once, act)
}

/// The gated sum over the pairs, in rounds of `at_once` blocks.
fn rounds(
    x: CubeTensor,
    gates: CubeTensor,
    weights: [CubeTensor; 4],
    placed: &Placed,
    at_once: usize,
    act: Activation,
) -> CubeTensor {
    let [x, gates] = [x, gates].map(into_contiguous);
    let [w1, b1, w2, b2] = weights.map(into_contiguous);
    let y = empty(&x, dims::<2>(&x), DType::F32);
    for first in (0..placed.most).step_by(at_once) {
        let fc1 = Map::forward(&w1, &b1, Rows::Tokens, act);
        let fc2 = Map::forward(&w2, &b2, Rows::Places, Activation::None);
        let hidden = placed.product(&x, fc1, first, at_once);
        let out = placed.product(&hidden, fc2, first, at_once);
        placed.combine(out, Some(&gates), &y, first);
    }
    match x.dtype {
        DType::F32 => y,
        dtype => CubeBackend::float_cast(y, dtype.into()),
    }
}
