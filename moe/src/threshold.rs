//! The thresholds of a model's layers (section 4), and their update in training.

use crate::{Moe, RouterTrace};

/// The thresholds after a training step, by parameter name. The training loop writes them into the model and its
/// average, as it does with all buffers. `layers` come in the order of the forward pass, each with the name of its
/// block.
pub fn thresholds_after<'a>(
    layers: impl Iterator<Item = (String, &'a Moe)>,
    trace: &RouterTrace,
) -> Vec<(String, f32)> {
    let traced = layers.zip(&trace.layers);
    traced
        .map(|((block, moe), layer)| {
            let threshold = moe.next_threshold(layer.mask.cutoff());
            (threshold_name(&block), threshold)
        })
        .collect()
}

/// The name of a block's threshold in a state dict.
pub fn threshold_name(block: &str) -> String {
    format!("{block}.moe.router.threshold")
}
