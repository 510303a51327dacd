//! Operations that other crates define, over many ranks for example, as nodes of the graph.

use crate::Backend;
use crate::arguments::CustomOp;
use burn::backend::Dispatch;
use burn::tensor::Tensor;
use std::sync::Arc;

/// `op` of one tensor, differentiated by its own backward pass.
///
/// # Shapes
/// - x, output: defined by `op`
pub fn custom_op(x: Tensor<4>, op: Arc<dyn CustomOp>) -> Tensor<4> {
    if !x.device().is_autodiff() {
        return op.forward(vec![x]).0;
    }
    Tensor::from_dispatch(<Dispatch as Backend>::custom_op(x.into_dispatch(), op))
}

/// `op` of three tensors, differentiated by its own backward pass.
///
/// # Shapes
/// - inputs, output: defined by `op`
pub fn custom_op_3(inputs: [Tensor<4>; 3], op: Arc<dyn CustomOp>) -> Tensor<4> {
    if !inputs[0].device().is_autodiff() {
        return op.forward(inputs.into()).0;
    }
    let [a, b, c] = inputs.map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as Backend>::custom_op_3(a, b, c, op))
}
