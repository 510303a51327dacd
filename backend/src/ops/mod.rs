//! The operations models call: safe functions over `Tensor`, whatever device it is on.

use crate::nn::{GroupNorm, LayerNorm};
use burn::nn::{Linear, conv::Conv2d};
use burn::tensor::{Int, Tensor, activation};

/// What follows a linear map or a normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    None,
    /// GELU with erf (not the tanh approximation).
    Gelu,
    /// SiLU (swish).
    Silu,
}

fn activate<const D: usize>(x: Tensor<D>, act: Activation) -> Tensor<D> {
    match act {
        Activation::None => x,
        Activation::Gelu => activation::gelu(x),
        Activation::Silu => activation::silu(x),
    }
}

/// `act(x W + b)`.
pub fn linear<const D: usize>(x: Tensor<D>, layer: &Linear, act: Activation) -> Tensor<D> {
    activate(layer.forward(x), act)
}

/// Layer normalisation over the last axis.
pub fn layer_norm<const D: usize>(x: Tensor<D>, norm: &LayerNorm) -> Tensor<D> {
    let y = normalise(x, norm.eps);
    y * norm.weight.val().unsqueeze() + norm.bias.val().unsqueeze()
}

fn normalise<const D: usize>(x: Tensor<D>, eps: f64) -> Tensor<D> {
    let mean = x.clone().mean_dim(D - 1);
    let x = x - mean;
    let var = x.clone().powf_scalar(2.0).mean_dim(D - 1);
    x / (var + eps).sqrt()
}

/// adaLN: `LayerNorm(x) * (1 + scale) + shift`, `norm: None` being a norm without parameters and eps 1e-6.
/// `shift` and `scale` have the shape of `x`.
pub fn modulate<const D: usize>(x: Tensor<D>, norm: Option<&LayerNorm>, shift: Tensor<D>, scale: Tensor<D>) -> Tensor<D> {
    let y = match norm {
        Some(norm) => layer_norm(x, norm),
        None => normalise(x, 1e-6),
    };
    y * (scale + 1.0) + shift
}

/// Softmax attention over `[batch, heads, seq, head_dim]`, scale `head_dim^-0.5`. `causal`: a query sees the
/// keys up to its own position, the last query being aligned with the last key.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, causal: bool) -> Tensor<4> {
    let options = burn::tensor::ops::AttentionModuleOptions { is_causal: causal, ..Default::default() };
    burn::tensor::module::attention(q, k, v, None, None, options)
}

/// Group normalisation of `[batch, channels, height, width]`, then `act`.
pub fn group_norm(x: Tensor<4>, norm: &GroupNorm, act: Activation) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let y = normalise(x.reshape([batch, norm.groups, channels / norm.groups * height * width]), norm.eps);
    let y = y.reshape([batch, channels, height, width]);
    let per_channel = |p: Tensor<1>| p.reshape([1, channels, 1, 1]);
    activate(y * per_channel(norm.weight.val()) + per_channel(norm.bias.val()), act)
}

/// 2-D convolution with zero padding `[top, left, bottom, right]`, whatever the layer's own padding says.
pub fn conv2d(x: Tensor<4>, conv: &Conv2d, [top, left, bottom, right]: [usize; 4]) -> Tensor<4> {
    let options = burn::tensor::ops::ConvOptions::new(conv.stride, [0, 0], conv.dilation, conv.groups);
    let x = x.pad((left, right, top, bottom), 0.0);
    burn::tensor::module::conv2d(x, conv.weight.val(), conv.bias.as_ref().map(|b| b.val()), options)
}

/// Nearest-neighbour upsampling by 2: `[batch, channels, h, w]` to `[batch, channels, 2h, 2w]`.
pub fn upsample_nearest(x: Tensor<4>) -> Tensor<4> {
    let [batch, channels, h, w] = x.dims();
    x.reshape([batch, channels, h, 1, w, 1])
        .expand([batch, channels, h, 2, w, 2])
        .reshape([batch, channels, 2 * h, 2 * w])
}

/// Negative log-likelihood in nats of each row's target: `[rows, classes]` and `[rows]` to `[rows]`.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [rows, _] = logits.dims();
    activation::log_softmax(logits, 1).gather(1, targets.reshape([rows, 1])).reshape([rows]).neg()
}

/// How [`categorical`] turns logits into a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 is greedy (the first of the largest).
    pub temperature: f32,
    /// Keep the `top_k` likeliest; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest likeliest whose probabilities reach `top_p`; 1 keeps all.
    pub top_p: f32,
}

/// Draws one class per row by inverting the distribution function at `uniforms`: `[rows, classes]` and `[rows]`
/// (each in `[0, 1)`) to `[rows]`.
pub fn categorical(logits: Tensor<2>, uniforms: Tensor<1>, sampling: Sampling) -> Tensor<1, Int> {
    let [rows, classes] = logits.dims();
    if sampling.temperature == 0.0 {
        return logits.argmax(1).reshape([rows]);
    }
    let probabilities = activation::softmax(logits / sampling.temperature, 1);
    let below = probabilities.cumsum(1).lower_equal(uniforms.reshape([rows, 1]).expand([rows, classes]));
    below.int().sum_dim(1).clamp(0, classes as i64 - 1).reshape([rows])
}
