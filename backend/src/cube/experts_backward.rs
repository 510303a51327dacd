//! The gradients of the experts' gated sum, all experts in one launch of each kernel. All in f32.

use super::elementwise::{activate_one, activation, slope_one};
use super::experts::{BLOCK, DEPTH, Map, PART, Placed, Rows, SIDE, first_block, multiply, no_sums};
use super::{UNITS, cube_sum, cubes, dims, empty, units};
use crate::arguments::{Activation, Routes};
use crate::backward::{ExpertsInputs, ExpertsSaved};
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// With `u = g W2ᵀ`: `dz = gate · u · act′(z)`, `h = act(z)` and `d gate = h · u + b2 · g`; one cube per place.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn hidden_kernel(
    z: &Tensor<f32>,
    u: &Tensor<f32>,
    b2: &Tensor<f32>,
    g: &Tensor<f32>,
    gates: &Tensor<f32>,
    row_of_place: &Tensor<i32>,
    blocks: &Tensor<i32>,
    total: &Tensor<i32>,
    dz: &mut Tensor<f32>,
    h: &mut Tensor<f32>,
    d_gates: &mut Tensor<f32>,
    #[comptime] act: Activation,
) {
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let (block, pair) = (CUBE_POS / BLOCK, CUBE_POS % BLOCK);
    if block >= usize::cast_from(total[0]) {
        terminate!();
    }
    if pair >= usize::cast_from(blocks[block * 2 + 1]) {
        terminate!();
    }
    let (hidden, d, experts) = (z.shape(1), g.shape(1), gates.shape(1));
    let expert = usize::cast_from(blocks[block * 2]);
    let token = usize::cast_from(row_of_place[CUBE_POS]);
    let gate = gates[token * experts + expert];
    let mut along = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < hidden {
        let at = CUBE_POS * hidden + i;
        let value = activate_one(z[at], act);
        along += value * u[at];
        h[at] = value;
        dz[at] = gate * u[at] * slope_one(z[at], act);
        i += CUBE_DIM as usize;
    }
    let mut i = UNIT_POS as usize;
    while i < d {
        along += b2[expert * d + i] * g[token * d + i];
        i += CUBE_DIM as usize;
    }
    let along = cube_sum(along, &mut scratch);
    if UNIT_POS == 0 {
        d_gates[token * experts + expert] = along;
    }
}

/// A value of a pair, zero beyond the last column: of its place or, times the gate where it is weighted, of its token.
#[cube]
#[allow(clippy::too_many_arguments)]
fn of_pair(
    x: &Tensor<f32>,
    column: usize,
    place: usize,
    row_of_place: &Tensor<i32>,
    gates: &Tensor<f32>,
    expert: usize,
    #[comptime] of_tokens: bool,
    #[comptime] weighted: bool,
) -> f32 {
    let width = x.shape(1);
    let mut value = 0.0f32;
    if column < width {
        let mut row = place;
        let mut gate = 1.0f32;
        if of_tokens {
            row = usize::cast_from(row_of_place[place]);
            if weighted {
                gate = gates[row * gates.shape(1) + expert];
            }
        }
        value = gate * x[row * width + column];
    }
    value
}

