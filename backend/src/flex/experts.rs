//! A mixture of experts: gathers the tokens of each expert and computes its two linear maps as products of many rows.
//!
//! Work is cut into blocks of one expert's pairs, which idle threads take, longest first, to balance uneven loads. A
//! token's outputs are summed in the order of its experts after all blocks.

use super::elementwise::{activate, activated, row_kernels};
use super::linear::{affine_into, column_sums};
use super::matmul::{Matrix, Product, Rows, Threads};
use super::{Shared, contiguous, dims, filled, simd, tensor, uninit, values};
use crate::arguments::{Activation, Routes, reaches};
use crate::backward::{ExpertsInputs, ExpertsSaved};
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;
use std::cmp::Reverse;
use std::ops::Range;

/// Pairs per block: few enough for their activations to stay in the caches, and enough to amortize loading the weights.
/// A multiple of [`DEPTH`](super::matmul::DEPTH), so that a weight's gradient is summed as if there were no blocks.
const BLOCK: usize = 1024;
/// Experts per token, on average, whose outputs are held until they are summed. With more, tokens are processed in
/// several parts, so that many small experts take no more memory than a few large ones.
const HELD: usize = 4;
/// Rows per task in elementwise passes.
const ROWS: usize = 16;

/// Consecutive pairs of one expert.
struct Block<'a> {
    expert: usize,
    pairs: Range<usize>,
    tokens: &'a [u32],
}

/// The pairs of an expert in blocks.
fn blocks_of(routes: &Routes, expert: usize) -> impl Iterator<Item = Block<'_>> {
    let cut = routes.tokens_of(expert).chunks(BLOCK).enumerate();
    cut.map(move |(i, tokens)| {
        let start = routes.offset(expert) + i * BLOCK;
        Block {
            expert,
            pairs: start..start + tokens.len(),
            tokens,
        }
    })
}

/// Runs `task` on each of `tasks`, the largest first, and passes the threads for its products: with many tasks, one
/// thread for each leaves none waiting for the others.
fn for_each<T: Send>(
    mut tasks: Vec<T>,
    size: impl Fn(&T) -> usize,
    task: impl Fn(T, Threads) + Sync + Send,
) {
    tasks.sort_by_key(|task| Reverse(size(task)));
    let threads = match tasks.len() < 4 * rayon::current_num_threads() {
        true => Threads::All,
        false => Threads::One,
    };
    tasks
        .into_iter()
        .par_bridge()
        .for_each(|it| task(it, threads));
}

/// The part of expert `expert` in values of which each expert has `len`.
fn of(values: &[f32], expert: usize, len: usize) -> &[f32] {
    &values[expert * len..][..len]
}

/// The rows of `x` that belong to `tokens`.
fn gather(x: &[f32], tokens: &[u32], d: usize) -> Vec<f32> {
    filled(tokens.len() * d, |rows| {
        rows.par_chunks_mut(ROWS * d)
            .zip(tokens.par_chunks(ROWS))
            .for_each(|(rows, tokens)| {
                for (row, &token) in rows.chunks_exact_mut(d).zip(tokens) {
                    row.copy_from_slice(of(x, token as usize, d));
                }
            });
    })
}

/// The gate of each pair.
fn gates_of_pairs(gates: &[f32], routes: &Routes) -> Vec<f32> {
    let experts = routes.experts();
    let of_expert = |expert| {
        let tokens = routes.tokens_of(expert).iter();
        tokens.map(move |&token| gates[token as usize * experts + expert])
    };
    (0..experts).flat_map(of_expert).collect()
}

/// `out = Σ factor · row` over the pairs of each token, in the order of its experts: `[pairs, d]` to `[tokens, d]`.
fn combine(
    out: &mut [f32],
    rows: &[f32],
    d: usize,
    factor: impl Fn(usize) -> f32 + Sync,
    routes: &Routes,
) {
    let (tokens, pairs) = (routes.tokens(), routes.pairs());
    // Pairs are sorted by expert, so that those of a token are found in the order of its experts.
    let mut ends = vec![0_u32; tokens + 1];
    let mut pair_of = vec![0_u32; pairs];
    let all = || (0..routes.experts()).flat_map(|expert| routes.tokens_of(expert));
    all().for_each(|&token| ends[token as usize + 1] += 1);
    for token in 0..tokens {
        ends[token + 1] += ends[token];
    }
    for (pair, &token) in all().enumerate() {
        pair_of[ends[token as usize] as usize] = pair as u32;
        ends[token as usize] += 1;
    }
    let pairs_of = |token: usize| {
        let start = if token == 0 { 0 } else { ends[token - 1] };
        &pair_of[start as usize..ends[token] as usize]
    };
    out.par_chunks_mut(ROWS * d)
        .enumerate()
        .for_each(|(chunk, out)| {
            for (i, out) in out.chunks_exact_mut(d).enumerate() {
                let Some((&first, rest)) = pairs_of(chunk * ROWS + i).split_first() else {
                    out.fill(0.0);
                    continue;
                };
                let (first, row) = (first as usize, |pair| of(rows, pair, d));
                out.copy_from_slice(row(first));
                simd::scale(out, factor(first));
                for &pair in rest {
                    simd::add_scaled(out, row(pair as usize), factor(pair as usize));
                }
            }
        });
}

