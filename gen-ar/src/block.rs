//! The two transformer blocks: plain pre-norm (backbone) and adaLN-modulated (head).
#![allow(non_snake_case)] // `adaLN_modulation`, a checkpoint's key

use crate::attention::{CausalAttention, KvCache, NORM_EPS, attend};
use crate::config::TransformerConfig;
use crate::context::ForwardContext;
use crate::dropout::Dropout;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use tessera_attention2d::{TokenSharding, Tokens};
use tessera_backend::init::ParamInit;
use tessera_backend::nn::{LayerNorm, Linear, Silu};
use tessera_backend::ops::{self, Activation};
use tessera_backend::transformer::{Attention, Mlp};
use tessera_moe::{Moe, MoeConfig, MoeWidths};

/// Where the keys and values of rows go in a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    /// `[images * rows]`
    pub rows: &'a Tensor<1, Int>,
    /// Places of each image up to the last that is filled.
    pub filled: usize,
}

/// A block of the backbone: `x + attn(norm1(x))`, then `x + mlp(norm2(x))`, with experts in place of the MLP if
/// configured.
#[derive(Module, Debug)]
pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    /// Present in a dense block.
    mlp: Option<Mlp>,
    /// Present in a block with experts, in place of `mlp`.
    pub(crate) moe: Option<Moe>,
}

impl Block {
    /// A dense block by itself, with weights drawn from `seed`.
    pub fn new(config: TransformerConfig, mlp_ratio: usize, seed: u64, device: &Device) -> Self {
        Self::init(config, mlp_ratio, None, &mut ParamInit::new(seed, device))
    }

    pub(crate) fn init(
        config: TransformerConfig,
        mlp_ratio: usize,
        moe: Option<&MoeConfig>,
        init: &mut ParamInit,
    ) -> Self {
        let TransformerConfig { width, heads, .. } = config;
        let hidden = mlp_ratio * width;
        let norm1 = LayerNorm::new(width, NORM_EPS, init.device());
        let attn = Attention::init(width, heads, init);
        let widths = MoeWidths {
            d_model: width,
            hidden,
            target: None, // the training targets are indices, not values that a layer could predict
        };
        let moe = moe.map(|moe| Moe::init(moe, widths, init));
        Self {
            norm1,
            attn,
            norm2: LayerNorm::new(width, NORM_EPS, init.device()),
            mlp: match moe {
                Some(_) => None,
                None => Some(Mlp::init(width, hidden, Activation::Gelu, init)),
            },
            moe,
        }
    }

    /// The tokens of this rank, which attend to the tokens of all ranks.
    ///
    /// # Shapes
    /// - x: `[batch, seq here, d_model]`
    /// - output: `[batch, seq here, d_model]`
    pub fn forward(
        &self,
        x: Tensor<3>,
        tokens: Tokens<'_>,
        context: &mut ForwardContext<'_>,
    ) -> Tensor<3> {
        let qkv = self.attn.project(ops::layer_norm(x.clone(), &self.norm1));
        context.keep(tokens, [&qkv[1], &qkv[2]]);
        let y = self.attention_output(qkv, tokens, &mut context.dropout);
        self.feed_forward(ops::residual(x, y), context)
    }

    /// Some rows of [`forward`](Self::forward), at their cost alone: the last block of a stack need not compute rows
    /// that nobody reads. All tokens must be on this rank. Experts are routed for these rows alone; with a config
    /// without threshold, a row's routes hence depend on the other rows of its image that are asked for.
    ///
    /// # Shapes
    /// - x: `[batch, seq, d_model]`
    /// - rows: `[batch * wanted]`, indices into `[batch * seq, d_model]`, equally many for each image
    /// - output: `[batch, wanted, d_model]`
    pub fn forward_rows(
        &self,
        x: Tensor<3>,
        rows: Tensor<1, Int>,
        context: &mut ForwardContext<'_>,
    ) -> Tensor<3> {
        let tokens = TokenSharding::Local.of(x.dims()[1]);
        let (wanted, qkv) = self.project_rows(x, rows);
        context.keep(tokens, [&qkv[1], &qkv[2]]);
        let y = self.attention_output(qkv, tokens, &mut context.dropout);
        self.feed_forward(ops::residual(wanted, y), context)
    }

