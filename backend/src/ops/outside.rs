//! Operations that are computed outside of this crate, by many ranks together say, and still differentiated.

use crate::Backend;
use burn::backend::Dispatch;
use burn::tensor::Tensor;
use std::fmt::Debug;
use std::sync::Arc;

/// An operation with its backward pass, both on tensors outside of autodiff.
pub trait Outside: Debug + Send + Sync {
    /// The output, and what the backward pass wants back.
    fn forward(&self, inputs: Vec<Tensor<4>>) -> (Tensor<4>, Vec<Tensor<4>>);

    /// The gradients of the inputs, given that of the output.
    fn backward(&self, saved: Vec<Tensor<4>>, gradient: Tensor<4>) -> Vec<Tensor<4>>;
}

/// What `op` makes of one tensor.
///
/// # Shapes
/// - x: any that `op` takes
pub fn outside(x: Tensor<4>, op: Arc<dyn Outside>) -> Tensor<4> {
    if !x.device().is_autodiff() {
        return op.forward(vec![x]).0;
    }
    Tensor::from_dispatch(<Dispatch as Backend>::outside(x.into_dispatch(), op))
}

/// What `op` makes of three tensors.
///
/// # Shapes
/// - inputs: any that `op` takes
pub fn outside_3(inputs: [Tensor<4>; 3], op: Arc<dyn Outside>) -> Tensor<4> {
    if !inputs[0].device().is_autodiff() {
        return op.forward(inputs.into()).0;
    }
    let [a, b, c] = inputs.map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as Backend>::outside_3(a, b, c, op))
}
