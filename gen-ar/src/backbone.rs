//! The backbone, MAR's masked autoencoder (arXiv 2406.11838): the encoder sees the class and the visible tokens, the
//! decoder adds mask tokens at all other positions and computes a feature per position.

use crate::GenAr;
use crate::context::ForwardContext;
use crate::positions::{Positions, int_tensor};
use burn::tensor::{Int, Tensor};
use tessera_backend::ops::{self, Activation};

impl GenAr {
    /// The values of indices.
    ///
    /// # Shapes
    /// - indices: `[rows, dims]`
    /// - output: `[rows, dims]`
    pub fn dequantize(&self, indices: Tensor<2, Int>) -> Tensor<2> {
        let [rows, dims] = indices.dims();
        let values = self.token_values();
        let indices = match &self.config.channel_levels[..] {
            [] => indices,
            // Each dimension's values follow those of the dimension before it.
            levels => {
                let first = levels.iter().scan(0, |sum, &levels| {
                    let first = *sum;
                    *sum += levels;
                    Some(first)
                });
                indices + int_tensor(first, &values.device()).unsqueeze()
            }
        };
        values
            .select(0, indices.reshape([rows * dims])) // [rows * dims]
            .reshape([rows, dims]) // [rows, dims]
    }

    /// Encodes the class (`None`: no class) and the visible tokens of each image; `values` is `None` if no token is
    /// visible.
    ///
    /// # Shapes
    /// - values: `[batch * visible, dims]`, image by image
    /// - output: `[batch, buffer_size + visible, enc.width]`
    pub fn encode(
        &self,
        values: Option<Tensor<2>>,
        visible: &Positions,
        classes: &[Option<usize>],
        context: &mut ForwardContext<'_>,
    ) -> Tensor<3> {
        let x = self.encoder_input(values, visible, classes);
        let tokens = self.sequence.of(x.dims()[1]);
        let mut x = tokens.shard(x);
        for block in &self.encoder_blocks {
            x = block.forward(x, tokens, context);
        }
        tokens.gather(ops::layer_norm(x, &self.encoder_norm))
    }

    /// The rows of the buffer and of the visible tokens, before the first block.
    ///
    /// # Shapes
    /// - as [`encode`](Self::encode)
    pub(crate) fn encoder_input(
        &self,
        values: Option<Tensor<2>>,
        visible: &Positions,
        classes: &[Option<usize>],
    ) -> Tensor<3> {
        let (batch, buffer) = (classes.len(), self.config.buffer_size);
        let width = self.config.enc.width;
        let positions = self.encoder_pos_embed_learned.val();
        let class = self.embed_classes(classes).unsqueeze_dim::<3>(1); // [batch, 1, width]
        let mut x = class + positions.clone().narrow(1, 0, buffer); // [batch, buffer, width]
        if let Some(values) = values {
            let rows = visible.rows(0, buffer, &values.device());
            let tokens = ops::linear(values, &self.z_proj, Activation::None);
            let tokens = tokens + positions.squeeze_dim::<2>(0).select(0, rows);
            let tokens = tokens.reshape([batch, visible.per_image(), width]); // [batch, visible, width]
            x = Tensor::cat(vec![x, tokens], 1);
        }
        ops::layer_norm(x, &self.z_proj_ln)
    }

    /// The features `z` of the wanted positions.
    ///
    /// # Shapes
    /// - encoded: `[batch, buffer_size + visible, enc.width]`
    /// - output: `[batch * wanted, dec.width]`, image by image
    pub fn decode(
        &self,
        encoded: Tensor<3>,
        visible: &Positions,
        wanted: &Positions,
        context: &mut ForwardContext<'_>,
    ) -> Tensor<2> {
        let x = self.decoder_input(encoded, visible);
        let x = self.decoder_rows(x, wanted, context);
        self.decoder_output(x, wanted)
    }

    /// The rows of the buffer and of all positions, before the first block.
    ///
    /// # Shapes
    /// - encoded: `[batch, buffer_size + visible, enc.width]`
    /// - output: `[batch, buffer_size + seq, dec.width]`
    pub(crate) fn decoder_input(&self, encoded: Tensor<3>, visible: &Positions) -> Tensor<3> {
        self.fill_with_mask_tokens(encoded, visible) + self.decoder_pos_embed_learned.val()
    }

    /// The rows of the wanted positions after the last block.
    ///
    /// # Shapes
    /// - x: `[batch, buffer_size + seq, dec.width]`
    /// - output: `[batch * wanted, dec.width]`
    pub(crate) fn decoder_rows(
        &self,
        x: Tensor<3>,
        wanted: &Positions,
        context: &mut ForwardContext<'_>,
    ) -> Tensor<2> {
        let ([batch, rows, width], device) = (x.dims(), x.device());
        let tokens = self.sequence.of(rows);
        let (last, blocks) = self
            .decoder_blocks
            .split_last()
            .expect("a valid config has depth");
        let mut x = tokens.shard(x);
        for block in blocks {
            x = block.forward(x, tokens, context);
        }
        let wanted_rows = wanted.rows(rows, self.config.buffer_size, &device);
        match tokens.is_sharded() {
            false => last
                .forward_rows(x, wanted_rows, context)
                .reshape([wanted.total(), width]), // [batch * wanted, width]
            // Which of the wanted rows are on this rank differs from image to image.
            true => tokens
                .gather(last.forward(x, tokens, context))
                .reshape([batch * rows, width]) // [batch * rows, width]
                .select(0, wanted_rows), // [batch * wanted, width]
        }
    }

    /// The features of rows after the last block.
    ///
    /// # Shapes
    /// - x, output: `[batch * wanted, dec.width]`
    pub(crate) fn decoder_output(&self, x: Tensor<2>, wanted: &Positions) -> Tensor<2> {
        let rows = wanted.rows(0, 0, &x.device());
        let positions = self.output_pos_embed.val().squeeze_dim::<2>(0);
        ops::layer_norm(x, &self.decoder_norm) + positions.select(0, rows)
    }

    /// The encoded rows in their places, and the mask token in all others.
    ///
    /// # Shapes
    /// - encoded: `[batch, buffer_size + visible, enc.width]`
    /// - output: `[batch, buffer_size + seq, dec.width]`
    fn fill_with_mask_tokens(&self, encoded: Tensor<3>, visible: &Positions) -> Tensor<3> {
        let ([batch, short, _], device) = (encoded.dims(), encoded.device());
        let (width, seq) = (self.config.dec.width, self.config.seq());
        let buffer = self.config.buffer_size;
        let kept = ops::linear(encoded, &self.decoder_embed, Activation::None)
            .reshape([batch * short, width]); // [batch * short, width]
        let mask_token = self.mask_token.val().reshape([1, width]); // [1, width]
        let table = Tensor::cat(vec![kept, mask_token], 0); // [batch * short + 1, width]
        let x = table.select(0, visible.restore(batch, seq, buffer, &device));
        x.reshape([batch, buffer + seq, width]) // [batch, buffer + seq, width]
    }

    /// `[batch, enc.width]`: the class's embedding, or `fake_latent` for no class.
    fn embed_classes(&self, classes: &[Option<usize>]) -> Tensor<2> {
        let none = self.config.class_num;
        let table = Tensor::cat(vec![self.class_emb.weight.val(), self.fake_latent.val()], 0);
        let rows = classes.iter().map(|class| class.unwrap_or(none));
        let rows = int_tensor(rows, &table.device());
        table.select(0, rows)
    }
}
