//! The gating function A (table 1), from a router's logits to the scores that race and scale the experts' outputs.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

/// The gating function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// The logit itself, which keeps scores comparable across tokens; it may be negative.
    #[default]
    Identity,
    /// The logistic function of the logit.
    Sigmoid,
    /// Softmax over the experts of a token: scores of different tokens are no longer comparable.
    Softmax,
}

impl Gate {
    /// All, in the order of the paper's table from best to worst.
    pub const ALL: [Self; 3] = [Self::Identity, Self::Sigmoid, Self::Softmax];

    /// The scores, `S = A(Z)` (section 4).
    ///
    /// # Shapes
    /// - logits: `[batch, seq, experts]`
    /// - output: `[batch, seq, experts]`
    pub fn scores(self, logits: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Identity => logits,
            Self::Sigmoid => activation::sigmoid(logits),
            Self::Softmax => activation::softmax(logits, 2),
        }
    }
}
