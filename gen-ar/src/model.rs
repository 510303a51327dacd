//! The parameters of the generator, flat and named as in the released checkpoints.

use crate::attention::NORM_EPS;
use crate::block::{Block, ChannelBlock, ChannelFinal};
use crate::config::TransformerConfig;
use crate::head_times::HeadTimes;
use crate::{Error, GenArConfig, Result};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use tessera_attention2d::TokenSharding;
use tessera_backend::init::ParamInit;
use tessera_backend::nn::{Embedding, LayerNorm, Linear};
use tessera_backend::{elements_of, host_values};
use tessera_moe::MoeWidths;
use tessera_quantize::STD_RANGE;

/// The TokenBridge generator: a masked transformer over the positions of an image (`backbone.rs`) and an
/// autoregressive head over the dimensions of one token (`head.rs`). Made by [`GenArConfig::init`] or loaded
/// (`checkpoint.rs`).
#[derive(Module, Debug)]
pub struct GenAr {
    // Backbone.
    pub(crate) fake_latent: Param<Tensor<2>>,
    pub(crate) encoder_pos_embed_learned: Param<Tensor<3>>,
    pub(crate) mask_token: Param<Tensor<3>>,
    pub(crate) decoder_pos_embed_learned: Param<Tensor<3>>,
    pub(crate) output_pos_embed: Param<Tensor<3>>,
    pub(crate) class_emb: Embedding,
    pub(crate) z_proj: Linear,
    pub(crate) z_proj_ln: LayerNorm,
    pub(crate) encoder_blocks: Vec<Block>,
    pub(crate) encoder_norm: LayerNorm,
    pub(crate) decoder_embed: Linear,
    pub(crate) decoder_blocks: Vec<Block>,
    pub(crate) decoder_norm: LayerNorm,
    // Head.
    pub(crate) channel_embed: Param<Tensor<3>>,
    pub(crate) timesteps_embeddings: Param<Tensor<3>>,
    pub(crate) condition_proj: Linear,
    pub(crate) token_embeddings: Vec<Embedding>,
    pub(crate) channel_blocks: Vec<ChannelBlock>,
    pub(crate) channel_norm: LayerNorm,
    pub(crate) channel_final: ChannelFinal,
    pub(crate) channel_heads: Vec<Linear>,
    // The values of the levels in the units of the released quantizer's table: a buffer, without gradient.
    pub(crate) reconstruction_values: Param<Tensor<1>>,
    #[module(skip)]
    pub(crate) config: GenArConfig,
    #[module(skip)]
    pub(crate) sequence: TokenSharding,
    #[module(skip)]
    pub(crate) head_times: HeadTimes,
}

