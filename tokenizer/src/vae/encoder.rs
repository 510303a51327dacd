//! The encoder: down the resolution levels, then attention in the middle.

use super::attention::AttnBlock;
use super::config::KlVaeConfig;
use super::init::VaeInit;
use super::resnet::{ResnetBlock, SAME};
use super::sampling::Downsample;
use burn::module::Module;
use burn::tensor::Tensor;
use tessera_backend::nn::{Conv2d, GroupNorm};
use tessera_backend::ops::{Activation, conv2d, group_norm};

/// Images to the moments of their latents (before the `quant_conv`).
#[derive(Module, Debug)]
pub struct Encoder {
    conv_in: Conv2d,
    down: Vec<EncoderLevel>,
    mid: Mid,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// One resolution: residual blocks, attention after each or none, and the way down but at the lowest.
#[derive(Module, Debug)]
pub struct EncoderLevel {
    block: Vec<ResnetBlock>,
    attn: Vec<AttnBlock>,
    downsample: Option<Downsample>,
}

/// The middle of either half: a residual block, attention, a residual block.
#[derive(Module, Debug)]
pub struct Mid {
    block_1: ResnetBlock,
    attn_1: AttnBlock,
    block_2: ResnetBlock,
}

impl Encoder {
    pub(super) fn new(config: &KlVaeConfig, init: &mut VaeInit) -> Self {
        let widths = config.widths();
        let lowest = widths[widths.len() - 1];
        let conv_in = init.conv(config.in_channels, config.ch, 3, 1);
        let down = (0..config.levels())
            .map(|level| {
                // The first convolution leaves the base width, whatever the first level's multiplier.
                let from = if level == 0 {
                    config.ch
                } else {
                    widths[level - 1]
                };
                EncoderLevel::new(config, level, from, widths[level], init)
            })
            .collect();
        Self {
            conv_in,
            down,
            mid: Mid::new(lowest, init),
            norm_out: init.norm(lowest),
            conv_out: init.conv(lowest, 2 * config.z_channels, 3, 1),
        }
    }

    /// # Shapes
    /// - `images`: `[batch, in_channels, height, width]`
    /// - returns `[batch, 2 z_channels, height / downsampling, width / downsampling]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let h = conv2d(images, &self.conv_in, SAME);
        let h = self.down.iter().fold(h, |h, level| level.forward(h));
        let h = self.mid.forward(h);
        let h = group_norm(h, &self.norm_out, Activation::Silu);
        conv2d(h, &self.conv_out, SAME)
    }
}

impl EncoderLevel {
    fn new(
        config: &KlVaeConfig,
        level: usize,
        from: usize,
        width: usize,
        init: &mut VaeInit,
    ) -> Self {
        let blocks = config.num_res_blocks;
        let attends = config.attends(&config.attn_resolutions, level);
        Self {
            block: (0..blocks)
                .map(|i| ResnetBlock::new(if i == 0 { from } else { width }, width, init))
                .collect(),
            attn: (0..blocks)
                .filter(|_| attends)
                .map(|_| AttnBlock::new(width, init))
                .collect(),
            downsample: (level + 1 < config.levels()).then(|| Downsample::new(width, init)),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, from, height, width]`
    /// - returns `[batch, width, height / 2, width / 2]`, at the lowest level `[batch, width, height, width]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = blocks(&self.block, &self.attn, x);
        match &self.downsample {
            Some(downsample) => downsample.forward(h),
            None => h,
        }
    }
}

impl Mid {
    pub(super) fn new(channels: usize, init: &mut VaeInit) -> Self {
        Self {
            block_1: ResnetBlock::new(channels, channels, init),
            attn_1: AttnBlock::new(channels, init),
            block_2: ResnetBlock::new(channels, channels, init),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`
    /// - returns `[batch, channels, height, width]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.block_1.forward(x);
        let h = self.attn_1.forward(h);
        self.block_2.forward(h)
    }
}

/// The residual blocks of one level, each followed by its attention where the level has any.
pub(super) fn blocks(block: &[ResnetBlock], attn: &[AttnBlock], x: Tensor<4>) -> Tensor<4> {
    block.iter().enumerate().fold(x, |h, (i, block)| {
        let h = block.forward(h);
        match attn.get(i) {
            Some(attn) => attn.forward(h),
            None => h,
        }
    })
}
