//! The two transformer blocks: plain pre-norm (backbone) and adaLN-modulated (head).
#![allow(non_snake_case)] // `adaLN_modulation`, a checkpoint's key

use crate::attention::{Attention, CausalAttention, KvCache, NORM_EPS};
use crate::config::Tower;
use crate::dropout::Dropout;
use crate::pass::Pass;
use burn::module::Module;
use burn::nn::{Linear, activation::SiLU};
use burn::tensor::{Device, Int, Tensor};
use tessera_attention2d::Tokens;
use tessera_backend::init::Init;
use tessera_backend::nn::LayerNorm;
use tessera_backend::ops::{self, Activation};
use tessera_moe::{Moe, MoeConfig};

/// Two linear maps with GELU between them.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn init(d_model: usize, ratio: usize, init: &mut Init) -> Self {
        Self {
            fc1: init.linear(d_model, ratio * d_model),
            fc2: init.linear(ratio * d_model, d_model),
        }
    }

    fn forward<const D: usize>(&self, x: Tensor<D>, dropout: &mut Dropout<'_>) -> Tensor<D> {
        let hidden = dropout.proj(ops::linear(x, &self.fc1, Activation::Gelu));
        dropout.proj(ops::linear(hidden, &self.fc2, Activation::None))
    }
}

/// A block of the backbone: `x + attn(norm1(x))`, then `x + mlp(norm2(x))`, or experts in place of the MLP.
#[derive(Module, Debug)]
pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    /// A dense block's.
    mlp: Option<Mlp>,
    /// Of a block with experts, in place of `mlp`.
    pub(crate) moe: Option<Moe>,
}

impl Block {
    /// A dense block by itself, as `tower` has them, with weights drawn from `seed`.
    pub fn new(tower: Tower, mlp_ratio: usize, seed: u64, device: &Device) -> Self {
        Self::init(tower, mlp_ratio, None, &mut Init::new(seed, device))
    }

    pub(crate) fn init(
        tower: Tower,
        mlp_ratio: usize,
        moe: Option<&MoeConfig>,
        init: &mut Init,
    ) -> Self {
        let Tower { width, heads, .. } = tower;
        let sizes = [width, mlp_ratio * width];
        let norm1 = LayerNorm::new(width, NORM_EPS, init.device());
        let attn = Attention::init(width, heads, init);
        // No target head: this model is trained towards no values of its tokens, which a layer could guess.
        let moe = moe.map(|moe| Moe::init(moe, sizes, None, init));
        Self {
            norm1,
            attn,
            norm2: LayerNorm::new(width, NORM_EPS, init.device()),
            mlp: moe.is_none().then(|| Mlp::init(width, mlp_ratio, init)),
            moe,
        }
    }

    /// # Shapes
    /// - x: `[batch, seq here, d_model]`
    /// - output: `[batch, seq here, d_model]`
    pub fn forward(&self, x: Tensor<3>, tokens: Tokens<'_>, pass: &mut Pass<'_>) -> Tensor<3> {
        let y = ops::layer_norm(x.clone(), &self.norm1);
        let x = ops::residual(x, self.attn.forward(y, tokens, &mut pass.dropout));
        self.feed_forward(x, pass)
    }

    /// Some rows of [`forward`](Self::forward) alone, at their cost: the last block of a stack need not compute what
    /// nobody reads; of sequences that are here as a whole. Experts race for these rows alone, in training as at inference; a config without threshold hence
    /// routes a row of an image by the other rows asked for.
    ///
    /// # Shapes
    /// - x: `[batch, seq, d_model]`
    /// - rows: `[batch * wanted]`, numbers of rows of `[batch * seq, d_model]`, as many in each of the batch
    /// - output: `[batch, wanted, d_model]`
    pub fn forward_rows(
        &self,
        x: Tensor<3>,
        rows: Tensor<1, Int>,
        pass: &mut Pass<'_>,
    ) -> Tensor<3> {
        let ([batch, seq, width], [total]) = (x.dims(), rows.dims());
        let kept = x.clone().reshape([batch * seq, width]).select(0, rows);
        let kept = kept.reshape([batch, total / batch, width]);
        let queries = ops::layer_norm(kept.clone(), &self.norm1);
        let all = ops::layer_norm(x, &self.norm1);
        let seen = self.attn.forward_rows(queries, all, &mut pass.dropout);
        let x = ops::residual(kept, seen);
        self.feed_forward(x, pass)
    }

