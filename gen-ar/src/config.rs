//! The config of a generator, with the three sizes of the paper as presets.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tessera_moe::MoeConfig;

/// The order in which the head predicts the 16 dimensions of KL-16 latents: by descending share of low-frequency energy
/// (section 3.2 of the paper; the measurement behind it was not published).
const KL16_CHANNEL_ORDER: [usize; 16] = [8, 1, 10, 9, 6, 12, 4, 0, 3, 11, 7, 14, 2, 15, 13, 5];

/// The size of one of the three transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Features per token.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Number of attention heads; divides `width`.
    pub heads: usize,
}

impl TransformerConfig {
    /// Features per attention head.
    pub fn head_dim(&self) -> usize {
        self.width / self.heads
    }
}

/// The head's input at its first dimension when it samples. In training it is the projected feature `c`. The released
/// sampler, which the published figures come from, adds the first position's embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstPosition {
    /// `c + timesteps_embeddings[0]`, as in the released sampler.
    #[default]
    Released,
    /// `c`, as in training.
    AsTrained,
}

/// Everything that defines a generator's weights and their training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenArConfig {
    /// Tokens of an image: `[rows, columns]`.
    pub grid: [usize; 2],
    /// Dimensions of a token (K in the paper), each quantized on its own.
    pub token_embed_dim: usize,
    /// Levels of a dimension: 2^bits. Where dimensions differ, those of the widest.
    pub levels: usize,
    /// Levels of each dimension, in the latents' own order, where they differ; empty where all have `levels`, as in the
    /// paper.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channel_levels: Vec<usize>,
    /// Number of classes.
    pub class_num: usize,
    /// The encoder, over visible tokens.
    pub enc: TransformerConfig,
    /// The decoder, over all tokens.
    pub dec: TransformerConfig,
    /// The head, over the dimensions of one token.
    pub ch: TransformerConfig,
    /// Copies of the class embedding prepended to the tokens.
    pub buffer_size: usize,
    /// Hidden width of an MLP divided by its width.
    pub mlp_ratio: usize,
    /// The order in which the head predicts the dimensions: a permutation of `0..token_embed_dim`.
    pub channel_order: Vec<usize>,
    /// How many dimensions the head predicts at a time, each independently of the others of its step: a divisor of
    /// `token_embed_dim`. 1 is the paper's autoregressive head, `token_embed_dim` its parallel one (table 2a).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub dims_per_step: usize,
    /// Share of training images whose class is hidden, for classifier-free guidance.
    pub label_drop_prob: f32,
    /// Smallest share of positions masked in training.
    pub mask_ratio_min: f32,
    /// Standard deviation of the normal distribution around 1 that the masked share is drawn from (0.25 in MAR).
    /// Small grids need more than the paper's: their last positions are predicted with almost all others known.
    pub mask_ratio_std: f32,
    /// Dropout of attention probabilities in training.
    pub attn_dropout: f32,
    /// Dropout after projections and inside MLPs in training.
    pub proj_dropout: f32,
    /// The head's input at its first dimension when it samples.
    pub first_position: FirstPosition,
    /// Experts (with tanh GELU) in place of the MLPs of the encoder and the decoder; dense if absent, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moe: Option<MoeConfig>,
}

impl GenArConfig {
    /// A generator with the paper's choices (table 4) for everything not given. `backbone` is the size of both the
    /// encoder and the decoder.
    pub fn new(
        grid: [usize; 2],
        token_embed_dim: usize,
        levels: usize,
        backbone: TransformerConfig,
        head: TransformerConfig,
    ) -> Self {
        Self {
            grid,
            token_embed_dim,
            levels,
            channel_levels: Vec::new(),
            class_num: 1000,
            enc: backbone,
            dec: backbone,
            ch: head,
            buffer_size: 64,
            mlp_ratio: 4,
            channel_order: default_channel_order(token_embed_dim),
            dims_per_step: 1,
            label_drop_prob: 0.1,
            mask_ratio_min: 0.7,
            mask_ratio_std: 0.25,
            attn_dropout: 0.1,
            proj_dropout: 0.1,
            first_position: FirstPosition::Released,
            moe: None,
        }
    }

    fn tokenbridge(backbone: TransformerConfig, head: TransformerConfig) -> Self {
        Self::new([16, 16], 16, 64, backbone, head)
    }

    /// TokenBridge-B, 218 M parameters: 256 px, 6 bits, ImageNet.
    pub fn tokenbridge_b() -> Self {
        let backbone = TransformerConfig {
            width: 768,
            depth: 12,
            heads: 12,
        };
        Self::tokenbridge(
            backbone,
            TransformerConfig {
                width: 768,
                depth: 4,
                heads: 8,
            },
        )
    }

    /// TokenBridge-L, 487 M parameters.
    pub fn tokenbridge_l() -> Self {
        let backbone = TransformerConfig {
            width: 1024,
            depth: 16,
            heads: 16,
        };
        Self::tokenbridge(
            backbone,
            TransformerConfig {
                width: 1024,
                depth: 4,
                heads: 8,
            },
        )
    }

    /// TokenBridge-H, 910 M parameters.
    pub fn tokenbridge_h() -> Self {
        let backbone = TransformerConfig {
            width: 1280,
            depth: 20,
            heads: 16,
        };
        Self::tokenbridge(
            backbone,
            TransformerConfig {
                width: 1024,
                depth: 6,
                heads: 8,
            },
        )
    }

