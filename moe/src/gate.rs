//! The gating function A (table 1): what of a router's logit scales an expert's output, and races.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

/// What is made of the logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// The raw logit, which keeps scores comparable across tokens; it may be negative.
    #[default]
    Identity,
    /// The logistic function of each.
    Sigmoid,
    /// Softmax over the experts of a token: scores of different tokens are no longer comparable.
    Softmax,
}

impl Gate {
    /// All, in the order of the paper's table from best to worst.
    pub const ALL: [Self; 3] = [Self::Identity, Self::Sigmoid, Self::Softmax];

    /// The scores.
    ///
    /// # Shapes
    /// - logits: `[batch, seq, experts]`; the output has the same
    pub fn scores(self, logits: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Identity => logits,
            Self::Sigmoid => activation::sigmoid(logits),
            Self::Softmax => activation::softmax(logits, 2),
        }
    }
}
