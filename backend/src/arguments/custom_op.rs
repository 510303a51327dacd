//! Operations that other crates define.

use burn::tensor::Tensor;
use std::fmt::Debug;

/// What a forward pass saves for the backward pass.
pub type SavedForBackward = Vec<Tensor<4>>;

/// An operation with its own backward pass, for computations outside of this crate such as attention over many ranks.
/// Both passes run on tensors outside of autodiff.
pub trait CustomOp: Debug + Send + Sync {
    /// The output, and what [`backward`](Self::backward) needs.
    ///
    /// # Shapes
    /// - inputs, output: defined by the operation
    fn forward(&self, inputs: Vec<Tensor<4>>) -> (Tensor<4>, SavedForBackward);

    /// The gradients of the inputs, in their order, given that of the output.
    ///
    /// # Shapes
    /// - gradient: that of the output; results: those of the inputs
    fn backward(&self, saved: SavedForBackward, gradient: Tensor<4>) -> Vec<Tensor<4>>;
}
