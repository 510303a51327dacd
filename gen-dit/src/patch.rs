//! Conversion between latents and the values of tokens.

use burn::tensor::Tensor;

/// The values of each patch as one row, in the order of DiT's final layer.
///
/// # Shapes
/// - x: `[batch, channels, height, width]`
/// - output: `[batch, height / patch · width / patch, patch · patch · channels]`
pub fn patchify(x: Tensor<4>, patch: usize) -> Tensor<3> {
    let [batch, channels, height, width] = x.dims();
    let [rows, columns] = [height / patch, width / patch];
    x.reshape([batch, channels, rows, patch, columns, patch]) // [batch, channels, rows, patch, columns, patch]
        .permute([0, 2, 4, 3, 5, 1]) // [batch, rows, columns, patch, patch, channels]
        .reshape([batch, rows * columns, patch * patch * channels]) // [batch, tokens, values]
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
        .reshape([batch, grid, grid, patch, patch, channels]) // [batch, rows, columns, patch, patch, channels]
        .permute([0, 5, 1, 3, 2, 4]) // [batch, channels, rows, patch, columns, patch]
        .reshape([batch, channels, grid * patch, grid * patch]) // [batch, channels, height, width]
}