/// `Σ leftᵀ right` over the pairs of each expert, `[experts, left, right]`; of the two one is of tokens. A cube for a
/// block.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn outer_kernel(
    left: &Tensor<f32>,
    right: &Tensor<f32>,
    row_of_place: &Tensor<i32>,
    gates: &Tensor<f32>,
    counts: &Tensor<i32>,
    sum: &mut Tensor<f32>,
    #[comptime] left_of_tokens: bool,
) {
    let mut left_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * BLOCK));
    let mut right_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * BLOCK));
    let (lefts, rights) = (left.shape(1), right.shape(1));
    let (rows, columns) = (lefts.div_ceil(BLOCK), rights.div_ceil(BLOCK));
    let (expert, block) = (CUBE_POS / (rows * columns), CUBE_POS % (rows * columns));
    if expert >= counts.len() {
        terminate!();
    }
    let (from_left, from_right) = (block / columns * BLOCK, block % columns * BLOCK);
    let first = first_block(counts, expert) * BLOCK;
    let pairs = usize::cast_from(counts[expert]);
    let unit = UNIT_POS as usize;
    let (unit_row, unit_column) = (unit / SIDE * PART, unit % SIDE * PART);
    let mut sums = no_sums();
    let mut depth = 0usize;
    while depth < pairs {
        let mut i = unit;
        while i < comptime!(DEPTH * BLOCK) {
            let (pair, at) = (depth + i / BLOCK, i % BLOCK);
            let place = first + pair;
            let mut of_left = 0.0f32;
            let mut of_right = 0.0f32;
            if pair < pairs {
                of_left = of_pair(
                    left,
                    from_left + at,
                    place,
                    row_of_place,
                    gates,
                    expert,
                    left_of_tokens,
                    false,
                );
                of_right = of_pair(
                    right,
                    from_right + at,
                    place,
                    row_of_place,
                    gates,
                    expert,
                    !left_of_tokens,
                    true,
                );
            }
            left_tile[i] = of_left;
            right_tile[i] = of_right;
            i += CUBE_DIM as usize;
        }
        sync_cube();
        multiply(&mut sums, &left_tile, &right_tile, unit_row, unit_column);
        sync_cube();
        depth += DEPTH;
    }
    #[unroll]
    for i in 0..PART {
        #[unroll]
        for j in 0..PART {
            let (row, column) = (from_left + unit_row + i, from_right + unit_column + j);
            if row < lefts && column < rights {
                sum[(expert * lefts + row) * rights + column] = sums[i * PART + j];
            }
        }
    }
}

/// `Σ x` over the pairs of each expert, `[experts, width]`; one thread per column.
#[cube(launch)]
fn sums_kernel(
    x: &Tensor<f32>,
    row_of_place: &Tensor<i32>,
    gates: &Tensor<f32>,
    counts: &Tensor<i32>,
    sum: &mut Tensor<f32>,
    #[comptime] of_tokens: bool,
) {
    if ABSOLUTE_POS >= sum.len() {
        terminate!();
    }
    let width = x.shape(1);
    let (expert, column) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
    let first = first_block(counts, expert) * BLOCK;
    let mut total = 0.0f32;
    for pair in 0..usize::cast_from(counts[expert]) {
        let place = first + pair;
        total += of_pair(
            x,
            column,
            place,
            row_of_place,
            gates,
            expert,
            of_tokens,
            true,
        );
    }
    sum[ABSOLUTE_POS] = total;
}

/// [`crate::Backend::grouped_experts`] and the preactivations, a row for each place; at least one pair.
pub(crate) fn experts_with_saved(
    x: CubeTensor,
    gates: CubeTensor,
    weights: [CubeTensor; 4],
    routes: &Routes,
    act: Activation,
) -> (CubeTensor, CubeTensor) {
    let [x, gates] = [x, gates].map(into_contiguous);
    let [w1, b1, w2, b2] = weights.map(into_contiguous);
    let placed = Placed::of(routes, &x);
    let fc1 = Map::forward(&w1, &b1, Rows::Tokens, Activation::None);
    let fc2 = Map::forward(&w2, &b2, Rows::Places, Activation::None);
    let z = placed.product(&x, fc1, 0, placed.most);
    let hidden = match act {
        Activation::None => z.clone(),
        act => activation(z.clone(), act),
    };
    let out = placed.product(&hidden, fc2, 0, placed.most);
    let y = empty(&x, dims::<2>(&x), DType::F32);
    placed.combine(out, Some(&gates), &y, 0);
    (y, z)
}

