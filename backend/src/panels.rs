//! Weights for inference in the order in which a processor multiplies them: read without being packed at every call,
//! and without a second copy in memory. What is saved keeps the order of the checkpoint.
//!
//! `[in, out]` becomes `[out / 64, in · 64]`: a row is a panel of 64 outputs, `[in, 64]` in f32. In bf16 the two
//! weights of a pair of inputs lie beside each other, `[in / 2, 64, 2]`. The shape itself says which it is, given the
//! number of inputs.

use burn::tensor::{DType, Tensor};

/// Outputs of a panel.
pub(crate) const PANEL: usize = 64;
/// Inputs come in multiples of it: the depth of a tile.
pub(crate) const STEP: usize = 32;

/// Whether a weight of these sizes has such an order: it is made of whole panels, and its shape says which it is.
pub(crate) fn possible([inputs, outputs]: [usize; 2]) -> bool {
    let whole = inputs.is_multiple_of(STEP) && outputs.is_multiple_of(PANEL);
    // Fewer panels than inputs, of a block of its columns as well: else the shape would not tell.
    whole && outputs > 0 && outputs < inputs * PANEL
}

/// Whether a weight of this shape is in panels.
pub(crate) fn are([rows, _]: [usize; 2], inputs: usize) -> bool {
    rows != inputs
}

/// The outputs of a weight of this shape, in either order.
pub(crate) fn outputs(shape: [usize; 2], inputs: usize) -> usize {
    match are(shape, inputs) {
        true => shape[0] * PANEL,
        false => shape[1],
    }
}

/// The weight `[in, out]`, in whichever order it is.
///
/// # Shapes
/// - weight: `[in, out]` or `[out / 64, in · 64]`
/// - output: `[in, out]`
pub(crate) fn in_rows(weight: Tensor<2>, inputs: usize) -> Tensor<2> {
    let shape = weight.dims();
    if !are(shape, inputs) {
        return weight;
    }
    let (outputs, pair) = match weight.dtype() {
        DType::F32 => (outputs(shape, inputs), 1),
        _ => (outputs(shape, inputs), 2),
    };
    weight
        .reshape([shape[0], inputs / pair, PANEL, pair]) // [out / 64, in / pair, 64, pair]
        .permute([1, 3, 0, 2]) // [in / pair, pair, out / 64, 64]
        .reshape([inputs, outputs]) // [in, out]
}
