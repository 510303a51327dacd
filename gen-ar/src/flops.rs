//! The cost of the generator in arithmetic operations, by stage.

use crate::config::{GenArConfig, TransformerConfig};
use crate::request::{ImageRequest, SampleConfig};
use crate::schedule::schedule;
use crate::stages::StageBreakdown;
use std::collections::HashSet;

impl GenArConfig {
    /// The arithmetic operations of the matrix products in [`GenAr::generate`](crate::GenAr::generate) for these
    /// images. A multiplication and an addition count as two; tokens have the mean number of experts.
    pub fn flops(&self, requests: &[ImageRequest], config: &SampleConfig) -> StageBreakdown<f64> {
        let (seq, images) = (self.seq(), requests.len());
        let branches = if config.guides() { 2 } else { 1 };
        let mut classes: HashSet<_> = requests.iter().map(|request| request.class).collect();
        classes.extend((branches == 2).then_some(None));
        let mut sum = StageBreakdown::default();
        for step in schedule(seq, config.steps) {
            let (visible, wanted) = (seq - step.masked, step.predicted);
            let encoded = match visible {
                0 => classes.len(),
                _ => branches * images,
            };
            sum += StageBreakdown {
                encoder: encoded as f64 * self.encoder_flops(visible),
                decoder: (branches * images) as f64 * self.decoder_flops(visible, wanted),
                head: (images * wanted) as f64 * self.head_flops(),
            };
        }
        sum
    }

    /// The encoder, for one image with `visible` tokens.
    fn encoder_flops(&self, visible: usize) -> f64 {
        let rows = self.buffer_size + visible;
        let tokens = product(visible, self.token_embed_dim, self.enc.width);
        tokens + self.enc.depth as f64 * self.backbone_flops(self.enc, rows, rows)
    }

    /// The decoder, for one image; its last block computes only the `wanted` rows.
    fn decoder_flops(&self, visible: usize, wanted: usize) -> f64 {
        let (short, rows) = (self.buffer_size + visible, self.buffer_size + self.seq());
        product(short, self.enc.width, self.dec.width)
            + (self.dec.depth - 1) as f64 * self.backbone_flops(self.dec, rows, rows)
            + self.backbone_flops(self.dec, wanted, rows)
    }

    /// The head, for one token.
    fn head_flops(&self) -> f64 {
        let (steps, ch) = (self.head_steps(), self.ch);
        let modulation = (6 * ch.depth + 2) as f64 * product(1, ch.width, ch.width);
        let blocks =
            (1..=steps).map(|keys| self.block_flops(ch, 1, keys) - self.keys_flops(ch, keys - 1));
        product(1, self.dec.width, ch.width)
            + steps as f64 * modulation
            + product(1, ch.width, self.levels_before(self.token_embed_dim))
            + ch.depth as f64 * blocks.sum::<f64>()
    }

    /// A block of the backbone that computes `rows` rows from `keys` keys.
    fn backbone_flops(&self, size: TransformerConfig, rows: usize, keys: usize) -> f64 {
        let dense = self.block_flops(size, rows, keys);
        let Some(moe) = &self.moe else { return dense };
        let router = product(rows, size.width, size.width + moe.experts);
        let share = moe.k / moe.split as f64 - 1.0;
        let mlp = 2.0 * product(rows, size.width, self.mlp_ratio * size.width);
        dense + share * mlp + router
    }

    /// A dense block that computes `rows` rows from `keys` keys.
    fn block_flops(&self, size: TransformerConfig, rows: usize, keys: usize) -> f64 {
        let square = product(1, size.width, size.width);
        let attention = 2.0 * product(rows, keys, size.width);
        (2 + 2 * self.mlp_ratio) as f64 * rows as f64 * square
            + self.keys_flops(size, keys)
            + attention
    }

    /// The projections of keys and values alone.
    fn keys_flops(&self, size: TransformerConfig, keys: usize) -> f64 {
        2.0 * product(keys, size.width, size.width)
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
        let request = ImageRequest {
            class: Some(0),
            seed: 0,
        };
        let sampling = SampleConfig {
            steps: 1,
            cfg_scale: 1.0,
            ..SampleConfig::default()
        };
        let parts = config.flops(&[request], &sampling);
        let linear = |rows: f64, inputs: f64, outputs: f64| 2.0 * rows * inputs * outputs;
        // One row: qkv, proj, both maps of the MLP, and one key.
        let encoder = linear(1.0, 8.0, 12.0 * 8.0) + 2.0 * linear(1.0, 1.0, 8.0);
        assert_eq!(parts.encoder, encoder);
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
        let routed = experts.flops(&[request], &sampling);
        assert_eq!(routed.encoder, encoder + more);
        assert_eq!(routed.head, parts.head);
        // Two queries, three keys.
        let decoder = linear(1.0, 8.0, 8.0) + linear(2.0, 8.0, 10.0 * 8.0) + linear(3.0, 8.0, 16.0);
        assert_eq!(parts.decoder, decoder + 2.0 * linear(2.0, 3.0, 8.0));
        // Per dimension: adaLN, the block, the logits; its keys being 1, 2 and 3.
        let dims = 3.0 * (linear(1.0, 8.0, 64.0) + linear(1.0, 8.0, 96.0) + linear(1.0, 8.0, 4.0));
        let attention: f64 = [1.0, 2.0, 3.0]
            .map(|keys| 2.0 * linear(1.0, keys, 8.0))
            .iter()
            .sum();
        assert_eq!(parts.head, 2.0 * (linear(1.0, 8.0, 8.0) + dims + attention));
    }
}
