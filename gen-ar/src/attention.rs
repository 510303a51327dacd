//! Self-attention of the backbone, bidirectional over positions, and of the head, causal over dimensions with
//! normalized queries and keys.

use crate::dropout::Dropout;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use tessera_attention2d::Tokens;
use tessera_backend::init::ParamInit;
use tessera_backend::nn::{LayerNorm, Linear};
use tessera_backend::ops::{self, Activation, Mask};

/// Added to the variance in every layer norm of the model.
pub(crate) const NORM_EPS: f64 = 1e-6;

/// Attention of the backbone: the tokens of this rank attend to all tokens, wherever they are.
///
/// # Shapes
/// - q: `[batch, heads, queries, head_dim]`
/// - k, v: `[batch, heads, keys, head_dim]`
/// - output: `[batch, heads, queries, head_dim]`
pub(crate) fn attend(
    [q, k, v]: [Tensor<4>; 3],
    tokens: Tokens<'_>,
    dropout: &mut Dropout<'_>,
) -> Tensor<4> {
    match dropout.drops_attention() {
        true => attend_with_dropout(q, k, v, Mask::All, dropout),
        false => tokens.attention(q, k, v),
    }
}

/// Causal multi-head self-attention with layer norms over each head's queries and keys.
#[derive(Module, Debug)]
pub struct CausalAttention {
    qkv: Linear,
    q_norm: LayerNorm,
    k_norm: LayerNorm,
    proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl CausalAttention {
    pub(crate) fn init(d_model: usize, heads: usize, init: &mut ParamInit) -> Self {
        Self {
            qkv: init.linear(d_model, 3 * d_model),
            q_norm: LayerNorm::new(d_model / heads, NORM_EPS, init.device()),
            k_norm: LayerNorm::new(d_model / heads, NORM_EPS, init.device()),
            proj: init.linear(d_model, d_model),
            heads,
        }
    }

    /// `[rows, seq, d_model]` to queries, keys and values, `[rows, heads, seq, head_dim]` each.
    fn project(&self, x: Tensor<3>) -> [Tensor<4>; 3] {
        let [q, k, v] = ops::split_linear(x, &self.qkv).map(|x| ops::split_heads(x, self.heads));
        [
            ops::layer_norm(q, &self.q_norm),
            ops::layer_norm(k, &self.k_norm),
            v,
        ]
        .map(|x| x.swap_dims(1, 2)) // [rows, heads, seq, head_dim]
    }

    /// All dimensions at once, as in training.
    ///
    /// # Shapes
    /// - x: `[tokens, dims, d_model]`
    /// - output: `[tokens, dims, d_model]`
    pub fn forward(&self, x: Tensor<3>, dropout: &mut Dropout<'_>) -> Tensor<3> {
        let [q, k, v] = self.project(x);
        let y = match dropout.drops_attention() {
            true => attend_with_dropout(q, k, v, Mask::Causal, dropout),
            false => ops::attention(q, k, v, Mask::Causal),
        };
        let y = ops::merge_heads(y); // [tokens, dims, d_model]
        dropout.proj(ops::linear(y, &self.proj, Activation::None))
    }

    /// Some steps, whose keys and values go to their `places` of `cache`; those of the preceding steps are there.
    ///
    /// # Shapes
    /// - x: `[steps, tokens, d_model]`
    /// - places: `[tokens * steps]`, up to `filled` of each token
    /// - output: `[steps, tokens, d_model]`
    pub fn steps(
        &self,
        x: Tensor<3>,
        cache: &mut KvCache,
        places: &Tensor<1, Int>,
        filled: usize,
    ) -> Tensor<3> {
        let [q, k, v] = self.project(x).map(|x| x.swap_dims(0, 2)); // [tokens, heads, steps, head_dim]
        cache.put(places, [&k, &v]);
        let [k, v] = cache.filled(filled);
        let y = ops::merge_heads(ops::attention(q, k, v, Mask::Causal)); // [tokens, steps, d_model]
        ops::linear(y.swap_dims(0, 1), &self.proj, Activation::None)
    }
}

/// Keys and values of the dimensions of tokens, or of the tokens of images, for attention of those that come later.
#[derive(Debug)]
pub struct KvCache {
    /// `[rows * capacity, heads * head_dim]`, as `v`.
    k: Tensor<2>,
    v: Tensor<2>,
    rows: usize,
    heads: usize,
}

impl KvCache {
    /// A cache with nothing in it.
    ///
    /// # Shapes
    /// - shape: `[rows, heads, capacity, head_dim]`
    pub fn new([rows, heads, capacity, head_dim]: [usize; 4], device: &Device) -> Self {
        let table = || Tensor::zeros([rows * capacity, heads * head_dim], device);
        Self {
            k: table(),
            v: table(),
            rows,
            heads,
        }
    }

    /// Writes keys and values to some places, of the `rows * capacity` that there are.
    ///
    /// # Shapes
    /// - k, v: `[rows, heads, len, head_dim]`
    /// - places: `[rows * len]`
    pub fn put(&mut self, places: &Tensor<1, Int>, [k, v]: [&Tensor<4>; 2]) {
        for (cache, x) in [(&mut self.k, k), (&mut self.v, v)] {
            let x = merged_rows(x);
            cache.inplace(|cache| ops::put_rows(cache, places.clone(), x));
        }
    }

    /// The keys and values of the first `filled` places of each row, `[rows, heads, filled, head_dim]`.
    pub fn filled(&self, filled: usize) -> [Tensor<4>; 2] {
        [&self.k, &self.v].map(|table| {
            let [places, width] = table.dims();
            let table = ops::reshape(table.clone(), [self.rows, places / self.rows, width]);
            ops::split_heads(table.narrow(1, 0, filled), self.heads).swap_dims(1, 2)
        })
    }

    /// The mean over the heads of the cosine of values `[rows, heads, capacity, head_dim]` and those in the cache:
    /// `[rows, capacity]`.
    pub(crate) fn similarity(&self, v: &Tensor<4>) -> Tensor<2> {
        let [rows, heads, capacity, head_dim] = v.dims();
        let of_heads = |x| ops::reshape(x, [rows * capacity, heads, head_dim]);
        let (now, before) = (of_heads(merged_rows(v)), of_heads(self.v.clone()));
        let dots =
            |a: &Tensor<3>, b: &Tensor<3>| (a.clone() * b.clone()).sum_dim(2).squeeze_dim::<2>(2); // [rows * capacity, heads]
        let lengths = dots(&now, &now) * dots(&before, &before);
        let cosines = dots(&now, &before) / (lengths + f32::MIN_POSITIVE).sqrt();
        cosines.mean_dim(1).reshape([rows, capacity]) // [rows, capacity]
    }
}

/// `[rows, heads, len, head_dim]` to `[rows * len, heads * head_dim]`.
fn merged_rows(x: &Tensor<4>) -> Tensor<2> {
    let [rows, heads, len, head_dim] = x.dims();
    ops::reshape(ops::merge_heads(x.clone()), [rows * len, heads * head_dim])
}

/// Softmax attention with dropout of its probabilities.
fn attend_with_dropout(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Mask,
    dropout: &mut Dropout<'_>,
) -> Tensor<4> {
    let ([batch, heads, queries, _], keys) = (q.dims(), k.dims()[2]);
    let keep = dropout.attn([batch, heads, queries, keys], &q.device());
    ops::attention_with_dropout([q, k, v], keep, mask)
}
