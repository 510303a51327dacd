//! The head predicts the dimensions of a token one after the other (section 3.2 of the paper), or `dims_per_step` at a
//! time, independently of each other. In training, `head_logits` takes all dimensions at once; to sample, `autoregress`
//! takes one step at a time, with cached keys and values, or all steps from a guess.

use crate::attention::KvCache;
use crate::block::Modulation;
use crate::config::FirstPosition;
use crate::dropout::Dropout;
use crate::positions::int_tensor;
use crate::{GenAr, GenArConfig};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use tessera_backend::host_indices;
use tessera_backend::ops::{self, Activation};

/// What is the same for all tokens: `[1, steps, width]` to `[tokens, steps, width]`.
fn for_each_token(x: Tensor<3>, tokens: usize) -> Tensor<3> {
    let [_, steps, width] = x.dims();
    let x = ops::repeat_rows(ops::reshape(x, [1, steps * width]), tokens); // [1, tokens, steps * width]
    ops::reshape(x, [tokens, steps, width])
}

impl GenAr {
    /// The logits of the first `dims` dimensions, each given the dimensions of the steps before its own. Where
    /// dimensions have fewer levels than the widest, the logits of levels that they lack are [`ABSENT`].
    ///
    /// # Shapes
    /// - z: `[tokens, dec.width]`
    /// - indices: `[tokens, dims]`, dimensions in the head's order; `dims` is a multiple of `dims_per_step`
    /// - output: `[dims, tokens, levels]`, dimensions in the head's order
    pub fn head_logits(
        &self,
        z: Tensor<2>,
        indices: Tensor<2, Int>,
        first: FirstPosition,
        dropout: &mut Dropout<'_>,
    ) -> Tensor<3> {
        let ([tokens, dims], per_step) = (indices.dims(), self.config.dims_per_step);
        let steps = dims / per_step;
        let c = ops::linear(z, &self.condition_proj, Activation::None);
        let timesteps = self.timesteps_embeddings.val().narrow(1, 0, steps);
        let timesteps = for_each_token(timesteps, tokens);
        let cond = ops::residual(ops::repeat_rows(c.clone(), steps), timesteps); // [tokens, steps, width]
        let mut x = self.head_inputs(c, indices, first);
        let cond = ops::activation(cond, Activation::Silu);
        for block in &self.channel_blocks {
            x = block.forward(x, block.modulation(cond.clone()), dropout);
        }
        let x = ops::layer_norm(x, &self.channel_norm);
        let [scale, shift] = self.channel_final.modulation(cond);
        let x = ops::modulate(x, None, shift, scale);
        // A batched product, one per step: slicing x instead would build its gradient from `steps` zero tensors.
        let (levels, width) = (self.config.levels, self.config.ch.width);
        let heads = &self.channel_heads[..dims];
        // `matmul`, unlike `ops::linear`, takes no weights of a narrower type.
        let weight = heads.iter().map(|head| {
            let weight = ops::weight_of(head, width).cast(x.dtype());
            filled_up(weight, 1, levels, 0.0)
        });
        let weight = Tensor::stack::<3>(weight.collect(), 0); // [dims, width, levels]
        let bias = heads.iter().filter_map(|head| head.bias.as_ref());
        let bias = bias.map(|bias| filled_up(bias.val(), 0, levels, ABSENT));
        let bias = Tensor::stack::<2>(bias.collect(), 0);
        let bias = ops::repeat_rows(bias, tokens); // [dims, tokens, levels]
        let x = x.swap_dims(0, 1); // [steps, tokens, width]
        if per_step == 1 {
            return ops::residual(x.matmul(weight), bias);
        }
        let weight = weight
            .reshape([steps, per_step, width, levels]) // [steps, per_step, width, levels]
            .swap_dims(1, 2)
            .reshape([steps, width, per_step * levels]); // [steps, width, per_step * levels]
        let logits = x
            .matmul(weight)
            .reshape([steps, tokens, per_step, levels]) // [steps, tokens, per_step, levels]
            .swap_dims(1, 2);
        let logits = ops::reshape(logits, [dims, tokens, levels]);
        ops::residual(logits, bias)
    }

