//! The router (section 6, figure 12): a trunk of one hidden layer with two heads, one that scores the experts and one that
//! guesses the model's target.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::Tensor;
use tessera_backend::init::Init;
use tessera_backend::ops::{self, Activation};

/// `r = gelu(W1 h + b1)`, `logits = W_g r + b_g`, `target = W_t r + b_t`.
#[derive(Module, Debug)]
pub struct Router {
    /// The trunk.
    pub fc1: Linear,
    /// The gating head.
    pub gate: Linear,
    /// The target head, for the per-layer regularisation of training.
    pub target: Option<Linear>,
    /// What a score must reach at inference: measured, not trained.
    pub threshold: Param<Tensor<1>>,
}

impl Router {
    pub(crate) fn init(
        experts: usize,
        d_model: usize,
        target: Option<usize>,
        init: &mut Init,
    ) -> Self {
        Self {
            fc1: init.linear(d_model, d_model),
            gate: init.linear(d_model, experts),
            target: target.map(|width| init.linear(d_model, width)),
            threshold: init.buffer(&[0.0], [1]),
        }
    }

    /// The logits and, where `with_target` asks for it and there is a head, the guess of the target.
    ///
    /// # Shapes
    /// - h: `[batch, seq, d_model]`
    /// - logits: `[batch, seq, experts]`
    /// - target: `[batch, seq, target]`
    pub fn forward(&self, h: Tensor<3>, with_target: bool) -> (Tensor<3>, Option<Tensor<3>>) {
        let r = ops::linear(h, &self.fc1, Activation::GeluTanh);
        let head = self.target.as_ref().filter(|_| with_target);
        let target = head.map(|head| ops::linear(r.clone(), head, Activation::None));
        (ops::linear(r, &self.gate, Activation::None), target)
    }
}
