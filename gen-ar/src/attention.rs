//! Self-attention of the backbone, bidirectional over positions, and of the head, causal over dimensions with
//! normalized queries and keys.

use crate::dropout::Dropout;
use burn::module::Module;
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor};
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

    /// Some steps, from `first` on; the preceding ones are in `cache`, which takes these too.
    ///
    /// # Shapes
    /// - x: `[steps, tokens, d_model]`
    /// - output: `[steps, tokens, d_model]`
    pub fn steps(&self, x: Tensor<3>, cache: &mut KvCache, first: usize) -> Tensor<3> {
        let [q, k, v] = self.project(x).map(|x| x.swap_dims(0, 2)); // [tokens, heads, steps, head_dim]
        let (k, v) = cache.put(first, k, v);
        let y = ops::merge_heads(ops::attention(q, k, v, Mask::Causal)); // [tokens, steps, d_model]
        ops::linear(y.swap_dims(0, 1), &self.proj, Activation::None)
    }
}

/// Keys and values, `[rows, heads, capacity, head_dim]`, allocated once: of the dimensions of tokens, or of the tokens
/// of images.
#[derive(Debug)]
pub struct KvCache {
    k: Tensor<4>,
    v: Tensor<4>,
}

/// Where keys and values go in a cache.
#[derive(Debug)]
pub(crate) enum Places {
    /// To all of its places.
    All,
    /// The first of them to the cache's first places, the others from a place on.
    Ends {
        /// How many go to the first places.
        first: usize,
        /// Where the others go.
        from: usize,
    },
    /// To places of `[rows * heads * capacity, head_dim]`.
    At(Tensor<1, Int>),
}

impl KvCache {
    /// A cache with nothing in it.
    ///
    /// # Shapes
    /// - shape: `[rows, heads, capacity, head_dim]`
    pub fn new(shape: [usize; 4], device: &Device) -> Self {
        Self {
            k: Tensor::zeros(shape, device),
            v: Tensor::zeros(shape, device),
        }
    }

    /// Writes keys and values from place `first` on, and returns those of all places up to the last of them.
    ///
    /// # Shapes
    /// - k, v: `[rows, heads, len, head_dim]`
    /// - outputs: `[rows, heads, first + len, head_dim]`
    pub fn put(&mut self, first: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [rows, heads, len, head_dim] = k.dims();
        let place = [0..rows, 0..heads, first..first + len, 0..head_dim];
        let filled = [0..rows, 0..heads, 0..first + len, 0..head_dim];
        for (cache, x) in [(&mut self.k, k), (&mut self.v, v)] {
            cache.inplace(|cache| cache.slice_assign(place.clone(), x));
        }
        (
            self.k.clone().slice(filled.clone()),
            self.v.clone().slice(filled),
        )
    }

    /// Writes keys and values to their places, and returns those of all places up to the last that is filled.
    ///
    /// # Shapes
    /// - k, v: `[rows, heads, len, head_dim]`
    /// - outputs: `[rows, heads, filled, head_dim]`
    pub(crate) fn put_at(
        &mut self,
        places: &Places,
        k: Tensor<4>,
        v: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let [rows, heads, len, head_dim] = k.dims();
        match places {
            Places::All => self.put(0, k, v),
            &Places::Ends { first, from } => {
                let part = |x: &Tensor<4>, from, len| x.clone().narrow(2, from, len);
                self.put(0, part(&k, 0, first), part(&v, 0, first));
                let rest = len - first;
                self.put(from, part(&k, first, rest), part(&v, first, rest))
            }
            Places::At(places) => {
                for (cache, x) in [(&mut self.k, k), (&mut self.v, v)] {
                    let shape = cache.dims();
                    let x = x.reshape([rows * heads * len, head_dim]); // [rows * heads * len, head_dim]
                    cache.inplace(|cache| {
                        let cache = cache.reshape([shape[0] * shape[1] * shape[2], head_dim]); // [places, head_dim]
                        cache
                            .select_assign(0, places.clone(), x, IndexingUpdateOp::Assign)
                            .reshape(shape) // [rows, heads, capacity, head_dim]
                    });
                }
                (self.k.clone(), self.v.clone())
            }
        }
    }

    /// The mean over the heads of the cosine of values `[rows, heads, capacity, head_dim]` and those in the cache:
    /// `[rows, capacity]`.
    pub(crate) fn similarity(&self, v: &Tensor<4>) -> Tensor<2> {
        let dots =
            |a: &Tensor<4>, b: &Tensor<4>| (a.clone() * b.clone()).sum_dim(3).squeeze_dim::<3>(3); // [rows, heads, capacity]
        let lengths = dots(v, v) * dots(&self.v, &self.v);
        let cosines = dots(v, &self.v) / (lengths + f32::MIN_POSITIVE).sqrt();
        cosines.mean_dim(1).squeeze_dim(1)
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
