//! Operations over feature maps.

use crate::Backend;
use crate::arguments::Activation;
use crate::nn::{Conv2d, GroupNorm};
use burn::backend::Dispatch;
use burn::tensor::Tensor;

/// Group normalization, then `act`.
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`; the output has the same.
pub fn group_norm(x: Tensor<4>, norm: &GroupNorm, act: Activation) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as Backend>::group_norm(
        x.into_dispatch(),
        norm.weight.val().into_dispatch(),
        norm.bias.val().into_dispatch(),
        norm.groups,
        norm.eps,
        act,
    ))
}

/// 2-D convolution with zero padding `[top, left, bottom, right]` in pixels.
///
/// # Shapes
/// - `x`: `[batch, in, height, width]`
/// - output: `[batch, out, (height + top + bottom - kernel) / stride + 1, …]`
pub fn conv2d(x: Tensor<4>, conv: &Conv2d, padding: [usize; 4]) -> Tensor<4> {
    let weight = conv.weight.val();
    let bias = match &conv.bias {
        Some(bias) => bias.val(),
        None => Tensor::zeros([weight.dims()[0]], &weight.device()),
    };
    Tensor::from_dispatch(<Dispatch as Backend>::conv2d_padded(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        conv.stride,
        padding,
    ))
}

/// A convolution of each channel by itself, between two rectifiers that level off, as in networks for small devices:
/// `clamp(conv(clamp(x)))`. Zero padding `[top, left, bottom, right]` in pixels is around the clamped `x`.
///
/// # Panics
/// If the layer's weight is not `[channels, 1, kernel height, kernel width]`.
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`
/// - output: `[batch, channels, (height + top + bottom - kernel) / stride + 1, …]`
pub fn depthwise_clamped(
    x: Tensor<4>,
    conv: &Conv2d,
    padding: [usize; 4],
    bounds: [f32; 2],
) -> Tensor<4> {
    let weight = conv.weight.val();
    let [channels, per_group, _, _] = weight.dims();
    assert_eq!(per_group, 1, "expected weights of each channel by itself");
    let bias = match &conv.bias {
        Some(bias) => bias.val(),
        None => Tensor::zeros([channels], &weight.device()),
    };
    Tensor::from_dispatch(<Dispatch as Backend>::depthwise_clamped(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        conv.stride,
        padding,
        bounds,
    ))
}

/// Nearest-neighbor upsampling by 2.
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`
/// - output: `[batch, channels, 2 height, 2 width]`
pub fn upsample_nearest(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as Backend>::upsample_nearest(x.into_dispatch()))
}
