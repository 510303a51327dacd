//! Self-attention of the backbone, bidirectional over positions, and of the head, causal over dimensions with
//! normalized queries and keys.

use crate::dropout::Dropout;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
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

    /// The next dimension alone; the preceding ones are in `cache`.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`
    /// - output: `[tokens, d_model]`
    pub fn step(&self, x: Tensor<2>, cache: &mut KvCache) -> Tensor<2> {
        let [q, k, v] = self.project(x.unsqueeze_dim(1));
        let (k, v) = cache.push(k, v);
        let y = ops::merge_heads(ops::attention(q, k, v, Mask::All)); // [tokens, 1, d_model]
        ops::linear(y.squeeze_dim::<2>(1), &self.proj, Activation::None)
    }
}

/// Keys and values of the dimensions drawn so far, `[tokens, heads, dims, head_dim]`, allocated once.
#[derive(Debug)]
pub struct KvCache {
    k: Tensor<4>,
    v: Tensor<4>,
    len: usize,
}

impl KvCache {
    /// An empty cache.
    ///
    /// # Shapes
    /// - shape: `[tokens, heads, dims, head_dim]`
    pub fn new(shape: [usize; 4], device: &Device) -> Self {
        Self {
            k: Tensor::zeros(shape, device),
            v: Tensor::zeros(shape, device),
            len: 0,
        }
    }

    /// Appends the keys and values of the next dimension, and returns those of all dimensions so far.
    ///
    /// # Shapes
    /// - k, v: `[tokens, heads, 1, head_dim]`
    /// - outputs: `[tokens, heads, len, head_dim]`
    fn push(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let (at, [rows, heads, _, head_dim]) = (self.len, k.dims());
        self.len += 1;
        let place = [0..rows, 0..heads, at..at + 1, 0..head_dim];
        let filled = [0..rows, 0..heads, 0..self.len, 0..head_dim];
        self.k.inplace(|cache| cache.slice_assign(place.clone(), k));
        self.v.inplace(|cache| cache.slice_assign(place, v));
        (
            self.k.clone().slice(filled.clone()),
            self.v.clone().slice(filled),
        )
    }
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