    /// The head's input at each step: the embedded indices of the step before it, their sum if there are several.
    ///
    /// # Shapes
    /// - c: `[tokens, width]`
    /// - indices: `[tokens, dims]`
    /// - output: `[tokens, steps, width]`
    fn head_inputs(
        &self,
        c: Tensor<2>,
        indices: Tensor<2, Int>,
        first: FirstPosition,
    ) -> Tensor<3> {
        let ([tokens, dims], per_step) = (indices.dims(), self.config.dims_per_step);
        let (levels, width) = (self.config.levels, self.config.ch.width);
        let first = self.first_input(c, first).unsqueeze_dim::<3>(1);
        let (rest, steps) = (dims - per_step, dims / per_step - 1);
        if rest == 0 {
            return first;
        }
        let tables = self.token_embeddings[..rest].iter();
        let tables = tables.map(|table| filled_up(table.weight.val(), 0, levels, 0.0));
        let tables = Tensor::stack::<3>(tables.collect(), 0); // [rest, levels, width]
        let positions = self.channel_embed.val().swap_dims(0, 1).narrow(0, 1, steps); // [steps, 1, width]
        // The position embeddings are added to the tables, which have fewer rows than there are tokens.
        let tables = match per_step {
            1 => tables + positions.clone(),
            _ => tables,
        };
        let tables = tables.reshape([rest * levels, width]); // [rest * levels, width]
        let offsets = int_tensor((0..rest).map(|dim| dim * levels), &tables.device());
        let rows = indices.narrow(1, 0, rest) + offsets.unsqueeze();
        let embedded = tables.select(0, rows.reshape([tokens * rest])); // [tokens * rest, width]
        let embedded = match per_step {
            1 => embedded.reshape([tokens, rest, width]), // [tokens, rest, width]
            _ => {
                let embedded = embedded.reshape([tokens * steps, per_step, width]); // [tokens * steps, per_step, width]
                let sums = ops::sum_rows(embedded).reshape([tokens, steps, width]); // [tokens, steps, width]
                ops::residual(sums, for_each_token(positions.swap_dims(0, 1), tokens))
            }
        };
        Tensor::cat(vec![first, embedded], 1)
    }

    /// `[tokens, width]`: the head's input at the first dimension.
    fn first_input(&self, c: Tensor<2>, first: FirstPosition) -> Tensor<2> {
        let at_0 = |embed: Tensor<3>| embed.narrow(1, 0, 1).squeeze_dim::<2>(0);
        let c = match first {
            FirstPosition::Released => c + at_0(self.timesteps_embeddings.val()),
            FirstPosition::AsTrained => c,
        };
        c + at_0(self.channel_embed.val())
    }

    /// Draws the dimensions of each token, `dims_per_step` at a time. `choose` takes a dimension's number in the head's
    /// order and its logits `[tokens, levels]`, as many as the dimension has, and returns the indices `[tokens]`, the
    /// same ones for the same logits. [`Decoding::Jacobi`] asks it more than once for a dimension: the last answer
    /// counts.
    ///
    /// adaLN depends on `z` and the step but not on drawn indices, so it is computed for all steps in advance.
    ///
    /// # Shapes
    /// - z: `[tokens, dec.width]`
    /// - output: indices `[tokens, dims]`, dimensions in the head's order
    pub fn autoregress(
        &self,
        z: Tensor<2>,
        first: FirstPosition,
        decoding: Decoding,
        choose: &mut dyn FnMut(usize, Tensor<2>) -> Tensor<1, Int>,
    ) -> Drawn {
        let ([tokens, _], device) = (z.dims(), z.device());
        let (per_step, ch) = (self.config.dims_per_step, self.config.ch);
        let steps = self.config.head_steps();
        let c = ops::linear(z, &self.condition_proj, Activation::None);
        let timesteps = self.timesteps_embeddings.val().swap_dims(0, 1); // [steps, 1, width]
        let cond = c.clone().unsqueeze_dim::<3>(0) + timesteps; // [steps, tokens, width]
        let cond = ops::activation(cond, Activation::Silu);
        let blocks: Vec<Modulation<3>> = self
            .channel_blocks
            .iter()
            .map(|b| b.modulation(cond.clone()))
            .collect();
        let last = self.channel_final.modulation(cond);
        let cache = || KvCache::new([tokens, ch.heads, steps, ch.head_dim()], &device);
        let mut caches: Vec<_> = self.channel_blocks.iter().map(|_| cache()).collect();

        let mut guess = Guess::new(&self.config, tokens, &device);
        let (mut at, mut computed) = (0, 0);
        while at < steps {
            let now = match decoding {
                Decoding::Sequential => at..at + 1,
                Decoding::Jacobi => at..steps,
            };
            let of_token = |token| now.clone().map(move |step| token * steps + step);
            let places = int_tensor((0..tokens).flat_map(of_token), &device);
            let mut x = self.step_inputs(now.clone(), &c, first, &guess.indices);
            for ((block, modulation), cache) in
                self.channel_blocks.iter().zip(&blocks).zip(&mut caches)
            {
                x = block.steps(x, of_steps(modulation, &now), cache, &places, now.end);
            }
            let [scale, shift] = of_steps(&last, &now);
            let x = ops::modulate(ops::layer_norm(x, &self.channel_norm), None, shift, scale);
            let mut drawn = Vec::with_capacity(now.len() * per_step);
            for (step, dim) in now.clone().flat_map(|step| {
                (step * per_step..(step + 1) * per_step).map(move |dim| (step, dim))
            }) {
                let x = x.clone().narrow(0, step - at, 1).squeeze_dim::<2>(0); // [tokens, width]
                let logits = ops::linear(x, &self.channel_heads[dim], Activation::None);
                drawn.push(choose(dim, logits));
            }
            computed += now.len();
            at = guess.replace(now, drawn);
        }
        Drawn {
            indices: Tensor::stack(guess.indices, 1),
            steps: computed,
        }
    }