    /// Some rows, `[batch, wanted, d_model]`, and their queries beside the keys and values of all.
    fn project_rows(&self, x: Tensor<3>, rows: Tensor<1, Int>) -> (Tensor<3>, [Tensor<4>; 3]) {
        let wanted = select_rows(x.clone(), rows);
        let queries = ops::layer_norm(wanted.clone(), &self.norm1);
        let all = ops::layer_norm(x, &self.norm1);
        (wanted, self.attn.project_queries(queries, all))
    }

    /// [`forward`](Self::forward) of rows whose keys and values go to their places of `cache`, among those of the rows
    /// that are not computed again.
    ///
    /// # Shapes
    /// - x: `[images, rows, d_model]`
    /// - output: `[images, rows, d_model]`
    pub(crate) fn forward_among(
        &self,
        x: Tensor<3>,
        cache: &mut KvCache,
        places: &Places<'_>,
        context: &mut ForwardContext<'_>,
    ) -> Tensor<3> {
        let qkv = self.attn.project(ops::layer_norm(x.clone(), &self.norm1));
        let y = self.attend_among(qkv, cache, places);
        self.feed_forward(ops::residual(x, y), context)
    }

    /// [`forward_among`](Self::forward_among) for some of the rows, as [`forward_rows`](Self::forward_rows).
    ///
    /// # Shapes
    /// - x: `[images, rows, d_model]`
    /// - wanted: `[images * wanted]`, indices into `[images * rows, d_model]`
    /// - output: `[images, wanted, d_model]`
    pub(crate) fn forward_rows_among(
        &self,
        x: Tensor<3>,
        wanted: Tensor<1, Int>,
        cache: &mut KvCache,
        places: &Places<'_>,
        context: &mut ForwardContext<'_>,
    ) -> Tensor<3> {
        let (wanted, qkv) = self.project_rows(x, wanted);
        let y = self.attend_among(qkv, cache, places);
        self.feed_forward(ops::residual(wanted, y), context)
    }

    /// A block that prunes rows: the attention of all, and the second branch of those that `choose` keeps, given the
    /// similarity of each row's value to the one in `cache`, the mean over the heads of their cosine.
    ///
    /// # Shapes
    /// - x: `[images, rows, d_model]`
    /// - similarities: `[images, rows]`; chosen rows: `[images * kept]`, indices into `[images * rows, d_model]`
    /// - output: `[images, kept, d_model]`
    pub(crate) fn forward_pruned(
        &self,
        x: Tensor<3>,
        cache: &mut KvCache,
        context: &mut ForwardContext<'_>,
        places: &Places<'_>,
        choose: impl FnOnce(Tensor<2>) -> Tensor<1, Int>,
    ) -> Tensor<3> {
        let qkv = self.attn.project(ops::layer_norm(x.clone(), &self.norm1));
        let kept = choose(cache.similarity(&qkv[2]));
        let y = self.attend_among(qkv, cache, places);
        let x = ops::residual(x, y);
        self.feed_forward(select_rows(x, kept), context)
    }

    /// The first branch, `[images, queries, d_model]`: queries attend to all that is in `cache`, which takes keys and
    /// values first.
    fn attend_among(
        &self,
        [q, k, v]: [Tensor<4>; 3],
        cache: &mut KvCache,
        places: &Places<'_>,
    ) -> Tensor<3> {
        cache.put(places.rows, [&k, &v]);
        let [k, v] = cache.filled(places.filled);
        let tokens = TokenSharding::Local.of(places.filled);
        self.attention_output([q, k, v], tokens, &mut Dropout::off())
    }

    /// The first branch, `[batch, queries, d_model]`, from its queries, keys and values.
    fn attention_output(
        &self,
        qkv: [Tensor<4>; 3],
        tokens: Tokens<'_>,
        dropout: &mut Dropout<'_>,
    ) -> Tensor<3> {
        let y = self.attn.in_precision(|| attend(qkv, tokens, dropout));
        dropout.proj(self.attn.merge(y))
    }

