//! The cost of the generator in arithmetic operations, by stage.

use crate::cache::pruning_block;
use crate::config::{GenArConfig, TransformerConfig};

/// The rows that a block computes.
#[derive(Debug, Clone, Copy)]
struct Rows {
    /// Rows whose attention is computed.
    queries: usize,
    /// Rows whose keys and values are computed.
    projected: usize,
    /// Keys that queries attend to.
    keys: usize,
    /// Rows that pass the MLP.
    mlp: usize,
}

impl Rows {
    /// Rows that attend to each other.
    fn all(rows: usize) -> Self {
        Self {
            queries: rows,
            projected: rows,
            keys: rows,
            mlp: rows,
        }
    }
}

impl GenArConfig {
    /// The encoder, for one image with `visible` tokens.
    pub(crate) fn encoder_flops(&self, visible: usize) -> f64 {
        let rows = Rows::all(self.buffer_size + visible);
        self.encoder_flops_of(visible, rows)
    }

    /// The encoder of a lazy step, for one image: `new` tokens, of `visible`.
    pub(crate) fn lazy_encoder_flops(&self, new: usize, visible: usize) -> f64 {
        let rows = Rows {
            keys: self.buffer_size + visible,
            ..Rows::all(self.buffer_size + new)
        };
        self.encoder_flops_of(new, rows)
    }

    fn encoder_flops_of(&self, tokens: usize, rows: Rows) -> f64 {
        product(tokens, self.token_embed_dim, self.enc.width)
            + self.enc.depth as f64 * self.backbone_flops(self.enc, rows)
    }

    /// The decoder, for one image; its last block computes only the `wanted` rows.
    pub(crate) fn decoder_flops(&self, visible: usize, wanted: usize) -> f64 {
        let (short, rows) = (self.buffer_size + visible, self.buffer_size + self.seq());
        let last = Rows {
            queries: wanted,
            mlp: wanted,
            ..Rows::all(rows)
        };
        product(short, self.enc.width, self.dec.width)
            + (self.dec.depth - 1) as f64 * self.backbone_flops(self.dec, Rows::all(rows))
            + self.backbone_flops(self.dec, last)
    }

    /// The decoder of a lazy step, for one image: `new` tokens are there, `kept` rows pass the block that prunes.
    pub(crate) fn lazy_decoder_flops(&self, new: usize, kept: usize, wanted: usize) -> f64 {
        let (depth, rows) = (self.dec.depth, self.buffer_size + self.seq());
        let pruning = pruning_block(depth);
        let mut sum = product(self.buffer_size + new, self.enc.width, self.dec.width);
        for block in 0..depth {
            let here = match block > pruning {
                true => kept,
                false => rows,
            };
            let last = block + 1 == depth;
            let rows = Rows {
                queries: if last && block != pruning {
                    wanted
                } else {
                    here
                },
                projected: here,
                keys: rows,
                mlp: match (last, block >= pruning) {
                    (true, _) => wanted,
                    (false, true) => kept,
                    (false, false) => rows,
                },
            };
            sum += self.backbone_flops(self.dec, rows);
        }
        sum
    }

    /// The head, for one token, of which it computes so many steps: more than there are if it guesses.
    pub(crate) fn head_flops(&self, computed: usize) -> f64 {
        let (steps, ch) = (self.head_steps(), self.ch);
        let modulation = (6 * ch.depth + 2) as f64 * product(1, ch.width, ch.width);
        let block = |keys| {
            let rows = Rows {
                keys,
                ..Rows::all(1)
            };
            self.block_flops(ch, rows)
        };
        let blocks = (1..=steps).map(block).sum::<f64>() * ch.depth as f64;
        let logits = product(1, ch.width, self.levels_before(self.token_embed_dim));
        product(1, self.dec.width, ch.width)
            + steps as f64 * modulation
            + (blocks + logits) * computed as f64 / steps as f64
    }

