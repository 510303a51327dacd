//! The optimiser's update of one parameter.

use crate::Backend;
use burn::backend::Dispatch;
use burn::tensor::Tensor;

/// The constants of one AdamW step (Loshchilov & Hutter, 2019), as PyTorch's AdamW takes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Which step this is, from 1.
    pub step: usize,
    /// The gradient is multiplied by it first (clipping).
    pub grad_scale: f64,
}

impl AdamWStep {
    pub(crate) fn correction1(self) -> f64 {
        1.0 - self.beta1.powf(self.step as f64)
    }

    pub(crate) fn correction2(self) -> f64 {
        1.0 - self.beta2.powf(self.step as f64)
    }
}

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
