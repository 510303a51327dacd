//! The parameters, named as in DiT's released checkpoints, and the forward pass.

use crate::block::{DitBlock, FinalLayer};
use crate::embed::{FREQUENCIES, LabelEmbedder, PatchEmbed, TimestepEmbedder, position_table};
use crate::patch::unpatchify;
use crate::{DitConfig, Error, Result};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use tessera_attention2d::TokenSharding;
use tessera_backend::elements_of;
use tessera_backend::init::ParamInit;
use tessera_backend::ops::{self, Activation};
use tessera_moe::{MoeWidths, RouterTrace};

/// The diffusion transformer. Made by [`DitConfig::init`] or loaded (`checkpoint.rs`).
#[derive(Module, Debug)]
pub struct Dit {
    x_embedder: PatchEmbed,
    t_embedder: TimestepEmbedder,
    y_embedder: LabelEmbedder,
    /// Sines and cosines: a buffer of the checkpoint.
    pos_embed: Param<Tensor<3>>,
    pub(crate) blocks: Vec<DitBlock>,
    final_layer: FinalLayer,
    #[module(skip)]
    pub(crate) config: DitConfig,
    #[module(skip)]
    pub(crate) sequence: TokenSharding,
}

/// Numbers of parameters as counted in the paper: those of the blocks, without biases (Expert Race, tables 4 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// All parameters.
    pub total: u64,
    /// Those that a token uses on average, including the router.
    pub activated: u64,
}

impl DitConfig {
    /// A model with random weights, initialized as in DiT: every block starts as the identity, and the output is zero.
    ///
    /// # Panics
    /// On a config that [`validate`](Self::validate) refuses.
    pub fn init(&self, seed: u64, device: &Device) -> Dit {
        self.validate().expect("the config was validated");
        let init = &mut ParamInit::new(seed, device);
        let (width, grid) = (self.hidden_size, self.grid());
        Dit {
            x_embedder: PatchEmbed::init(self.in_channels, width, self.patch_size, init),
            t_embedder: TimestepEmbedder::init(width, init),
            y_embedder: LabelEmbedder::init(self.num_classes, width, init),
            pos_embed: init.buffer(&position_table(width, grid), [1, grid * grid, width]),
            blocks: (0..self.depth)
                .map(|_| DitBlock::init(self, init))
                .collect(),
            final_layer: FinalLayer::init(self, init),
            config: self.clone(),
            sequence: TokenSharding::Local,
        }
    }

    /// How many numbers the state dict has; `u64::MAX` where they are more. Needs no valid config.
    pub fn elements(&self) -> u64 {
        let (width, patch, experts) = (self.hidden_size, self.patch_size, self.moe.as_ref());
        let grid = self.input_size / patch.max(1);
        let hidden = self.mlp_ratio.saturating_mul(width);
        let values = self
            .in_channels
            .saturating_mul(if self.learn_sigma { 2 } else { 1 });
        let around = elements_of(&[
            &[width, self.in_channels, patch, patch],
            &[width],
            &[FREQUENCIES, width],
            &[width],
            &[width, width],
            &[width],
            &[self.num_classes, width],
            &[width],
            &[grid, grid, width],
            &[width, patch, patch, values],
            &[patch, patch, values],
            &[2, width, width],
            &[2, width],
        ]);
        let block = elements_of(&[&[10, width, width], &[10, width]]);
        let widths = MoeWidths {
            d_model: width,
            hidden,
            target: Some(patch.saturating_mul(patch).saturating_mul(self.in_channels)),
        };
        let mlp = match experts {
            Some(moe) => moe.elements(widths),
            None => elements_of(&[&[2, width, hidden], &[hidden], &[width]]),
        };
        let blocks = block.saturating_add(mlp).saturating_mul(self.depth as u64);
        around.saturating_add(blocks)
    }

    /// The config of [`Dit::without_targets`].
    pub fn without_targets(mut self) -> Self {
        if let Some(moe) = &mut self.moe {
            moe.target_weight = 0.0;
        }
        self
    }

    /// Counts parameters as the paper does: those of the matrix products in the blocks.
    pub fn parameters(&self) -> Parameters {
        let width = self.hidden_size as u64;
        let hidden = self.mlp_ratio as u64 * width;
        let around = 4 * width * width + 6 * width * width; // attention and adaLN
        let (mlp, activated) = match &self.moe {
            None => (2 * width * hidden, 2 * width * hidden),
            Some(moe) => {
                let router = width * width + width * moe.experts as u64;
                let expert = 2 * width * (hidden / moe.split as u64);
                let active = (moe.k * expert as f64).round() as u64;
                (router + moe.experts as u64 * expert, router + active)
            }
        };
        Parameters {
            total: self.depth as u64 * (around + mlp),
            activated: self.depth as u64 * (around + activated),
        }
    }
}

impl Dit {
    /// The config of the model.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// The device of its parameters.
    pub fn device(&self) -> Device {
        self.pos_embed.val().device()
    }

    /// The prediction for noisy latents: the noise and, with a learned sigma, an interpolation of its variance; or
    /// the velocity of a flow.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, input_size, input_size]`
    /// - times: one per image, in 0..1000
    /// - labels: one per image; `None` is no class
    /// - output: `[batch, out_channels, input_size, input_size]`
    pub fn forward(
        &self,
        x: Tensor<4>,
        times: &[f32],
        labels: &[Option<usize>],
        trace: &mut RouterTrace,
    ) -> Tensor<4> {
        let config = &self.config;
        let [batch, ..] = x.dims();
        assert_eq!(
            x.dims(),
            [
                batch,
                config.in_channels,
                config.input_size,
                config.input_size
            ]
        );
        assert_eq!([times.len(), labels.len()], [batch, batch]);
        let tokens = self.sequence.of(config.grid() * config.grid());
        let mut x = tokens.shard(self.x_embedder.forward(x) + self.pos_embed.val());
        let cond = self.t_embedder.forward(times) + self.y_embedder.forward(labels);
        let cond = ops::activation(cond, Activation::Silu);
        for block in &self.blocks {
            x = block.forward(x, cond.clone(), tokens, trace);
        }
        let x = tokens.gather(self.final_layer.forward(x, cond));
        unpatchify(x, config.patch_size)
    }

    /// The model with its tokens sharded over ranks as `sequence` says: a rank computes its share of the tokens,
    /// which attend to all tokens. All ranks call every method together, with the same arguments.
    ///
    /// # Errors
    /// [`Error::Ranks`] if results would depend on which tokens share a rank: with experts that race.
    pub fn on(self, sequence: TokenSharding) -> Result<Self> {
        let refused = |what| Err(Error::Ranks { what });
        match (&sequence, &self.config.moe) {
            (TokenSharding::Sharded(_), Some(_)) if self.device().is_autodiff() => {
                refused("experts, which race while they are trained")
            }
            (TokenSharding::Sharded(_), Some(moe)) if !moe.threshold => {
                refused("experts without a threshold")
            }
            _ => Ok(Self { sequence, ..self }),
        }
    }

    /// The thresholds of the blocks that have one; reads the device.
    pub fn thresholds(&self) -> Vec<f32> {
        let moes = self.blocks.iter().filter_map(|block| block.moe.as_ref());
        moes.filter(|moe| moe.config().threshold)
            .map(tessera_moe::Moe::threshold)
            .collect()
    }

    /// The model without the target heads, which only training needs.
    pub fn without_targets(mut self) -> Self {
        for block in &mut self.blocks {
            block.moe = block.moe.take().map(tessera_moe::Moe::without_target);
        }
        self.config = self.config.without_targets();
        self
    }
}