    /// `[steps, tokens, width]`: the head's inputs at some steps, with the indices `[tokens]` of the dimensions before.
    fn step_inputs(
        &self,
        steps: Range<usize>,
        c: &Tensor<2>,
        first: FirstPosition,
        indices: &[Tensor<1, Int>],
    ) -> Tensor<3> {
        let inputs = steps.map(|step| match step {
            0 => self.first_input(c.clone(), first),
            _ => self.next_input(step, indices),
        });
        Tensor::stack(inputs.collect(), 0)
    }

    /// `[tokens, width]`: the head's input at `step`, with the dimensions before it drawn as indices `[tokens]` each.
    fn next_input(&self, step: usize, indices: &[Tensor<1, Int>]) -> Tensor<2> {
        let per_step = self.config.dims_per_step;
        let before = (step - 1) * per_step..step * per_step;
        let tables = self.token_embeddings[before.clone()].iter();
        let embedded = tables
            .zip(&indices[before])
            .map(|(table, index)| table.weight.val().select(0, index.clone()));
        let embedded = embedded
            .reduce(|sum, one| sum + one)
            .expect("a step has dimensions");
        let position = self.channel_embed.val().narrow(1, step, 1);
        embedded + position.squeeze_dim::<2>(0)
    }
}

/// The order in which the head computes the dimensions of a token. The tokens are the same, bit for bit on a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decoding {
    /// One step after the other, as the paper has it.
    Sequential,
    /// All steps from the last guess of the dimensions before them, again until no guess is wrong (speculative Jacobi
    /// decoding, arXiv 2510.24211). A token has one random number per dimension, so the fixed point is the sequential
    /// token. It reads the weights once per pass instead of once per step, and computes more rows.
    Jacobi,
}

/// What [`GenAr::autoregress`] drew.
#[derive(Debug)]
pub struct Drawn {
    /// `[tokens, dims]`, dimensions in the head's order.
    pub indices: Tensor<2, Int>,
    /// Steps computed for each token; [`GenArConfig::head_steps`] of them if none was computed again.
    pub steps: usize,
}

/// The indices of the dimensions, `[tokens]` each: drawn, or guessed.
struct Guess {
    indices: Vec<Tensor<1, Int>>,
    /// The same on the host, dimension by dimension, once something is drawn from them.
    known: Vec<i64>,
    tokens: usize,
    per_step: usize,
}

impl Guess {
    /// The level in the middle, which is the likeliest of a normal distribution.
    fn new(config: &GenArConfig, tokens: usize, device: &Device) -> Self {
        let middle: Vec<_> = (0..config.token_embed_dim)
            .map(|dim| config.levels_at(dim) / 2)
            .collect();
        let guess = |&middle: &usize| int_tensor(std::iter::repeat_n(middle, tokens), device);
        let known = middle.iter().map(|&middle| middle as i64);
        Self {
            indices: middle.iter().map(guess).collect(),
            known: known
                .flat_map(|middle| std::iter::repeat_n(middle, tokens))
                .collect(),
            tokens,
            per_step: config.dims_per_step,
        }
    }

    /// Takes what was drawn for the dimensions of `steps`, the first of which were drawn from indices that are known to
    /// be right. Returns the first step that was drawn from a wrong guess, or the one after `steps`.
    fn replace(&mut self, steps: Range<usize>, drawn: Vec<Tensor<1, Int>>) -> usize {
        let dims = steps.start * self.per_step..steps.end * self.per_step;
        // Nothing was drawn from a guess.
        if steps.len() == 1 {
            self.indices.splice(dims, drawn);
            return steps.end;
        }
        let found = host_indices(Tensor::cat(drawn.clone(), 0));
        self.indices.splice(dims.clone(), drawn);
        let known = &mut self.known[dims.start * self.tokens..dims.end * self.tokens];
        let each = self.per_step * self.tokens;
        let right = known
            .chunks(each)
            .zip(found.chunks(each))
            .take_while(|(guessed, found)| guessed == found);
        let right = right.count();
        known.copy_from_slice(&found);
        // The step after the last right one was drawn from right indices too.
        steps.end.min(steps.start + right + 1)
    }
}

/// The logit of a level that a dimension does not have: no chance, and finite, so that sums stay so.
pub const ABSENT: f32 = -1e30;

/// `x` with `value` added behind along `axis`, up to `size`.
fn filled_up<const D: usize>(x: Tensor<D>, axis: usize, size: usize, value: f32) -> Tensor<D> {
    let mut rest = x.dims();
    if rest[axis] == size {
        return x;
    }
    rest[axis] = size - rest[axis];
    let rest = Tensor::full(rest, value, (&x.device(), x.dtype()));
    Tensor::cat(vec![x, rest], axis)
}

/// Parts of some steps: each of `[all steps, tokens, width]` to `[steps, tokens, width]`.
fn of_steps<const N: usize>(parts: &[Tensor<3>; N], steps: &Range<usize>) -> [Tensor<3>; N] {
    parts
        .each_ref()
        .map(|part| part.clone().narrow(0, steps.start, steps.len()))
}