/// The gradients of the inputs that need one; at least one pair.
pub(crate) fn gradients(
    saved: ExpertsSaved<CubeTensor>,
    g: CubeTensor,
    routes: &Routes,
    act: Activation,
    needs_grad: ExpertsInputs<bool>,
) -> ExpertsInputs<Option<CubeTensor>> {
    let ExpertsSaved {
        x,
        gates,
        w1,
        w2,
        b2,
        z,
    } = saved.map(into_contiguous);
    let g = into_contiguous(g);
    let ([tokens, d], [experts, _, hidden]) = (dims(&x), dims(&w1));
    let placed = Placed::of(routes, &x);
    let u = placed.product(&g, Map::back(&w2, Rows::Tokens), 0, placed.most);
    let (dz, h) = (
        empty(&u, dims::<2>(&u), DType::F32),
        empty(&u, dims::<2>(&u), DType::F32),
    );
    let d_gates =
        CubeBackend::float_zeros(Shape::from([tokens, experts]), &x.device, DType::F32.into());
    hidden_kernel::launch(
        &x.client,
        cubes(&x, placed.most * BLOCK),
        CubeDim::new_1d(units(&x, hidden)),
        z.into_tensor_arg(),
        u.into_tensor_arg(),
        b2.into_tensor_arg(),
        g.clone().into_tensor_arg(),
        gates.clone().into_tensor_arg(),
        placed.row_of_place.clone().into_tensor_arg(),
        placed.blocks.clone().into_tensor_arg(),
        placed.total.clone().into_tensor_arg(),
        dz.clone().into_tensor_arg(),
        h.clone().into_tensor_arg(),
        d_gates.clone().into_tensor_arg(),
        act,
    );
    // One of left and right has a row for each token, the other for each place.
    let outer = |left: &CubeTensor, right: &CubeTensor, left_rows: Rows| {
        let ([_, lefts], [_, rights]) = (dims(left), dims(right));
        let sum = empty(left, [experts, lefts, rights], DType::F32);
        outer_kernel::launch(
            &left.client,
            cubes(
                left,
                experts * lefts.div_ceil(BLOCK) * rights.div_ceil(BLOCK),
            ),
            CubeDim::new_1d((SIDE * SIDE) as u32),
            left.clone().into_tensor_arg(),
            right.clone().into_tensor_arg(),
            placed.row_of_place.clone().into_tensor_arg(),
            gates.clone().into_tensor_arg(),
            placed.counts.clone().into_tensor_arg(),
            sum.clone().into_tensor_arg(),
            left_rows == Rows::Tokens,
        );
        sum
    };
    let sums = |x: &CubeTensor, rows: Rows| {
        let [_, width] = dims(x);
        let sum = empty(x, [experts, width], DType::F32);
        let threads = units(x, width);
        sums_kernel::launch(
            &x.client,
            cubes(x, (experts * width).div_ceil(threads as usize)),
            CubeDim::new_1d(threads),
            x.clone().into_tensor_arg(),
            placed.row_of_place.clone().into_tensor_arg(),
            gates.clone().into_tensor_arg(),
            placed.counts.clone().into_tensor_arg(),
            sum.clone().into_tensor_arg(),
            rows == Rows::Tokens,
        );
        sum
    };
    let dx = needs_grad.x.then(|| {
        let of_places = placed.product(&dz, Map::back(&w1, Rows::Places), 0, placed.most);
        let dx = empty(&x, [tokens, d], DType::F32);
        placed.combine(of_places, None, &dx, 0);
        dx
    });
    ExpertsInputs {
        x: dx,
        gates: needs_grad.gates.then_some(d_gates),
        w1: needs_grad.w1.then(|| outer(&x, &dz, Rows::Tokens)),
        b1: needs_grad.b1.then(|| sums(&dz, Rows::Places)),
        w2: needs_grad.w2.then(|| outer(&h, &g, Rows::Places)),
        b2: needs_grad.b2.then(|| sums(&g, Rows::Tokens)),
    }
}
