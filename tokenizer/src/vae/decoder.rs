//! The decoder: attention in the middle, then up the resolution levels.

use super::attention::AttnBlock;
use super::config::KlVaeConfig;
use super::encoder::{Mid, blocks};
use super::init::VaeInit;
use super::resnet::{ResnetBlock, SAME};
use super::sampling::Upsample;
use burn::module::Module;
use burn::tensor::Tensor;
use tessera_backend::nn::{Conv2d, GroupNorm};
use tessera_backend::ops::{Activation, conv2d, group_norm};

/// Latents (after the `post_quant_conv`) to images.
#[derive(Module, Debug)]
pub struct Decoder {
    conv_in: Conv2d,
    mid: Mid,
    up: Vec<DecoderLevel>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// One resolution: residual blocks, attention after each or none, and the way up but at the full resolution.
#[derive(Module, Debug)]
pub struct DecoderLevel {
    block: Vec<ResnetBlock>,
    attn: Vec<AttnBlock>,
    upsample: Option<Upsample>,
}

impl Decoder {
    pub(super) fn new(config: &KlVaeConfig, init: &mut VaeInit) -> Self {
        let widths = config.widths();
        let lowest = widths[widths.len() - 1];
        let conv_in = init.conv(config.z_channels, lowest, 3, 1);
        let mid = Mid::new(lowest, init);
        let up = (0..config.levels())
            .map(|level| {
                let from = widths.get(level + 1).copied().unwrap_or(lowest);
                DecoderLevel::new(config, level, from, widths[level], init)
            })
            .collect();
        let norm_out = init.norm(widths[0]);
        let conv_out = init.conv(widths[0], config.out_ch, 3, 1);
        Self {
            conv_in,
            mid,
            up,
            norm_out,
            conv_out,
        }
    }

    /// # Shapes
    /// - `latents`: `[batch, z_channels, height, width]`
    /// - returns `[batch, out_ch, height * downsampling, width * downsampling]`
    pub fn forward(&self, latents: Tensor<4>) -> Tensor<4> {
        let h = conv2d(latents, &self.conv_in, SAME);
        let h = self.mid.forward(h);
        // `up[0]` is the full resolution, as in the checkpoints.
        let h = self.up.iter().rev().fold(h, |h, level| level.forward(h));
        let h = group_norm(h, &self.norm_out, Activation::Silu);
        conv2d(h, &self.conv_out, SAME)
    }
}

impl DecoderLevel {
    fn new(
        config: &KlVaeConfig,
        level: usize,
        from: usize,
        width: usize,
        init: &mut VaeInit,
    ) -> Self {
        let blocks = config.num_res_blocks + 1;
        let attends = config.attends(&config.decoder_attn_resolutions, level);
        Self {
            block: (0..blocks)
                .map(|i| ResnetBlock::new(if i == 0 { from } else { width }, width, init))
                .collect(),
            attn: (0..blocks)
                .filter(|_| attends)
                .map(|_| AttnBlock::new(width, init))
                .collect(),
            upsample: (level > 0).then(|| Upsample::new(width, init)),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, from, height, width]`
    /// - returns `[batch, width, 2 height, 2 width]`, at the full resolution `[batch, width, height, width]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = blocks(&self.block, &self.attn, x);
        match &self.upsample {
            Some(upsample) => upsample.forward(h),
            None => h,
        }
    }
}
