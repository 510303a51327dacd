//! The transformer's block (DiT, figure 3, adaLN-Zero), dense or with experts in place of the MLP, and the final layer.
#![allow(non_snake_case)] // `adaLN_modulation`, a checkpoint's key

use crate::DitConfig;
use burn::module::Module;
use burn::tensor::Tensor;
use tessera_attention2d::Tokens;
use tessera_backend::init::ParamInit;
use tessera_backend::nn::{Linear, Silu};
use tessera_backend::ops::{self, Activation};
use tessera_backend::transformer::{Attention, Mlp};
use tessera_moe::{Moe, MoeWidths, RouterTrace};

/// A block: `x + gate · attn(modulate(x))`, then `x + gate · mlp(modulate(x))`.
#[derive(Module, Debug)]
pub struct DitBlock {
    attn: Attention,
    /// Present in a dense block.
    mlp: Option<Mlp>,
    /// Present in a block with experts, in place of `mlp`.
    pub(crate) moe: Option<Moe>,
    adaLN_modulation: (Silu, Linear),
}

impl DitBlock {
    pub(crate) fn init(config: &DitConfig, init: &mut ParamInit) -> Self {
        let width = config.hidden_size;
        let hidden = config.mlp_ratio * width;
        let attn = Attention::init(width, config.num_heads, init);
        let widths = MoeWidths {
            d_model: width,
            hidden,
            target: Some(config.target_width()),
        };
        let moe = config.moe.as_ref();
        let moe = moe.map(|moe| Moe::init(moe, widths, init));
        Self {
            attn,
            mlp: match moe {
                Some(_) => None,
                None => Some(Mlp::init(width, hidden, Activation::GeluTanh, init)),
            },
            moe,
            adaLN_modulation: (Silu, init.zero_linear(width, 6 * width)),
        }
    }

    /// The tokens of this rank, which attend to the tokens of all ranks.
    ///
    /// # Shapes
    /// - x: `[batch, seq here, d_model]`
    /// - cond: `[batch, d_model]`, after SiLU, which is applied once for all blocks
    /// - output: `[batch, seq here, d_model]`
    pub fn forward(
        &self,
        x: Tensor<3>,
        cond: Tensor<2>,
        tokens: Tokens<'_>,
        trace: &mut RouterTrace,
    ) -> Tensor<3> {
        let [_, seq, _] = x.dims();
        let [shift1, scale1, gate1, shift2, scale2, gate2] =
            ops::split_linear(cond, &self.adaLN_modulation.1)
                .map(|part| ops::repeat_rows(part, seq));
        let y = ops::modulate(x.clone(), None, shift1, scale1);
        let [q, k, v] = self.attn.project(y);
        let y = self.attn.in_precision(|| tokens.attention(q, k, v));
        let y = self.attn.merge(y);
        let x = ops::gated_add(x, gate1, y);
        let y = ops::modulate(x.clone(), None, shift2, scale2);
        let y = match (&self.mlp, &self.moe) {
            (Some(mlp), _) => mlp.forward(y),
            (None, Some(moe)) => moe.forward(y, trace),
            (None, None) => unreachable!("a block has one or the other"),
        };
        ops::gated_add(x, gate2, y)
    }
}

/// The final layer: from features to the output values of each token.
#[derive(Module, Debug)]
pub struct FinalLayer {
    linear: Linear,
    adaLN_modulation: (Silu, Linear),
}

impl FinalLayer {
    pub(crate) fn init(config: &DitConfig, init: &mut ParamInit) -> Self {
        let (width, patch) = (config.hidden_size, config.patch_size);
        Self {
            linear: init.zero_linear(width, patch * patch * config.out_channels()),
            adaLN_modulation: (Silu, init.zero_linear(width, 2 * width)),
        }
    }

    /// `linear(modulate(x))`.
    ///
    /// # Shapes
    /// - x: `[batch, seq, d_model]`
    /// - cond: `[batch, d_model]`, after SiLU
    /// - output: `[batch, seq, patch · patch · out_channels]`
    pub fn forward(&self, x: Tensor<3>, cond: Tensor<2>) -> Tensor<3> {
        let [_, seq, _] = x.dims();
        let [shift, scale] = ops::split_linear(cond, &self.adaLN_modulation.1)
            .map(|part| ops::repeat_rows(part, seq));
        let y = ops::modulate(x, None, shift, scale);
        ops::linear(y, &self.linear, Activation::None)
    }
}
