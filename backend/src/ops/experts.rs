//! A mixture of experts: each expert's two linear maps over the tokens routed to it, without dropped or padded tokens.

use crate::Backend;
use crate::arguments::{Activation, Routes};
use burn::backend::Dispatch;
use burn::tensor::Tensor;

/// The weights of all experts, each an MLP of two linear maps.
#[derive(Debug, Clone)]
pub struct Experts {
    /// `[experts, d, hidden]`
    pub w1: Tensor<3>,
    /// `[experts, hidden]`
    pub b1: Tensor<2>,
    /// `[experts, hidden, d]`
    pub w2: Tensor<3>,
    /// `[experts, d]`
    pub b2: Tensor<2>,
}

impl Experts {
    /// # Panics
    /// If the shapes do not fit each other.
    fn assert_fit(&self, x: &Tensor<2>, gates: &Tensor<2>) {
        let ([tokens, d], [experts, _, hidden]) = (x.dims(), self.w1.dims());
        assert_eq!(gates.dims(), [tokens, experts]);
        assert_eq!(self.w1.dims(), [experts, d, hidden]);
        assert_eq!(self.b1.dims(), [experts, hidden]);
        assert_eq!(self.w2.dims(), [experts, hidden, d]);
        assert_eq!(self.b2.dims(), [experts, d]);
    }
}

/// `y_t = Σ_e gate_te · (act(x_t W1_e + b1_e) W2_e + b2_e)` over the experts e that token t is routed to; zero for a
/// token without experts. An expert without tokens costs nothing. Gates outside the routes are not read and have zero
/// gradient.
///
/// # Shapes
/// - `x`: `[tokens, d]`
/// - `gates`: `[tokens, experts]`
/// - output: `[tokens, d]`
///
/// # Panics
/// If the shapes do not fit each other and the routes.
pub fn experts(
    x: Tensor<2>,
    gates: Tensor<2>,
    weights: Experts,
    routes: Routes,
    act: Activation,
) -> Tensor<2> {
    assert_eq!([routes.tokens(), routes.experts()], gates.dims());
    weights.assert_fit(&x, &gates);
    Tensor::from_dispatch(<Dispatch as Backend>::grouped_experts(
        x.into_dispatch(),
        gates.into_dispatch(),
        weights.w1.into_dispatch(),
        weights.b1.into_dispatch(),
        weights.w2.into_dispatch(),
        weights.b2.into_dispatch(),
        routes,
        act,
    ))
}

/// [`experts`] with each token routed to the experts whose gate [reaches](crate::ops::reaches) a threshold, whatever
/// the other tokens do. GPUs compute the routes themselves, so the host does not wait for them.
///
/// # Shapes
/// - `x`: `[tokens, d]`
/// - `gates`: `[tokens, experts]`
/// - `threshold`: `[1]`
/// - output: `[tokens, d]`
///
/// # Panics
/// If the shapes do not fit each other.
pub fn experts_above(
    x: Tensor<2>,
    gates: Tensor<2>,
    threshold: Tensor<1>,
    weights: Experts,
    act: Activation,
) -> Tensor<2> {
    assert_eq!(threshold.dims(), [1]);
    weights.assert_fit(&x, &gates);
    Tensor::from_dispatch(<Dispatch as Backend>::experts_above(
        x.into_dispatch(),
        gates.into_dispatch(),
        threshold.into_dispatch(),
        weights.w1.into_dispatch(),
        weights.b1.into_dispatch(),
        weights.w2.into_dispatch(),
        weights.b2.into_dispatch(),
        act,
    ))
}
