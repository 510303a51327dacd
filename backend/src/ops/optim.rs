//! The optimizer's update of one parameter.

use crate::Backend;
use crate::arguments::AdamWStep;
use burn::backend::Dispatch;
use burn::tensor::Tensor;

/// Parameter, first and second moment after the step. None of the tensors is tracked.
///
/// # Shapes
/// - all alike
pub fn adamw_step<const D: usize>(
    param: Tensor<D>,
    m: Tensor<D>,
    v: Tensor<D>,
    grad: Tensor<D>,
    step: &AdamWStep,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let (p, m, v) = <Dispatch as Backend>::adamw(
        param.into_dispatch(),
        m.into_dispatch(),
        v.into_dispatch(),
        grad.into_dispatch(),
        *step,
    );
    (
        Tensor::from_dispatch(p),
        Tensor::from_dispatch(m),
        Tensor::from_dispatch(v),
    )
}