    /// The second branch, with its residual.
    fn feed_forward(&self, x: Tensor<3>, pass: &mut Pass<'_>) -> Tensor<3> {
        let y = ops::layer_norm(x.clone(), &self.norm2);
        let y = match (&self.mlp, &self.moe) {
            (Some(mlp), _) => mlp.forward(y, &mut pass.dropout),
            // The hidden features of experts, which exist for routed tokens alone, are not dropped.
            (None, Some(moe)) => pass.dropout.proj(moe.forward(y, &mut pass.trace)),
            (None, None) => unreachable!("a block has one or the other"),
        };
        ops::residual(x, y)
    }
}

/// What adaLN makes of the condition for one block: shift, scale and gate of the attention, then of the MLP.
pub(crate) type Modulation<const D: usize> = [Tensor<D>; 6];

/// A block of the head: as [`Block`], each branch shifted, scaled and gated by the condition.
#[derive(Module, Debug)]
pub struct ChannelBlock {
    norm1: LayerNorm,
    attn: CausalAttention,
    norm2: LayerNorm,
    mlp: Mlp,
    adaLN_modulation: (SiLU, Linear),
}

impl ChannelBlock {
    pub(crate) fn init(tower: Tower, mlp_ratio: usize, init: &mut Init) -> Self {
        let Tower { width, heads, .. } = tower;
        Self {
            norm1: LayerNorm::new(width, NORM_EPS, init.device()),
            attn: CausalAttention::init(width, heads, init),
            norm2: LayerNorm::new(width, NORM_EPS, init.device()),
            mlp: Mlp::init(width, mlp_ratio, init),
            adaLN_modulation: (SiLU, init.zero_linear(width, 6 * width)),
        }
    }

    /// The block's modulation; `cond` has been through SiLU, which all blocks share.
    ///
    /// # Shapes
    /// - cond: `[.., d_model]`
    /// - output: six of `[.., d_model]`
    pub(crate) fn modulation<const D: usize>(&self, cond: Tensor<D>) -> Modulation<D> {
        ops::split_linear(cond, &self.adaLN_modulation.1)
    }

    /// All dimensions at once.
    ///
    /// # Shapes
    /// - x, each of modulation, output: `[tokens, dims, d_model]`
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        modulation: Modulation<3>,
        dropout: &mut Dropout<'_>,
    ) -> Tensor<3> {
        self.gated(x, modulation, dropout, |y, dropout| {
            self.attn.forward(y, dropout)
        })
    }

    /// The next dimension alone.
    ///
    /// # Shapes
    /// - x, each of modulation, output: `[tokens, d_model]`
    pub(crate) fn step(
        &self,
        x: Tensor<2>,
        modulation: Modulation<2>,
        cache: &mut KvCache,
    ) -> Tensor<2> {
        self.gated(x, modulation, &mut Dropout::off(), |y, _| {
            self.attn.step(y, cache)
        })
    }

    fn gated<'a, const D: usize>(
        &self,
        x: Tensor<D>,
        [shift1, scale1, gate1, shift2, scale2, gate2]: Modulation<D>,
        dropout: &mut Dropout<'a>,
        attn: impl FnOnce(Tensor<D>, &mut Dropout<'a>) -> Tensor<D>,
    ) -> Tensor<D> {
        let y = ops::modulate(x.clone(), Some(&self.norm1), shift1, scale1);
        let x = ops::gated_add(x, gate1, attn(y, dropout));
        let y = ops::modulate(x.clone(), Some(&self.norm2), shift2, scale2);
        ops::gated_add(x, gate2, self.mlp.forward(y, dropout))
    }
}