/// The routes by a threshold `[1]`: to every expert whose gate reaches it. Read in place: nothing crosses to the host.
pub(crate) fn routes_above(gates: &FlexTensor, threshold: &FlexTensor) -> Routes {
    let [_, experts] = dims(gates);
    let (gates, threshold) = (contiguous(gates), contiguous(threshold));
    let threshold = values(&threshold)[0];
    let reached = values(&gates).iter().map(|&gate| reaches(gate, threshold));
    Routes::of_mask(&reached.collect::<Vec<_>>(), experts)
}

/// The output; tokens with many experts are processed in parts.
pub(crate) fn experts(
    x: &FlexTensor,
    gates: &FlexTensor,
    weights: [&FlexTensor; 4],
    routes: &Routes,
    act: Activation,
) -> FlexTensor {
    let ([tokens, d], [experts, _]) = (dims(x), dims(weights[1]));
    let (x, gates, weights) = (contiguous(x), contiguous(gates), weights.map(contiguous));
    let (x, gates, weights) = (values(&x), values(&gates), weights.each_ref().map(values));
    let mut out = uninit(tokens * d);
    let held = HELD * tokens.max(1);
    let parts = (routes.pairs() + held / 2) / held;
    let span = tokens.div_ceil(parts.max(1)).max(1);
    for (part, out) in out.chunks_mut(span * d).enumerate() {
        let (start, tokens) = (part * span, out.len() / d);
        let (x, gates) = (&x[start * d..], &gates[start * experts..]);
        let routes = routes.narrow(start..start + tokens);
        forward(out, x, gates, weights, &routes, act, None);
    }
    tensor(out, [tokens, d])
}

/// The output, and the preactivations `[pairs, hidden]` for the backward pass.
pub(crate) fn experts_with_saved(
    x: &FlexTensor,
    gates: &FlexTensor,
    weights: [&FlexTensor; 4],
    routes: &Routes,
    act: Activation,
) -> (FlexTensor, FlexTensor) {
    let ([tokens, d], [_, hidden]) = (dims(x), dims(weights[1]));
    let (x, gates, weights) = (contiguous(x), contiguous(gates), weights.map(contiguous));
    let (x, gates, weights) = (values(&x), values(&gates), weights.each_ref().map(values));
    let (mut out, mut z) = (uninit(tokens * d), uninit(routes.pairs() * hidden));
    forward(&mut out, x, gates, weights, routes, act, Some(&mut z));
    (
        tensor(out, [tokens, d]),
        tensor(z, [routes.pairs(), hidden]),
    )
}

/// The output of some tokens and, into `z`, their preactivations.
fn forward(
    out: &mut [f32],
    x: &[f32],
    gates: &[f32],
    [w1, b1, w2, b2]: [&[f32]; 4],
    routes: &Routes,
    act: Activation,
    z: Option<&mut [f32]>,
) {
    let (d, hidden) = (b2.len() / routes.experts(), b1.len() / routes.experts());
    let mut y = uninit(routes.pairs() * d);
    let all_z = z.map(|z| Shared(z.as_mut_ptr()));
    let all_y = Shared(y.as_mut_ptr());
    let run = |block: Block, threads| {
        let (expert, start, rows) = (block.expert, block.pairs.start, block.tokens.len());
        let x = gather(x, block.tokens, d);
        let [w1, w2] = [(w1, hidden), (w2, d)].map(|(w, stride)| Rows {
            values: of(w, expert, d * hidden),
            stride,
        });
        let (b1, b2) = (of(b1, expert, hidden), of(b2, expert, d));
        let a = if let Some(all_z) = all_z {
            // SAFETY: blocks are disjoint ranges of the pairs.
            let z = unsafe { all_z.part(start * hidden, rows * hidden) };
            affine_into(z, &x, w1, b1, [rows, d], threads);
            activated(z, act)
        } else {
            let mut a = uninit(rows * hidden);
            affine_into(&mut a, &x, w1, b1, [rows, d], threads);
            activate(&mut a, act);
            a
        };
        // SAFETY: as above.
        let y = unsafe { { all_y }.part(start * d, rows * d) };
        affine_into(y, &a, w2, b2, [rows, hidden], threads);
    };
    let blocks: Vec<_> = (0..routes.experts())
        .flat_map(|expert| blocks_of(routes, expert))
        .collect();
    for_each(blocks, |block| block.tokens.len(), run);
    let gates = gates_of_pairs(gates, routes);
    combine(out, &y, d, |pair| gates[pair], routes);
}