    /// Number of tokens of an image.
    pub fn seq(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Levels of a dimension, by its place in the latents.
    pub fn levels_of(&self, channel: usize) -> usize {
        self.channel_levels
            .get(channel)
            .copied()
            .unwrap_or(self.levels)
    }

    /// Levels of the dimension that the head predicts at `position`.
    pub(crate) fn levels_at(&self, position: usize) -> usize {
        let channel = self.channel_order.get(position);
        channel.map_or(self.levels, |&channel| self.levels_of(channel))
    }

    /// How many values the levels of all dimensions have: those of one dimension if all share them.
    pub(crate) fn level_values(&self) -> usize {
        match self.channel_levels.is_empty() {
            true => self.levels,
            false => self.channel_levels.iter().sum(),
        }
    }

    /// Steps that the head takes per token.
    pub fn head_steps(&self) -> usize {
        self.token_embed_dim / self.dims_per_step
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Moe`] names the first field that is out of range.
    pub fn validate(&self) -> Result<()> {
        let check = |field, ok: bool, expected: &str, found: String| match ok {
            true => Ok(()),
            false => Err(Error::Config {
                field,
                expected: expected.into(),
                found,
            }),
        };
        let [height, width] = self.grid;
        let at_least_1 =
            |field, value: usize| check(field, value > 0, "at least 1", value.to_string());
        check(
            "grid",
            height > 0 && width > 0,
            "at least 1 by 1",
            format!("{height} by {width}"),
        )?;
        at_least_1("token_embed_dim", self.token_embed_dim)?;
        at_least_1("class_num", self.class_num)?;
        at_least_1("buffer_size", self.buffer_size)?;
        at_least_1("mlp_ratio", self.mlp_ratio)?;
        check(
            "levels",
            (2..=1 << 16).contains(&self.levels),
            "2 to 65536",
            self.levels.to_string(),
        )?;
        let each = &self.channel_levels;
        let range = 2..=1 << 16;
        check(
            "channel_levels",
            each.is_empty()
                || each.len() == self.token_embed_dim
                    && each.iter().all(|levels| range.contains(levels))
                    && each.iter().max() == Some(&self.levels),
            &format!(
                "nothing, or {} of 2 to 65536 of which the largest is {}",
                self.token_embed_dim, self.levels
            ),
            format!("{each:?}"),
        )?;
        check(
            "dims_per_step",
            self.dims_per_step > 0 && self.token_embed_dim.is_multiple_of(self.dims_per_step),
            &format!("a divisor of the {} dimensions", self.token_embed_dim),
            self.dims_per_step.to_string(),
        )?;
        for (field, size) in [("enc", self.enc), ("dec", self.dec), ("ch", self.ch)] {
            let TransformerConfig {
                width,
                depth,
                heads,
            } = size;
            let ok = width > 0 && depth > 0 && heads > 0 && width % heads == 0;
            let expected = "at least one block whose width is a multiple of its heads";
            check(
                field,
                ok,
                expected,
                format!("width {width}, depth {depth}, heads {heads}"),
            )?;
        }
        let found = format!("{:?}", self.channel_order);
        let permutation = is_permutation(&self.channel_order, self.token_embed_dim);
        check(
            "channel_order",
            permutation,
            &format!("a permutation of 0..{}", self.token_embed_dim),
            found,
        )?;
        let share = |field, value: f32| {
            check(
                field,
                (0.0..=1.0).contains(&value),
                "in 0..=1",
                value.to_string(),
            )
        };
        share("label_drop_prob", self.label_drop_prob)?;
        share("mask_ratio_min", self.mask_ratio_min)?;
        let spread = self.mask_ratio_std;
        check(
            "mask_ratio_std",
            spread > 0.0 && spread.is_finite(),
            "above 0",
            spread.to_string(),
        )?;
        for (field, rate) in [
            ("attn_dropout", self.attn_dropout),
            ("proj_dropout", self.proj_dropout),
        ] {
            check(
                field,
                (0.0..1.0).contains(&rate),
                "in 0..1",
                rate.to_string(),
            )?;
        }
        let Some(moe) = &self.moe else {
            return Ok(());
        };
        for width in [self.enc.width, self.dec.width] {
            moe.validate(self.mlp_ratio.saturating_mul(width))?;
        }
        check(
            "moe.target_weight",
            moe.target_weight == 0.0,
            "0: a token has no target that a layer could guess",
            moe.target_weight.to_string(),
        )
    }
}

fn one() -> usize {
    1
}

fn is_one(number: &usize) -> bool {
    *number == 1
}

/// The paper's order for 16 dimensions, those of KL-16 latents; for any other number, ascending.
pub fn default_channel_order(token_embed_dim: usize) -> Vec<usize> {
    match token_embed_dim {
        16 => KL16_CHANNEL_ORDER.to_vec(),
        other => (0..other).collect(),
    }
}

/// Whether `order` holds each of `0..n` once.
pub(crate) fn is_permutation(order: &[usize], n: usize) -> bool {
    // A config may claim any number: no memory before it is held against what is there.
    if order.len() != n {
        return false;
    }
    let mut seen = vec![false; n];
    order
        .iter()
        .all(|&i| i < n && !std::mem::replace(&mut seen[i], true))
}
