//! The experts of a mixture: all products of one linear map in one launch, whatever the number of experts and of tokens each has.

use super::elementwise::activate;
use super::{cubes, dims, elem, empty, units, upload};
use crate::ops::{Activation, Routes};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Side of the block of the output that a cube computes.
const BLOCK: usize = 64;

/// How much of the inner axis is in a cube's memory at once.
const DEPTH: usize = 16;

/// Side of the part of the block that a thread computes.
const PART: usize = 4;

/// Threads along a side of the block.
const SIDE: usize = BLOCK / PART;

/// `act(x W_e + b_e)` for pairs of token and expert, sorted by expert: `[rows, in]` to `[pairs, out]`. A block is
/// `[expert, first pair, pairs]`, and no block has pairs of two experts.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn grouped_kernel<F: Float>(
    x: &Tensor<F>,
    row_of_pair: &Tensor<i32>,
    w: &Tensor<F>,
    b: &Tensor<F>,
    blocks: &Tensor<i32>,
    y: &mut Tensor<F>,
    columns: u32,
    #[comptime] gathered: bool,
    #[comptime] act: Activation,
    #[define(F)] _dtype: ElemType,
) {
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * BLOCK));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * BLOCK));
    let (block, column) = (CUBE_POS / columns as usize, CUBE_POS % columns as usize);
    if block * 3 >= blocks.len() {
        terminate!();
    }
    let expert = usize::cast_from(blocks[block * 3]);
    let first = usize::cast_from(blocks[block * 3 + 1]);
    let pairs = usize::cast_from(blocks[block * 3 + 2]);
    let (inner, outputs) = (w.shape(1), w.shape(2));
    let unit = UNIT_POS as usize;
    let (unit_row, unit_column) = (unit / SIDE * PART, unit % SIDE * PART);
    let from_column = column * BLOCK;

    let mut sums = Array::<f32>::new(comptime!(PART * PART));
    #[unroll]
    for i in 0..comptime!(PART * PART) {
        sums[i] = 0.0f32;
    }
    let mut depth = 0usize;
    while depth < inner {
        let mut i = unit;
        while i < comptime!(DEPTH * BLOCK) {
            let (pair, at) = (i / DEPTH, depth + i % DEPTH);
            let mut value = 0.0f32;
            if pair < pairs && at < inner {
                let mut row = first + pair;
                if gathered {
                    row = usize::cast_from(row_of_pair[first + pair]);
                }
                value = f32::cast_from(x[row * inner + at]);
            }
            left[(i % DEPTH) * BLOCK + pair] = value;
            let (at, output) = (depth + i / BLOCK, from_column + i % BLOCK);
            let mut value = 0.0f32;
            if at < inner && output < outputs {
                value = f32::cast_from(w[(expert * inner + at) * outputs + output]);
            }
            right[i] = value;
            i += CUBE_DIM as usize;
        }
        sync_cube();
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
        sync_cube();
        depth += DEPTH;
    }
    #[unroll]
    for i in 0..PART {
        #[unroll]
        for j in 0..PART {
            let (pair, output) = (unit_row + i, from_column + unit_column + j);
            if pair < pairs && output < outputs {
                let value = sums[i * PART + j] + f32::cast_from(b[expert * outputs + output]);
                let value = activate::<Const<1>>(Vector::new(value), act);
                y[(first + pair) * outputs + output] = F::cast_from(value.extract(0usize));
            }
        }
    }
}

/// `Σ gate · out` over the pairs of each token, in the order of the experts; a cube for a token.
#[cube(launch)]
fn combine_kernel<F: Float>(
    out: &Tensor<F>,
    gates: &Tensor<F>,
    offsets: &Tensor<i32>,
    pairs: &Tensor<i32>,
    y: &mut Tensor<F>,
    #[define(F)] _dtype: ElemType,
) {
    let (token, experts, d) = (CUBE_POS, gates.shape(1), y.shape(1));
    if token >= y.shape(0) {
        terminate!();
    }
    let start = usize::cast_from(offsets[token]);
    let end = usize::cast_from(offsets[token + 1]);
    let mut i = UNIT_POS as usize;
    while i < d {
        let mut sum = 0.0f32;
        for at in start..end {
            let pair = usize::cast_from(pairs[at * 2]);
            let expert = usize::cast_from(pairs[at * 2 + 1]);
            let gate = f32::cast_from(gates[token * experts + expert]);
            sum += gate * f32::cast_from(out[pair * d + i]);
        }
        y[token * d + i] = F::cast_from(sum);
        i += CUBE_DIM as usize;
    }
}