/// `out = a wᵀ`, `w` being `[outputs, inputs]` in memory as the forward pass has it the other way round.
fn transposed(
    out: &mut [f32],
    a: &[f32],
    w: &[f32],
    [rows, outputs, inputs]: [usize; 3],
    threads: Threads,
) {
    // One row alone would be summed in another order: see `affine_into`.
    if rows == 1 {
        let mut pair = uninit(2 * outputs);
        let sizes = [2, outputs, inputs];
        transposed(&mut pair, &[a, a].concat(), w, sizes, threads);
        return out.copy_from_slice(&pair[..outputs]);
    }
    let (a, w) = (Matrix::rows(a, inputs), Matrix::rows(w, inputs).t());
    let (sizes, out) = ([rows, outputs, inputs], out.as_mut_ptr());
    // SAFETY: the sizes are those of the slices, and all of `out` is overwritten.
    unsafe {
        Product {
            sizes,
            a,
            b: w,
            threads,
        }
        .assign(out, outputs)
    }
}

/// The gradients of a linear map's weight and bias: `aᵀ g` and the sum of the rows of `g`, in parts.
struct MapGrad<'a> {
    weight: Option<&'a mut [f32]>,
    bias: Option<&'a mut [f32]>,
    /// Whether a part was written, to which the next is added.
    begun: bool,
}

impl MapGrad<'_> {
    fn add(&mut self, a: impl FnOnce() -> Vec<f32>, g: &[f32], rows: usize, threads: Threads) {
        let outputs = g.len() / rows;
        if let Some(weight) = &mut self.weight {
            let a = a();
            let sizes = [weight.len() / outputs, outputs, rows];
            let (a, g) = (Matrix::rows(&a, sizes[0]).t(), Matrix::rows(g, outputs));
            // SAFETY: the sizes are those of the slices; the first part overwrites what is there.
            unsafe {
                let product = Product {
                    sizes,
                    a,
                    b: g,
                    threads,
                };
                match self.begun {
                    true => product.accumulate(weight.as_mut_ptr(), outputs),
                    false => product.assign(weight.as_mut_ptr(), outputs),
                }
            }
        }
        if let Some(bias) = &mut self.bias {
            let sums = column_sums(g, outputs);
            match self.begun {
                true => simd::add_assign(bias, &sums),
                false => bias.copy_from_slice(&sums),
            }
        }
        self.begun = true;
    }

    /// Zeroes the gradients if there was no part.
    fn finish(self) {
        if !self.begun {
            [self.weight, self.bias]
                .into_iter()
                .flatten()
                .for_each(|grad| grad.fill(0.0));
        }
    }
}

/// Memory for a gradient, if one is needed; threads write disjoint parts.
struct Grad(Option<Vec<f32>>, Shared<f32>);

impl Grad {
    fn new(needs_grad: bool, make: impl FnOnce() -> Vec<f32>) -> Self {
        let mut data = needs_grad.then(make);
        let start = data.as_mut().map_or(std::ptr::null_mut(), Vec::as_mut_ptr);
        Self(data, Shared(start))
    }

    /// # Safety
    /// As [`Shared::part`].
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, start: usize, len: usize) -> Option<&mut [f32]> {
        // SAFETY: the caller's contract.
        self.0.as_ref().map(|_| unsafe { self.1.part(start, len) })
    }

    fn tensor(self, shape: impl Into<burn::tensor::Shape>) -> Option<FlexTensor> {
        self.0.map(|data| tensor(data, shape))
    }
}

