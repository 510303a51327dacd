//! Arguments of operations other than tensors. The trait [`Backend`](crate::Backend), its kernels and the functions of
//! [`ops`](crate::ops) depend on this module, which depends on none of them.

mod custom_op;
mod mask;
mod parts;
mod routes;

pub use custom_op::{CustomOp, SavedForBackward};
pub use mask::Mask;
pub use parts::PartGradients;
pub use routes::{Routes, reaches};

/// The activation after a linear map or a normalization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The identity.
    None,
    /// GELU with erf (not the tanh approximation).
    Gelu,
    /// GELU as `x · ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))`, as in DiT's MLPs.
    GeluTanh,
    /// SiLU (swish).
    Silu,
    /// The rectifier, `max(x, 0)`, with slope 0 at 0.
    Relu,
}

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
    /// Number of the step, from 1.
    pub step: usize,
    /// Factor of the gradient, for clipping.
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

/// How [`categorical`](crate::ops::categorical) turns logits into a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 is greedy (the first of the largest).
    pub temperature: f32,
    /// Keep the `top_k` likeliest; 0 keeps all.
    pub top_k: usize,
    /// Of those, keep the smallest set of likeliest classes whose probability reaches `top_p`; 1 keeps all.
    pub top_p: f32,
}

impl Sampling {
    /// What logits are multiplied with, of a temperature above 0: finite even where its inverse is not, so that a
    /// difference of 0 stays one.
    pub(crate) fn inverse_temperature(&self) -> f32 {
        (1.0 / self.temperature).min(f32::MAX)
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
        }
    }
}