    /// The second branch, with its residual.
    fn feed_forward(&self, x: Tensor<3>, context: &mut ForwardContext<'_>) -> Tensor<3> {
        let y = ops::layer_norm(x.clone(), &self.norm2);
        let y = match (&self.mlp, &self.moe) {
            (Some(mlp), _) => mlp_with_dropout(mlp, y, &mut context.dropout),
            // No dropout of the experts' hidden features, which exist only for routed tokens.
            (None, Some(moe)) => context.dropout.proj(moe.forward(y, &mut context.trace)),
            (None, None) => unreachable!("a block has one or the other"),
        };
        ops::residual(x, y)
    }
}

/// Rows of `[batch * seq, d_model]`, equally many for each image: `[batch, rows, d_model]`.
pub(crate) fn select_rows(x: Tensor<3>, rows: Tensor<1, Int>) -> Tensor<3> {
    let ([batch, seq, width], [total]) = (x.dims(), rows.dims());
    let rows = x.reshape([batch * seq, width]).select(0, rows); // [batch * rows, d_model]
    rows.reshape([batch, total / batch, width]) // [batch, rows, d_model]
}

/// `[.., d_model]` to the same, with dropout after each map.
fn mlp_with_dropout<const D: usize>(
    mlp: &Mlp,
    x: Tensor<D>,
    dropout: &mut Dropout<'_>,
) -> Tensor<D> {
    let hidden = dropout.proj(mlp.hidden(x));
    dropout.proj(mlp.output(hidden))
}

/// The adaLN parameters of one block: shift, scale and gate of the attention, then of the MLP.
pub(crate) type Modulation<const D: usize> = [Tensor<D>; 6];

/// A block of the head: as [`Block`], with each branch shifted, scaled and gated by the condition (adaLN-Zero).
#[derive(Module, Debug)]
pub struct ChannelBlock {
    norm1: LayerNorm,
    attn: CausalAttention,
    norm2: LayerNorm,
    mlp: Mlp,
    adaLN_modulation: (Silu, Linear),
}

impl ChannelBlock {
    pub(crate) fn init(config: TransformerConfig, mlp_ratio: usize, init: &mut ParamInit) -> Self {
        let TransformerConfig { width, heads, .. } = config;
        Self {
            norm1: LayerNorm::new(width, NORM_EPS, init.device()),
            attn: CausalAttention::init(width, heads, init),
            norm2: LayerNorm::new(width, NORM_EPS, init.device()),
            mlp: Mlp::init(width, mlp_ratio * width, Activation::Gelu, init),
            adaLN_modulation: (Silu, init.zero_linear(width, 6 * width)),
        }
    }

    /// The block's modulation. SiLU has been applied to `cond` already, once for all blocks.
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

    /// Some steps, as [`CausalAttention::steps`].
    ///
    /// # Shapes
    /// - x, each of modulation, output: `[steps, tokens, d_model]`
    pub(crate) fn steps(
        &self,
        x: Tensor<3>,
        modulation: Modulation<3>,
        cache: &mut KvCache,
        places: &Tensor<1, Int>,
        filled: usize,
    ) -> Tensor<3> {
        self.gated(x, modulation, &mut Dropout::off(), |y, _| {
            self.attn.steps(y, cache, places, filled)
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
        ops::gated_add(x, gate2, mlp_with_dropout(&self.mlp, y, dropout))
    }
}

/// The head's last modulation, of a layer norm without parameters.
#[derive(Module, Debug)]
pub struct ChannelFinal {
    adaLN_modulation: (Silu, Linear),
}

impl ChannelFinal {
    pub(crate) fn init(d_model: usize, init: &mut ParamInit) -> Self {
        Self {
            adaLN_modulation: (Silu, init.zero_linear(d_model, 2 * d_model)),
        }
    }

    /// Scale and shift, in this order: the reverse of the blocks'.
    ///
    /// # Shapes
    /// - cond: `[.., d_model]`, after SiLU
    /// - output: two of `[.., d_model]`
    pub(crate) fn modulation<const D: usize>(&self, cond: Tensor<D>) -> [Tensor<D>; 2] {
        ops::split_linear(cond, &self.adaLN_modulation.1)
    }
}
