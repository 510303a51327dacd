//! The router (section 6, figure 12): a trunk of one hidden layer with two heads. One scores the experts, the other
//! predicts the model's target.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use tessera_backend::init::ParamInit;
use tessera_backend::nn::Linear;
use tessera_backend::ops::{self, Activation};

/// `r = gelu(W1 h + b1)`, `logits = W_g r + b_g`, `target = W_t r + b_t`.
#[derive(Module, Debug)]
pub struct Router {
    /// The trunk.
    pub fc1: Linear,
    /// The gating head.
    pub gate: Linear,
    /// The target head, for the per-layer regularization of training.
    pub target: Option<Linear>,
    /// The threshold of inference, `[1]`: a buffer, updated from cutoffs and not by gradients.
    pub threshold: Param<Tensor<1>>,
}

impl Router {
    pub(crate) fn init(
        experts: usize,
        d_model: usize,
        target: Option<usize>,
        init: &mut ParamInit,
    ) -> Self {
        Self {
            fc1: init.linear(d_model, d_model),
            gate: init.linear(d_model, experts),
            target: target.map(|width| init.linear(d_model, width)),
            threshold: init.buffer(&[0.0], [1]),
        }
    }

    /// The logits, `Z = Router(x)` (section 4).
    ///
    /// # Shapes
    /// - h: `[batch, seq, d_model]`
    /// - output: `[batch, seq, experts]`
    pub fn forward(&self, h: Tensor<3>) -> Tensor<3> {
        self.logits(self.trunk(h))
    }

    /// The logits and, if there is a target head, its prediction.
    ///
    /// # Shapes
    /// - h: `[batch, seq, d_model]`
    /// - logits: `[batch, seq, experts]`
    /// - prediction: `[batch, seq, target]`
    pub fn forward_with_target(&self, h: Tensor<3>) -> (Tensor<3>, Option<Tensor<3>>) {
        let r = self.trunk(h);
        let head = self.target.as_ref();
        let target = head.map(|head| ops::linear(r.clone(), head, Activation::None));
        (self.logits(r), target)
    }

    fn trunk(&self, h: Tensor<3>) -> Tensor<3> {
        ops::linear(h, &self.fc1, Activation::GeluTanh)
    }

    fn logits(&self, r: Tensor<3>) -> Tensor<3> {
        ops::linear(r, &self.gate, Activation::None)
    }
}