/// What the kernels need to know of the routes, as they take it.
struct Plan {
    row_of_pair: Vec<i32>,
    /// `[expert, first pair, pairs]` of each block of rows.
    blocks: Vec<i32>,
    /// Where the pairs of each token begin in `of_token`.
    offsets: Vec<i32>,
    /// `[pair, expert]`, token by token.
    of_token: Vec<i32>,
}

impl Plan {
    fn new(routes: &Routes) -> Self {
        let (mut row_of_pair, mut blocks) = (Vec::new(), Vec::new());
        let mut by_token = vec![Vec::new(); routes.tokens()];
        for expert in 0..routes.experts() {
            let (tokens, first) = (routes.tokens_of(expert), routes.offset(expert));
            for (at, part) in tokens.chunks(BLOCK).enumerate() {
                let row = [expert, first + at * BLOCK, part.len()];
                blocks.extend(row.map(|number| number as i32));
            }
            for (at, &token) in tokens.iter().enumerate() {
                row_of_pair.push(token as i32);
                by_token[token as usize].push([first + at, expert].map(|number| number as i32));
            }
        }
        let mut offsets = vec![0];
        for pairs in &by_token {
            offsets.push(offsets[offsets.len() - 1] + pairs.len() as i32);
        }
        let of_token = by_token.into_iter().flatten().flatten().collect();
        Self {
            row_of_pair,
            blocks,
            offsets,
            of_token,
        }
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
    let [x, gates] = [x, gates].map(into_contiguous);
    let [w1, b1, w2, b2] = weights.map(into_contiguous);
    let ([tokens, d], [_, _, hidden]) = (dims(&x), dims(&w1));
    let plan = Plan::new(routes);
    let pairs = routes.pairs();
    let [row_of_pair, blocks, offsets, of_token] =
        [plan.row_of_pair, plan.blocks, plan.offsets, plan.of_token]
            .map(|values| upload(&x, values));
    let (client, dtype) = (x.client.clone(), elem(&x));
    let y = empty(&x, [tokens, d], x.dtype);
    let product = |input: CubeTensor, w: CubeTensor, b: CubeTensor, gathered, act| {
        let [_, _, outputs] = dims(&w);
        let out = empty(&input, [pairs, outputs], input.dtype);
        let columns = outputs.div_ceil(BLOCK);
        let [rows_of_blocks] = dims(&blocks);
        grouped_kernel::launch(
            &client,
            cubes(&input, rows_of_blocks / 3 * columns),
            CubeDim::new_1d((SIDE * SIDE) as u32),
            input.into_tensor_arg(),
            row_of_pair.clone().into_tensor_arg(),
            w.into_tensor_arg(),
            b.into_tensor_arg(),
            blocks.clone().into_tensor_arg(),
            out.clone().into_tensor_arg(),
            columns as u32,
            gathered,
            act,
            dtype,
        );
        out
    };
    debug_assert_eq!(dims::<3>(&w2), [routes.experts(), hidden, d]);
    let hidden = product(x, w1, b1, true, act);
    let out = product(hidden, w2, b2, false, Activation::None);
    combine_kernel::launch(
        &client,
        cubes(&y, tokens),
        CubeDim::new_1d(units(&y, d)),
        out.into_tensor_arg(),
        gates.into_tensor_arg(),
        offsets.into_tensor_arg(),
        of_token.into_tensor_arg(),
        y.clone().into_tensor_arg(),
        dtype,
    );
    y
}
