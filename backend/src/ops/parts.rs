//! Splits of the features: into attention heads, and of a linear map into equal parts.

use super::{linear, reshape};
use crate::Backend;
use crate::arguments::{Activation, PartGradients};
use crate::nn::Linear;
use crate::panels;
use burn::backend::Dispatch;
use burn::module::{Param, ParamId};
use burn::tensor::Tensor;

/// Splits the features into heads.
///
/// # Shapes
/// - x: `[batch, seq, d_model]`
/// - output: `[batch, seq, heads, head_dim]`
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, seq, d_model] = x.dims();
    reshape(x, [batch, seq, heads, d_model / heads])
}

/// Concatenates the heads, the inverse of [`split_heads`] and a transpose.
///
/// # Shapes
/// - x: `[batch, heads, seq, head_dim]`
/// - output: `[batch, seq, d_model]`
pub fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, seq, head_dim] = x.dims();
    let x = x.swap_dims(1, 2); // [batch, seq, heads, head_dim]
    reshape(x, [batch, seq, heads * head_dim])
}

/// Repeats a row for each of `seq` tokens, as for the condition of a picture.
///
/// # Shapes
/// - x: `[batch, d_model]`
/// - output: `[batch, seq, d_model]`
pub fn repeat_rows(x: Tensor<2>, seq: usize) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Backend>::repeat_rows(x.into_dispatch(), seq))
}

/// Sums of the rows of each matrix.
///
/// # Shapes
/// - x: `[batch, rows, d_model]`
/// - output: `[batch, d_model]`
pub fn sum_rows(x: Tensor<3>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Backend>::sum_rows(x.into_dispatch()))
}

/// A linear map whose output is split into `N` equal parts.
///
/// # Shapes
/// - x: `[.., in]`
/// - output: `N` of `[.., out / N]`
pub fn split_linear<const D: usize, const N: usize>(
    x: Tensor<D>,
    layer: &Linear,
) -> [Tensor<D>; N] {
    split(linear(x, layer, Activation::None))
}

/// `N` equal parts along the last axis. In training their gradients are put together, where those of `narrow` would be
/// filled with zeros and added up.
///
/// # Shapes
/// - x: `[.., d]`
/// - output: `N` of `[.., d / N]`
fn split<const D: usize, const N: usize>(x: Tensor<D>) -> [Tensor<D>; N] {
    let gradients = PartGradients::new(N);
    let x = <Dispatch as Backend>::whole(x.into_dispatch(), gradients.clone());
    std::array::from_fn(|part| {
        let part = <Dispatch as Backend>::part(x.clone(), part, gradients.clone());
        Tensor::from_dispatch(part)
    })
}

/// The weight of a linear map of so many `inputs`, in whichever order it is stored.
///
/// # Shapes
/// - output: `[in, out]`
pub fn weight_of(layer: &Linear, inputs: usize) -> Tensor<2> {
    panels::in_rows(layer.weight.val(), inputs)
}

/// The `N` equal column blocks of a linear map of so many `inputs`. Gradients of the blocks reach the whole map.
///
/// # Shapes
/// - weight of `layer`: `[in, out]`; of a block: `[in, out / N]`
pub fn columns<const N: usize>(layer: &Linear, inputs: usize) -> [Linear; N] {
    let (weight, bias) = (layer.weight.val(), layer.bias.as_ref().map(|b| b.val()));
    let width = panels::outputs(weight.dims(), inputs) / N;
    // Blocks of whole panels are read in place, others from a copy.
    let (weight, axis, step) = match width.is_multiple_of(panels::PANEL) {
        true if panels::are(weight.dims(), inputs) => (weight, 0, width / panels::PANEL),
        _ => (panels::in_rows(weight, inputs), 1, width),
    };
    std::array::from_fn(|part| Linear {
        weight: Param::initialized(
            ParamId::new(),
            weight.clone().narrow(axis, part * step, step),
        ),
        bias: bias
            .clone()
            .map(|b| Param::initialized(ParamId::new(), b.narrow(0, part * width, width))),
    })
}
