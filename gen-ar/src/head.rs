//! The head predicts the dimensions of a token one after the other (section 3.2 of the paper). In training,
//! `head_logits` takes all dimensions at once; to sample, `autoregress` takes one at a time, with cached keys and
//! values.

use crate::GenAr;
use crate::attention::KvCache;
use crate::block::Modulation;
use crate::config::FirstPosition;
use crate::dropout::Dropout;
use crate::positions::int_tensor;
use burn::tensor::{Int, Tensor};
use tessera_backend::ops::{self, Activation};

impl GenAr {
    /// The logits of the first `dims` dimensions, each given the dimensions before it.
    ///
    /// # Shapes
    /// - z: `[tokens, dec.width]`
    /// - indices: `[tokens, dims]`, dimensions in the head's order
    /// - output: `[dims, tokens, levels]`, dimensions in the head's order
    pub fn head_logits(
        &self,
        z: Tensor<2>,
        indices: Tensor<2, Int>,
        first: FirstPosition,
        dropout: &mut Dropout<'_>,
    ) -> Tensor<3> {
        let dims = indices.dims()[1];
        let c = ops::linear(z, &self.condition_proj, Activation::None);
        let timesteps = self.timesteps_embeddings.val().narrow(1, 0, dims);
        let cond = c.clone().unsqueeze_dim::<3>(1) + timesteps; // [tokens, dims, width]
        let mut x = self.head_inputs(c, indices, first);
        let cond = ops::activation(cond, Activation::Silu);
        for block in &self.channel_blocks {
            x = block.forward(x, block.modulation(cond.clone()), dropout);
        }
        let x = ops::layer_norm(x, &self.channel_norm);
        let [scale, shift] = self.channel_final.modulation(cond);
        let x = ops::modulate(x, None, shift, scale);
        // A batched product, one per dimension: slicing x instead would build its gradient from `dims` zero tensors.
        let heads = &self.channel_heads[..dims];
        // `matmul`, unlike `ops::linear`, takes no weights of a narrower type.
        let weight = heads
            .iter()
            .map(|head| head.weight.val().cast(x.dtype()))
            .collect();
        let bias = heads.iter().filter_map(|head| head.bias.as_ref());
        let bias = Tensor::stack::<2>(bias.map(|bias| bias.val()).collect(), 0);
        let x = x.swap_dims(0, 1); // [dims, tokens, width]
        x.matmul(Tensor::stack::<3>(weight, 0)) + bias.unsqueeze_dim(1)
    }

    /// The head's input at each dimension: the embedded index of the dimension before it.
    ///
    /// # Shapes
    /// - c: `[tokens, width]`
    /// - indices: `[tokens, dims]`
    /// - output: `[tokens, dims, width]`
    fn head_inputs(
        &self,
        c: Tensor<2>,
        indices: Tensor<2, Int>,
        first: FirstPosition,
    ) -> Tensor<3> {
        let [tokens, dims] = indices.dims();
        let (levels, width) = (self.config.levels, self.config.ch.width);
        let first = self.first_input(c, first).unsqueeze_dim::<3>(1);
        let rest = dims - 1;
        if rest == 0 {
            return first;
        }
        // The position embeddings are added to the tables, which have fewer rows than there are tokens.
        let tables = self.token_embeddings[..rest].iter();
        let tables = Tensor::stack::<3>(tables.map(|table| table.weight.val()).collect(), 0);
        let positions = self.channel_embed.val().swap_dims(0, 1); // [dims, 1, width]
        let tables = tables + positions.narrow(0, 1, rest);
        let tables = tables.reshape([rest * levels, width]); // [rest * levels, width]
        let offsets = int_tensor((0..rest).map(|dim| dim * levels), &tables.device());
        let rows = indices.narrow(1, 0, rest) + offsets.unsqueeze();
        let embedded = tables.select(0, rows.reshape([tokens * rest])); // [tokens * rest, width]
        let embedded = embedded.reshape([tokens, rest, width]); // [tokens, rest, width]
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

    /// Draws the dimensions of each token one after the other. `choose` takes a dimension's number in the head's
    /// order and its logits `[tokens, levels]`, and returns the indices `[tokens]`.
    ///
    /// adaLN depends on `z` and the dimension but not on drawn indices, so it is computed for all dimensions in
    /// advance.
    ///
    /// # Shapes
    /// - z: `[tokens, dec.width]`
    /// - output: `[tokens, dims]`, dimensions in the head's order
    pub fn autoregress(
        &self,
        z: Tensor<2>,
        first: FirstPosition,
        choose: &mut dyn FnMut(usize, Tensor<2>) -> Tensor<1, Int>,
    ) -> Tensor<2, Int> {
        let ([tokens, _], device) = (z.dims(), z.device());
        let (dims, ch) = (self.config.token_embed_dim, self.config.ch);
        let c = ops::linear(z, &self.condition_proj, Activation::None);
        let timesteps = self.timesteps_embeddings.val().swap_dims(0, 1); // [dims, 1, width]
        let cond = c.clone().unsqueeze_dim::<3>(0) + timesteps; // [dims, tokens, width]
        let cond = ops::activation(cond, Activation::Silu);
        let blocks: Vec<Modulation<3>> = self
            .channel_blocks
            .iter()
            .map(|b| b.modulation(cond.clone()))
            .collect();
        let last = self.channel_final.modulation(cond);
        let cache = || KvCache::new([tokens, ch.heads, dims, ch.head_dim()], &device);
        let mut caches: Vec<_> = self.channel_blocks.iter().map(|_| cache()).collect();

        let mut drawn: Vec<Tensor<1, Int>> = Vec::with_capacity(dims);
        for dim in 0..dims {
            let mut x = match drawn.last() {
                None => self.first_input(c.clone(), first),
                Some(index) => self.next_input(dim, index.clone()),
            };
            for ((block, modulation), cache) in
                self.channel_blocks.iter().zip(&blocks).zip(&mut caches)
            {
                x = block.step(x, at(modulation, dim), cache);
            }
            let [scale, shift] = at(&last, dim);
            let x = ops::modulate(ops::layer_norm(x, &self.channel_norm), None, shift, scale);
            drawn.push(choose(
                dim,
                ops::linear(x, &self.channel_heads[dim], Activation::None),
            ));
        }
        Tensor::stack(drawn, 1)
    }

    /// `[tokens, width]`: the head's input at `dim`, with the preceding dimension drawn as `index` (`[tokens]`).
    fn next_input(&self, dim: usize, index: Tensor<1, Int>) -> Tensor<2> {
        let embedding = self.token_embeddings[dim - 1].weight.val().select(0, index);
        embedding
            + self
                .channel_embed
                .val()
                .narrow(1, dim, 1)
                .squeeze_dim::<2>(0)
    }
}

/// The modulation of one dimension: each of `[dims, tokens, width]` to `[tokens, width]`.
fn at<const N: usize>(modulation: &[Tensor<3>; N], dim: usize) -> [Tensor<2>; N] {
    modulation.each_ref().map(|part| {
        let [_, tokens, width] = part.dims();
        ops::reshape(part.clone().narrow(0, dim, 1), [tokens, width]) // [tokens, width]
    })
}