    /// A block of the backbone.
    fn backbone_flops(&self, size: TransformerConfig, rows: Rows) -> f64 {
        let dense = self.block_flops(size, rows);
        let Some(moe) = &self.moe else { return dense };
        let router = product(rows.mlp, size.width, size.width + moe.experts);
        let share = moe.k / moe.split as f64 - 1.0;
        let mlp = 2.0 * product(rows.mlp, size.width, self.mlp_ratio * size.width);
        dense + share * mlp + router
    }

    /// A dense block.
    fn block_flops(&self, size: TransformerConfig, rows: Rows) -> f64 {
        let maps = 2 * rows.queries + 2 * rows.projected + 2 * self.mlp_ratio * rows.mlp;
        product(maps, size.width, size.width) + 2.0 * product(rows.queries, rows.keys, size.width)
    }
}

/// A matrix product, `[m, k]` by `[k, n]`.
fn product(m: usize, k: usize, n: usize) -> f64 {
    2.0 * (m * k * n) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_moe::MoeConfig;

    fn small() -> TransformerConfig {
        TransformerConfig {
            width: 8,
            depth: 1,
            heads: 2,
        }
    }

    /// 2 positions in 1 step, 1 buffer row, 3 dimensions of 4 levels, all by hand.
    #[test]
    fn operations_are_those_counted_by_hand() {
        let config = GenArConfig {
            buffer_size: 1,
            mlp_ratio: 4,
            ..GenArConfig::new([1, 2], 3, 4, small(), small())
        };
        let linear = |rows: f64, inputs: f64, outputs: f64| 2.0 * rows * inputs * outputs;
        // One row: qkv, proj, both maps of the MLP, and one key.
        let encoder = linear(1.0, 8.0, 12.0 * 8.0) + 2.0 * linear(1.0, 1.0, 8.0);
        assert_eq!(config.encoder_flops(0), encoder);
        // A lazy step computes the token of two that is new, and attends to both.
        let lazy = linear(1.0, 3.0, 8.0) + 2.0 * encoder + 2.0 * linear(2.0, 2.0, 8.0);
        assert_eq!(config.lazy_encoder_flops(1, 2), lazy);
        // Experts: the router, and three quarters of the MLP more where a token has 3.5 halves of it.
        let moe = MoeConfig {
            k: 3.5,
            target_weight: 0.0,
            ..MoeConfig::k_in_e(2, 6)
        };
        let experts = GenArConfig {
            moe: Some(moe),
            ..config.clone()
        };
        let more = linear(1.0, 8.0, 8.0 + 6.0) + 0.75 * linear(1.0, 8.0, 2.0 * 32.0);
        assert_eq!(experts.encoder_flops(0), encoder + more);
        assert_eq!(experts.head_flops(3), config.head_flops(3));
        // Two queries, three keys.
        let decoder = linear(1.0, 8.0, 8.0) + linear(2.0, 8.0, 10.0 * 8.0) + linear(3.0, 8.0, 16.0);
        assert_eq!(
            config.decoder_flops(0, 2),
            decoder + 2.0 * linear(2.0, 3.0, 8.0)
        );
        // One block prunes nothing: what it computes is what a step that reuses nothing computes, for one query.
        assert_eq!(
            config.lazy_decoder_flops(0, 3, 1),
            config.decoder_flops(0, 1)
        );
        // Per dimension: adaLN, the block, the logits; its keys being 1, 2 and 3.
        let adaln = 3.0 * linear(1.0, 8.0, 64.0);
        let dims = 3.0 * (linear(1.0, 8.0, 96.0) + linear(1.0, 8.0, 4.0));
        let attention: f64 = [1.0, 2.0, 3.0]
            .map(|keys| 2.0 * linear(1.0, keys, 8.0))
            .iter()
            .sum();
        let condition = linear(1.0, 8.0, 8.0);
        assert_eq!(config.head_flops(3), condition + adaln + dims + attention);
        // Computing them twice computes adaLN once.
        let twice = condition + adaln + 2.0 * (dims + attention);
        assert_eq!(config.head_flops(6), twice);
    }
}
