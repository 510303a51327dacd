//! Latents to the values of tokens and back.

use burn::tensor::Tensor;

/// Squares of latents as rows, in the order of DiT's last layer.
///
/// # Shapes
/// - x: `[batch, channels, height, width]`
/// - output: `[batch, height / patch · width / patch, patch · patch · channels]`
pub fn patchify(x: Tensor<4>, patch: usize) -> Tensor<3> {
    let [batch, channels, height, width] = x.dims();
    let [rows, columns] = [height / patch, width / patch];
    x.reshape([batch, channels, rows, patch, columns, patch])
        .permute([0, 2, 4, 3, 5, 1]) // [batch, rows, columns, patch, patch, channels]
        .reshape([batch, rows * columns, patch * patch * channels])
}

/// The inverse of [`patchify`] for square images.
///
/// # Shapes
/// - tokens: `[batch, grid², patch · patch · channels]`
/// - output: `[batch, channels, grid · patch, grid · patch]`
pub fn unpatchify(tokens: Tensor<3>, patch: usize) -> Tensor<4> {
    let [batch, seq, width] = tokens.dims();
    let (grid, channels) = (seq.isqrt(), width / (patch * patch));
    tokens
        .reshape([batch, grid, grid, patch, patch, channels])
        .permute([0, 5, 1, 3, 2, 4]) // [batch, channels, rows, patch, columns, patch]
        .reshape([batch, channels, grid * patch, grid * patch])
}