/// Backward: the gradients of those inputs that need one.
pub(crate) fn experts_backward(
    saved: ExpertsSaved<FlexTensor>,
    g: FlexTensor,
    routes: &Routes,
    act: Activation,
    needs_grad: ExpertsInputs<bool>,
) -> ExpertsInputs<Option<FlexTensor>> {
    let ([tokens, d], [experts, _, hidden]) = (dims(&saved.x), dims(&saved.w1));
    let (saved, g) = (saved.map(|x| contiguous(&x)), contiguous(&g));
    let ExpertsSaved {
        x,
        gates,
        w1,
        w2,
        b2,
        z,
    } = saved.as_ref().map(values);
    let g = values(&g);
    let (_, slope) = row_kernels(act);
    let gate_of_pair = gates_of_pairs(gates, routes);
    let uncleared = |len| move || uninit(len);
    let d_rows = Grad::new(needs_grad.x, uncleared(routes.pairs() * d));
    let d_gates = Grad::new(needs_grad.gates, || vec![0.0; tokens * experts]);
    let dw1 = Grad::new(needs_grad.w1, uncleared(w1.len()));
    let db1 = Grad::new(needs_grad.b1, uncleared(experts * hidden));
    let dw2 = Grad::new(needs_grad.w2, uncleared(w2.len()));
    let db2 = Grad::new(needs_grad.b2, uncleared(experts * d));
    // Whether anything before the second map needs a gradient.
    let inner = needs_grad.x || needs_grad.gates || needs_grad.w1 || needs_grad.b1;

    let run = |expert, threads| {
        let [mut first, mut second] = [(&dw1, &db1, hidden), (&dw2, &db2, d)].map(
            // SAFETY: each expert has its own part of its weights' gradients.
            |(weight, bias, outputs)| unsafe {
                MapGrad {
                    weight: weight.part(expert * d * hidden, d * hidden),
                    bias: bias.part(expert * outputs, outputs),
                    begun: false,
                }
            },
        );
        let [w1, w2] = [w1, w2].map(|w| of(w, expert, d * hidden));
        let b2 = of(b2, expert, d);
        for Block { pairs, tokens, .. } in blocks_of(routes, expert) {
            let (rows, start) = (tokens.len(), pairs.start);
            let z = &z[start * hidden..][..rows * hidden];
            let gates = &gate_of_pair[pairs];
            let (a, mut dy) = (activated(z, act), gather(g, tokens, d));
            // First dy W2ᵀ, then the gradient of z.
            let mut dz = uninit(rows * hidden);
            if inner {
                transposed(&mut dz, &dy, w2, [rows, hidden, d], threads);
            }
            dz.par_chunks_mut(ROWS * hidden)
                .zip(dy.par_chunks_mut(ROWS * d))
                .enumerate()
                .for_each(|(chunk, (dz, dy))| {
                    let mut before = vec![0.0; hidden];
                    let rows = dz.chunks_exact_mut(hidden).zip(dy.chunks_exact_mut(d));
                    for (row, (dz, dy)) in (chunk * ROWS..).zip(rows) {
                        if inner {
                            let at = tokens[row] as usize * experts + expert;
                            // SAFETY: a token has an expert once.
                            if let Some(d_gate) = unsafe { d_gates.part(at, 1) } {
                                d_gate[0] = simd::dot(of(&a, row, hidden), dz) + simd::dot(dy, b2);
                            }
                            simd::scale(dz, gates[row]);
                            before.copy_from_slice(dz);
                            slope(dz, &before, of(z, row, hidden));
                        }
                        simd::scale(dy, gates[row]);
                    }
                });
            second.add(|| a, &dy, rows, threads);
            first.add(|| gather(x, tokens, d), &dz, rows, threads);
            // SAFETY: each expert has its own pairs.
            if let Some(dx) = unsafe { d_rows.part(start * d, rows * d) } {
                transposed(dx, &dz, w1, [rows, d, hidden], threads);
            }
        }
        first.finish();
        second.finish();
    };
    let all = (0..experts).collect();
    for_each(all, |&expert| routes.tokens_of(expert).len(), run);
    let dx = d_rows.0.map(|rows| {
        let dx = filled(tokens * d, |dx| combine(dx, &rows, d, |_| 1.0, routes));
        tensor(dx, [tokens, d])
    });
    ExpertsInputs {
        x: dx,
        gates: d_gates.tensor([tokens, experts]),
        w1: dw1.tensor([experts, d, hidden]),
        b1: db1.tensor([experts, hidden]),
        w2: dw2.tensor([experts, hidden, d]),
        b2: db2.tensor([experts, d]),
    }
}