impl GenArConfig {
    /// How many numbers the parameters and the values of the levels are; `u64::MAX` where they are more. Needs no valid
    /// config.
    pub fn elements(&self) -> u64 {
        let ([rows, columns], dims) = (self.grid, self.token_embed_dim);
        let (enc, dec, ch) = (self.enc.width, self.dec.width, self.ch.width);
        let around = elements_of(&[
            &[enc],
            &[self.buffer_size, enc],
            &[rows, columns, enc],
            &[dec],
            &[self.buffer_size, dec],
            &[2, rows, columns, dec],
            &[self.class_num, enc],
            &[dims, enc],
            &[5, enc],
            &[enc, dec],
            &[3, dec],
        ]);
        let predicted = self.levels_before(dims);
        let embedded = self.levels_before(dims.saturating_sub(self.dims_per_step));
        let values = match self.channel_levels.is_empty() {
            true => self.levels,
            false => predicted,
        };
        let head = elements_of(&[
            &[2, dims / self.dims_per_step.max(1), ch],
            &[dec, ch],
            &[5, ch],
            &[embedded, ch],
            &[2, ch, ch],
            &[predicted, ch],
            &[predicted],
            &[values],
        ]);
        let backbone = |size: TransformerConfig| {
            let width = size.width;
            let hidden = self.mlp_ratio.saturating_mul(width);
            let mlp = match &self.moe {
                None => mlp_elements(width, hidden),
                Some(moe) => moe.elements(MoeWidths {
                    d_model: width,
                    hidden,
                    target: None,
                }),
            };
            let block = elements_of(&[&[4, width, width], &[8, width]]).saturating_add(mlp);
            block.saturating_mul(size.depth as u64)
        };
        let block = elements_of(&[&[10, ch, ch], &[14, ch], &[4, ch / self.ch.heads.max(1)]]);
        let block = block.saturating_add(mlp_elements(ch, self.mlp_ratio.saturating_mul(ch)));
        let blocks = block.saturating_mul(self.ch.depth as u64);
        [around, head, backbone(self.enc), backbone(self.dec), blocks]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// How many levels the first `positions` dimensions of the head's order have together.
    pub(crate) fn levels_before(&self, positions: usize) -> usize {
        if self.channel_levels.is_empty() {
            return positions.saturating_mul(self.levels);
        }
        let order = self.channel_order.iter().take(positions);
        order
            .map(|&channel| self.levels_of(channel))
            .fold(0, usize::saturating_add)
    }

    /// A generator whose weights and values of levels are still to come. Nothing is allocated for parameters.
    ///
    /// # Panics
    /// If the config is not valid.
    pub fn unfilled(&self, device: &Device) -> GenAr {
        self.init(&vec![0.0; self.level_values()], 0, device)
    }

    /// A generator with random weights, initialized as by the authors and the same on every device for one `seed`.
    /// `values` are the quantizer's reconstruction values, one per level: those that all dimensions share, or of one
    /// dimension after the other. No parameter is allocated before its first use.
    ///
    /// # Panics
    /// If the config is not valid or `values` are not one per level.
    pub fn init(&self, values: &[f32], seed: u64, device: &Device) -> GenAr {
        if let Err(error) = self.validate() {
            panic!("{error}");
        }
        assert_eq!(
            values.len(),
            self.level_values(),
            "one reconstruction value per level"
        );
        let init = &mut ParamInit::new(seed, device);
        let (enc, dec, ch) = (self.enc, self.dec, self.ch);
        let (dims, rows) = (self.token_embed_dim, self.buffer_size + self.seq());
        let (ratio, moe) = (self.mlp_ratio, self.moe.as_ref());
        let table: Vec<_> = values.iter().map(table_units).collect();
        GenAr {
            fake_latent: init.normal([1, enc.width]),
            encoder_pos_embed_learned: init.normal([1, rows, enc.width]),
            mask_token: init.normal([1, 1, dec.width]),
            decoder_pos_embed_learned: init.normal([1, rows, dec.width]),
            output_pos_embed: init.normal([1, self.seq(), dec.width]),
            class_emb: init.embedding(self.class_num, enc.width, 0.02),
            z_proj: init.linear(dims, enc.width),
            z_proj_ln: LayerNorm::new(enc.width, NORM_EPS, device),
            encoder_blocks: (0..enc.depth)
                .map(|_| Block::init(enc, ratio, moe, init))
                .collect(),
            encoder_norm: LayerNorm::new(enc.width, NORM_EPS, device),
            decoder_embed: init.linear(enc.width, dec.width),
            decoder_blocks: (0..dec.depth)
                .map(|_| Block::init(dec, ratio, moe, init))
                .collect(),
            decoder_norm: LayerNorm::new(dec.width, NORM_EPS, device),
            channel_embed: init.normal([1, self.head_steps(), ch.width]),
            timesteps_embeddings: init.normal([1, self.head_steps(), ch.width]),
            condition_proj: init.linear(dec.width, ch.width),
            // What the last step predicts is the input of none, so it has no embedding.
            token_embeddings: (0..dims - self.dims_per_step)
                .map(|position| init.embedding(self.levels_at(position), ch.width, 1.0))
                .collect(),
            channel_blocks: (0..ch.depth)
                .map(|_| ChannelBlock::init(ch, ratio, init))
                .collect(),
            channel_norm: LayerNorm::new(ch.width, NORM_EPS, device),
            channel_final: ChannelFinal::init(ch.width, init),
            channel_heads: (0..dims)
                .map(|position| init.linear(ch.width, self.levels_at(position)))
                .collect(),
            reconstruction_values: init.buffer(&table, [self.level_values()]),
            config: self.clone(),
            sequence: TokenSharding::Local,
            head_times: HeadTimes::default(),
        }
    }
}

fn mlp_elements(width: usize, hidden: usize) -> u64 {
    elements_of(&[&[2, width, hidden], &[hidden], &[width]])
}

/// The normalized value at the ends of the released quantizer's table.
const VALUE_RANGE: f32 = 5.0;

/// A normalized value in the units of the released quantizer's table.
fn table_units(value: &f32) -> f32 {
    (value + VALUE_RANGE) / (2.0 * VALUE_RANGE) * (2.0 * STD_RANGE) - STD_RANGE
}

impl GenAr {
    /// The values of the levels, in the units of the released quantizer's table (± 3): the table that the model was
    /// trained with. Prefer it to a recomputed one. Where widths differ, of one dimension after the other.
    ///
    /// # Shapes
    /// - output: `[levels]`
    pub fn reconstruction_values(&self) -> Vec<f32> {
        host_values(self.reconstruction_values.val())
    }

    /// The normalized value of every level, which tokens are embedded as.
    ///
    /// # Shapes
    /// - output: `[levels]`
    pub fn token_values(&self) -> Tensor<1> {
        let values = self.reconstruction_values.val();
        (values + STD_RANGE) / (2.0 * STD_RANGE) * (2.0 * VALUE_RANGE) - VALUE_RANGE
    }

    /// The config of the model.
    pub fn config(&self) -> &GenArConfig {
        &self.config
    }

    /// The device of its parameters.
    pub fn device(&self) -> Device {
        self.fake_latent.lazy_device()
    }

    /// The model with the backbone's tokens sharded over ranks as `sequence` says. A rank computes its share of the
    /// backbone's tokens, which attend to all tokens, and its share of the head's tokens. All ranks call every method
    /// together, with the same arguments.
    ///
    /// # Errors
    /// [`Error::Ranks`] if results would depend on which tokens share a rank: with experts that race, or with dropout.
    pub fn on(self, sequence: TokenSharding) -> Result<Self> {
        let refused = |what| Err(Error::Ranks { what });
        let (training, config) = (self.device().is_autodiff(), &self.config);
        match (&sequence, &config.moe) {
            (TokenSharding::Local, _) => {}
            (_, Some(_)) if training => {
                return refused("experts, which race while they are trained");
            }
            (_, Some(moe)) if !moe.threshold => return refused("experts without a threshold"),
            _ if training && (config.attn_dropout > 0.0 || config.proj_dropout > 0.0) => {
                return refused("dropout");
            }
            _ => {}
        }
        Ok(Self { sequence, ..self })
    }

    /// Number of trainable parameters: all but the buffers.
    pub fn num_trainable(&self) -> usize {
        let thresholds = self.experts().count();
        self.num_params() - self.config.level_values() - thresholds
    }
}
