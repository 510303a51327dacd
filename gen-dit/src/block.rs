//! The transformer's block (DiT, figure 3, adaLN-Zero), its MLP or the experts in its place, and the last layer.
#![allow(non_snake_case)] // `adaLN_modulation`, a checkpoint's key

use crate::DitConfig;
use burn::module::Module;
use burn::nn::{Linear, activation::SiLU};
use burn::tensor::Tensor;
use tessera_attention2d::Tokens;
use tessera_backend::init::Init;
use tessera_backend::ops::{self, Activation};
use tessera_moe::{Moe, Trace};

/// Multi-head self-attention with one packed map to queries, keys and values.
#[derive(Module, Debug)]
pub struct Attention {
    qkv: Linear,
    proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    fn init(width: usize, heads: usize, init: &mut Init) -> Self {
        Self {
            qkv: init.linear(width, 3 * width),
            proj: init.linear(width, width),
            heads,
        }
    }

    /// Of the tokens that are here to all of them, wherever they are.
    ///
    /// # Shapes
    /// - x, output: `[batch, seq here, d_model]`
    pub fn forward(&self, x: Tensor<3>, tokens: Tokens<'_>) -> Tensor<3> {
        let [q, k, v] = ops::split_linear(x, &self.qkv)
            .map(|x| ops::split_heads(x, self.heads).swap_dims(1, 2));
        let y = ops::merge_heads(tokens.attention(q, k, v));
        ops::linear(y, &self.proj, Activation::None)
    }
}

/// Two linear maps with GELU (by tanh) between them.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn init(width: usize, hidden: usize, init: &mut Init) -> Self {
        Self {
            fc1: init.linear(width, hidden),
            fc2: init.linear(hidden, width),
        }
    }

    /// # Shapes
    /// - x, output: `[batch, seq, d_model]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let hidden = ops::linear(x, &self.fc1, Activation::GeluTanh);
        ops::linear(hidden, &self.fc2, Activation::None)
    }
}

/// A block: `x + gate · attn(modulate(x))`, then `x + gate · mlp(modulate(x))`.
#[derive(Module, Debug)]
pub struct DitBlock {
    attn: Attention,
    /// A dense block's.
    mlp: Option<Mlp>,
    /// Of a block with experts, in place of `mlp`.
    pub(crate) moe: Option<Moe>,
    adaLN_modulation: (SiLU, Linear),
}

impl DitBlock {
    pub(crate) fn init(config: &DitConfig, init: &mut Init) -> Self {
        let width = config.hidden_size;
        let hidden = config.mlp_ratio * width;
        let attn = Attention::init(width, config.num_heads, init);
        let moe = config.moe.as_ref();
        let moe = moe.map(|moe| Moe::init(moe, [width, hidden], Some(config.target_width()), init));
        Self {
            attn,
            mlp: moe.is_none().then(|| Mlp::init(width, hidden, init)),
            moe,
            adaLN_modulation: (SiLU, init.zero_linear(width, 6 * width)),
        }
    }

    /// # Shapes
    /// - x: `[batch, seq here, d_model]`
    /// - cond: `[batch, d_model]`, after SiLU, which all blocks share
    /// - output: `[batch, seq here, d_model]`
    pub fn forward(
        &self,
        x: Tensor<3>,
        cond: Tensor<2>,
        tokens: Tokens<'_>,
        trace: &mut Trace,
    ) -> Tensor<3> {
        let [_, seq, _] = x.dims();
        let [shift1, scale1, gate1, shift2, scale2, gate2] =
            ops::split_linear(cond, &self.adaLN_modulation.1)
                .map(|part| ops::repeat_rows(part, seq));
        let y = ops::modulate(x.clone(), None, shift1, scale1);
        let x = ops::gated_add(x, gate1, self.attn.forward(y, tokens));
        let y = ops::modulate(x.clone(), None, shift2, scale2);
        let y = match (&self.mlp, &self.moe) {
            (Some(mlp), _) => mlp.forward(y),
            (None, Some(moe)) => moe.forward(y, trace),
            (None, None) => unreachable!("a block has one or the other"),
        };
        ops::gated_add(x, gate2, y)
    }
}

/// To the values of each token.
#[derive(Module, Debug)]
pub struct FinalLayer {
    linear: Linear,
    adaLN_modulation: (SiLU, Linear),
}

impl FinalLayer {
    pub(crate) fn init(config: &DitConfig, init: &mut Init) -> Self {
        let (width, patch) = (config.hidden_size, config.patch_size);
        Self {
            linear: init.zero_linear(width, patch * patch * config.out_channels()),
            adaLN_modulation: (SiLU, init.zero_linear(width, 2 * width)),
        }
    }

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
