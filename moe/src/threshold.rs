//! The thresholds of a model's layers: as they go on in training, and measured again for weights that they were not learned
//! with, such as an average of many steps (section 4).

use crate::{Moe, Trace};

/// The thresholds after a step of training, under the names of the parameters. `layers` are the model's, in the order in which
/// activations go through them, each with the name of its block.
pub fn thresholds_after<'a>(
    layers: impl Iterator<Item = (String, &'a Moe)>,
    trace: &Trace,
) -> Vec<(String, f32)> {
    let traced = layers.zip(&trace.layers);
    traced
        .map(|((block, moe), layer)| {
            let threshold = moe.next_threshold(layer.winners.kth());
            (threshold_name(&block), threshold)
        })
        .collect()
}

/// The name of a block's threshold in a state dict.
pub fn threshold_name(block: &str) -> String {
    format!("{block}.moe.router.threshold")
}

/// Thresholds at which experts are as busy as the config says: the mean of what the K-th score is where batches race.
#[derive(Debug, Clone, Default)]
pub struct Calibration {
    /// Of each layer: the sum of the K-th scores, and how many there were.
    sums: Vec<(f64, u32)>,
}

impl Calibration {
    /// Counts a pass in which batches raced.
    pub fn add(&mut self, trace: &Trace) {
        self.sums.resize(trace.layers.len(), (0.0, 0));
        for (sum, layer) in self.sums.iter_mut().zip(&trace.layers) {
            if let Some(kth) = layer.winners.kth() {
                *sum = (sum.0 + f64::from(kth), sum.1 + 1);
            }
        }
    }

    /// Gives every layer its threshold; one in which nothing ever won keeps its own.
    pub fn apply<'a>(self, layers: impl Iterator<Item = &'a mut Option<Moe>>) {
        for (layer, (sum, count)) in layers.zip(self.sums) {
            if count > 0 {
                let threshold = (sum / f64::from(count)) as f32;
                *layer = layer.take().map(|moe| moe.with_threshold(threshold));
            }
        }
    }
}
