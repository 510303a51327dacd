//! The experts: one MLP each, stored as stacked weights.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use tessera_backend::init::ParamInit;
use tessera_backend::ops::{self, Activation, Routes};

/// A linear layer per expert.
#[derive(Module, Debug)]
pub struct ExpertLinear {
    /// `[experts, in, out]`
    pub weight: Param<Tensor<3>>,
    /// `[experts, out]`
    pub bias: Param<Tensor<2>>,
}

impl ExpertLinear {
    fn init(experts: usize, d_input: usize, d_output: usize, init: &mut ParamInit) -> Self {
        Self {
            weight: init.linears(experts, d_input, d_output),
            bias: init.zeros([experts, d_output]),
        }
    }
}

/// `FFN_e(x) = fc2_e(gelu(fc1_e(x)))` for every expert e.
#[derive(Module, Debug)]
pub struct Experts {
    /// From `d_model` to the hidden width.
    pub fc1: ExpertLinear,
    /// From the hidden width to `d_model`.
    pub fc2: ExpertLinear,
}

impl Experts {
    pub(crate) fn init(
        experts: usize,
        d_model: usize,
        hidden: usize,
        init: &mut ParamInit,
    ) -> Self {
        Self {
            fc1: ExpertLinear::init(experts, d_model, hidden, init),
            fc2: ExpertLinear::init(experts, hidden, d_model, init),
        }
    }

    /// The gated sum over each token's experts; zero for a token that has none.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`
    /// - gates: `[tokens, experts]`
    /// - output: `[tokens, d_model]`
    pub fn forward(&self, x: Tensor<2>, gates: Tensor<2>, routes: Routes) -> Tensor<2> {
        ops::experts(x, gates, self.weights(), routes, Activation::GeluTanh)
    }

    /// [`forward`](Self::forward) over the experts whose gate reaches the threshold. On a GPU the routes are computed
    /// on the device.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`
    /// - gates: `[tokens, experts]`
    /// - threshold: `[1]`
    /// - output: `[tokens, d_model]`
    pub fn above(&self, x: Tensor<2>, gates: Tensor<2>, threshold: Tensor<1>) -> Tensor<2> {
        ops::experts_above(x, gates, threshold, self.weights(), Activation::GeluTanh)
    }

    fn weights(&self) -> ops::Experts {
        ops::Experts {
            w1: self.fc1.weight.val(),
            b1: self.fc1.bias.val(),
            w2: self.fc2.weight.val(),
            b2: self.fc2.bias.val(),
        }
    }
}
