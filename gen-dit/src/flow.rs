//! Rectified flow (Liu et al., arXiv 2209.03003): a straight line from the latents at time 0 to noise at time 1. The
//! model predicts its velocity.

use crate::ddpm::TRAIN_STEPS;
use crate::embed::per_image;
use burn::tensor::Tensor;

/// The time that the model is given, in 0..1000 as for diffusion, of a flow's time in 0..=1.
pub(crate) fn model_time(time: f64) -> f32 {
    (time * TRAIN_STEPS as f64) as f32
}

/// `(1 − t) x_0 + t noise`.
///
/// # Shapes
/// - x0, noise, output: `[batch, channels, height, width]`
/// - times: one per image, in 0..=1
pub(crate) fn noised(x0: Tensor<4>, noise: Tensor<4>, times: &[f64]) -> Tensor<4> {
    let share = per_image(times.iter().copied(), &x0.device());
    x0.clone() + (noise - x0) * share
}
