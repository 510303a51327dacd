//! The two attentions: of the backbone (bidirectional) and of the head (causal over dimensions, q/k norm).

use crate::dropout::Dropout;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Tensor, activation};
use tessera_attention2d::{TokenSharding, Tokens};
use tessera_backend::init::Init;
use tessera_backend::nn::LayerNorm;
use tessera_backend::ops::{self, Activation, Mask};

/// Added to the variance in every layer norm of the model.
pub(crate) const NORM_EPS: f64 = 1e-6;

/// Multi-head self-attention with one packed map to queries, keys and values.
#[derive(Module, Debug)]
pub struct Attention {
    qkv: Linear,
    proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    pub(crate) fn init(d_model: usize, heads: usize, init: &mut Init) -> Self {
        Self {
            qkv: init.linear(d_model, 3 * d_model),
            proj: init.linear(d_model, d_model),
            heads,
        }
    }

    /// Of the tokens that are here to all of them, wherever they are.
    ///
    /// # Shapes
    /// - x: `[batch, seq here, d_model]`
    /// - output: `[batch, seq here, d_model]`
    pub fn forward(
        &self,
        x: Tensor<3>,
        tokens: Tokens<'_>,
        dropout: &mut Dropout<'_>,
    ) -> Tensor<3> {
        self.attend(ops::split_linear(x, &self.qkv), tokens, dropout)
    }

    /// What `queries` see in `x`: [`forward`](Self::forward) where only some of its rows are wanted.
    ///
    /// # Shapes
    /// - queries: `[batch, wanted, d_model]`
    /// - x: `[batch, seq, d_model]`
    /// - output: `[batch, wanted, d_model]`
    pub fn forward_rows(
        &self,
        queries: Tensor<3>,
        x: Tensor<3>,
        dropout: &mut Dropout<'_>,
    ) -> Tensor<3> {
        let [q, k, v] = ops::columns(&self.qkv);
        let project = |x, part| ops::linear(x, &part, Activation::None);
        let whole = TokenSharding::Local.of(x.dims()[1]);
        self.attend(
            [project(queries, q), project(x.clone(), k), project(x, v)],
            whole,
            dropout,
        )
    }

    fn attend(
        &self,
        qkv: [Tensor<3>; 3],
        tokens: Tokens<'_>,
        dropout: &mut Dropout<'_>,
    ) -> Tensor<3> {
        let [q, k, v] = qkv.map(|x| ops::split_heads(x, self.heads).swap_dims(1, 2));
        let y = match dropout.drops_attention() {
            true => dropped(q, k, v, Mask::All, dropout),
            false => tokens.attention(q, k, v),
        };
        let y = ops::merge_heads(y);
        dropout.proj(ops::linear(y, &self.proj, Activation::None))
    }
}

/// Causal multi-head self-attention whose queries and keys are normalised per head.
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
    pub(crate) fn init(d_model: usize, heads: usize, init: &mut Init) -> Self {
        Self {
            qkv: init.linear(d_model, 3 * d_model),
            q_norm: LayerNorm::new(d_model / heads, NORM_EPS, init.device()),
            k_norm: LayerNorm::new(d_model / heads, NORM_EPS, init.device()),
            proj: init.linear(d_model, d_model),
            heads,
        }
    }

    /// Queries, keys and values, `[rows, heads, seq, head_dim]` each.
    fn project(&self, x: Tensor<3>) -> [Tensor<4>; 3] {
        let [q, k, v] = ops::split_linear(x, &self.qkv).map(|x| ops::split_heads(x, self.heads));
        [
            ops::layer_norm(q, &self.q_norm),
            ops::layer_norm(k, &self.k_norm),
            v,
        ]
        .map(|x| x.swap_dims(1, 2))
    }

    /// All dimensions at once, as in training.
    ///
    /// # Shapes
    /// - x: `[tokens, dims, d_model]`
    /// - output: `[tokens, dims, d_model]`
    pub fn forward(&self, x: Tensor<3>, dropout: &mut Dropout<'_>) -> Tensor<3> {
        let [q, k, v] = self.project(x);
        let y = match dropout.drops_attention() {
            true => dropped(q, k, v, Mask::Causal, dropout),
            false => ops::attention(q, k, v, Mask::Causal),
        };
        let y = ops::merge_heads(y);
        dropout.proj(ops::linear(y, &self.proj, Activation::None))
    }

    /// The next dimension alone, the ones before it being in `cache`.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`
    /// - output: `[tokens, d_model]`
    pub fn step(&self, x: Tensor<2>, cache: &mut KvCache) -> Tensor<2> {
        let [q, k, v] = self.project(x.unsqueeze_dim(1));
        let (k, v) = cache.push(k, v);
        let y = ops::merge_heads(ops::attention(q, k, v, Mask::All));
        ops::linear(y.squeeze_dim::<2>(1), &self.proj, Activation::None)
    }
}

/// Keys and values of the dimensions done so far, `[tokens, heads, dims, head_dim]`, allocated once.
#[derive(Debug)]
pub struct KvCache {
    k: Tensor<4>,
    v: Tensor<4>,
    len: usize,
}

impl KvCache {
    /// Room for `shape`: tokens, heads, dims, head_dim.
    pub fn new(shape: [usize; 4], device: &burn::tensor::Device) -> Self {
        Self {
            k: Tensor::zeros(shape, device),
            v: Tensor::zeros(shape, device),
            len: 0,
        }
    }

    /// Takes the next dimension's keys and values (`[tokens, heads, 1, head_dim]`); all there are now.
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

/// Softmax attention with its probabilities dropped: only then must they exist as a tensor.
fn dropped(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Mask,
    dropout: &mut Dropout<'_>,
) -> Tensor<4> {
    let [_, _, seq, head_dim] = q.dims();
    let mut scores = q.matmul(k.transpose()) * (head_dim as f64).powf(-0.5);
    if mask == Mask::Causal {
        let future = Tensor::<2>::ones([seq, seq], &scores.device())
            .triu(1)
            .bool();
        scores = scores.mask_fill(future.unsqueeze(), f32::NEG_INFINITY);
    }
    dropout.attn(activation::softmax(scores, 3)).matmul(v)
}
