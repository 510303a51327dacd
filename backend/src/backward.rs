//! Inputs and outputs of fused backward passes, by name.

use crate::precision::ComputePrecision;

/// One value for each input of a linear map or a convolution: its gradient, or whether it needs one.
#[derive(Debug, Clone, Copy)]
pub struct LinearInputs<T> {
    /// The features.
    pub x: T,
    /// The weight.
    pub w: T,
    /// The bias.
    pub b: T,
}

impl<T> LinearInputs<T> {
    /// Of the inputs in the operation's order.
    pub fn new([x, w, b]: [T; 3]) -> Self {
        Self { x, w, b }
    }

    /// In the operation's order.
    pub fn into_array(self) -> [T; 3] {
        [self.x, self.w, self.b]
    }
}

/// What a linear map saves for its backward pass.
#[derive(Debug, Clone)]
pub struct LinearSaved<T> {
    /// The features.
    pub x: T,
    /// The weight.
    pub w: T,
    /// The preactivations, if there is an activation.
    pub z: Option<T>,
    /// What the products are computed in.
    pub precision: ComputePrecision,
}

/// The gradients of a gated residual.
#[derive(Debug, Clone)]
pub struct GatedAddGradients<T> {
    /// Of the gate.
    pub gate: T,
    /// Of the branch.
    pub y: T,
}

/// One value for each input of an affine normalization: the input itself or its gradient.
#[derive(Debug, Clone)]
pub struct NormInputs<T> {
    /// The features.
    pub x: T,
    /// The scale.
    pub weight: T,
    /// The shift.
    pub bias: T,
}

impl<T> NormInputs<T> {
    /// In the operation's order.
    pub fn into_array(self) -> [T; 3] {
        [self.x, self.weight, self.bias]
    }
}

/// What attention saves for its backward pass.
#[derive(Debug, Clone)]
pub struct AttentionSaved<T> {
    /// `[batch, heads, queries, head_dim]`
    pub q: T,
    /// `[batch, kv_heads, keys, head_dim]`
    pub k: T,
    /// `[batch, kv_heads, keys, head_dim]`
    pub v: T,
    /// `[batch, heads, queries, head_dim]`
    pub out: T,
    /// `[batch, heads, queries]`, the log-sum-exp of the scaled scores.
    pub lse: T,
    /// What the products are computed in.
    pub precision: ComputePrecision,
}

/// One value for each input of the experts: its gradient, or whether it needs one.
#[derive(Debug, Clone, Copy)]
pub struct ExpertsInputs<T> {
    /// The features.
    pub x: T,
    /// The gates.
    pub gates: T,
    /// The weights of the first maps.
    pub w1: T,
    /// The biases of the first maps.
    pub b1: T,
    /// The weights of the second maps.
    pub w2: T,
    /// The biases of the second maps.
    pub b2: T,
}

impl<T> ExpertsInputs<T> {
    /// Of the inputs in the operation's order.
    pub fn new([x, gates, w1, b1, w2, b2]: [T; 6]) -> Self {
        Self {
            x,
            gates,
            w1,
            b1,
            w2,
            b2,
        }
    }

    /// In the operation's order.
    pub fn into_array(self) -> [T; 6] {
        [self.x, self.gates, self.w1, self.b1, self.w2, self.b2]
    }
}

/// What experts save for their backward pass.
#[derive(Debug, Clone)]
pub struct ExpertsSaved<T> {
    /// `[tokens, d]`
    pub x: T,
    /// `[tokens, experts]`
    pub gates: T,
    /// `[experts, d, hidden]`
    pub w1: T,
    /// `[experts, hidden, d]`
    pub w2: T,
    /// `[experts, d]`
    pub b2: T,
    /// The preactivations, a row for each pair of token and expert in the backend's order.
    pub z: T,
}

impl<T> ExpertsSaved<T> {
    /// Each tensor through `f`.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> ExpertsSaved<U> {
        ExpertsSaved {
            x: f(self.x),
            gates: f(self.gates),
            w1: f(self.w1),
            w2: f(self.w2),
            b2: f(self.b2),
            z: f(self.z),
        }
    }

    /// The tensors by reference.
    pub fn as_ref(&self) -> ExpertsSaved<&T> {
        ExpertsSaved {
            x: &self.x,
            gates: &self.gates,
            w1: &self.w1,
            w2: &self.w2,
            b2: &self.b2,
            z: &self.z,
        }
    }
}
