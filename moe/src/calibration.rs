//! Calibration of thresholds (section 4) for weights that they were not updated with, such as an average of many steps.

use crate::{Moe, RouterTrace};

/// Number of batches.
const BATCHES: usize = 16;

/// The examples to calibrate on: whole batches of indices below `available`, evenly spaced, so that data sorted by
/// class cover all classes. If there are too few for one batch, one batch of all.
pub fn calibration_batches(available: usize, batch_size: usize) -> Vec<Vec<usize>> {
    let count = available.min(BATCHES * batch_size);
    let examples: Vec<usize> = (0..count).map(|i| i * available / count).collect();
    let batches = examples.chunks_exact(batch_size.min(count).max(1));
    batches.map(<[usize]>::to_vec).collect()
}

/// Thresholds at which experts are as busy as the config says: the mean cutoff of races within batches.
///
/// ```
/// # use tessera_moe::{Calibration, Moe, RouterTrace};
/// # fn example(passes: Vec<RouterTrace>, layers: &mut [Option<Moe>]) {
/// let calibration: Calibration = passes.into_iter().collect(); // forward passes in `Mode::Race`
/// calibration.apply(layers.iter_mut());
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Calibration {
    layers: Vec<Cutoffs>,
}

/// The cutoffs of one layer.
#[derive(Debug, Clone, Default)]
struct Cutoffs {
    sum: f64,
    count: u32,
}

impl Calibration {
    /// Adds a forward pass in [`Mode::Race`](crate::Mode::Race).
    pub fn add(&mut self, trace: &RouterTrace) {
        self.layers.resize(trace.layers.len(), Cutoffs::default());
        for (cutoffs, layer) in self.layers.iter_mut().zip(&trace.layers) {
            if let Some(cutoff) = layer.mask.cutoff() {
                cutoffs.sum += f64::from(cutoff);
                cutoffs.count += 1;
            }
        }
    }

    /// Gives every layer its threshold; a layer in which nothing was ever selected keeps its own.
    pub fn apply<'a>(self, layers: impl Iterator<Item = &'a mut Option<Moe>>) {
        for (layer, Cutoffs { sum, count }) in layers.zip(self.layers) {
            if count > 0 {
                let threshold = (sum / f64::from(count)) as f32;
                *layer = layer.take().map(|moe| moe.with_threshold(threshold));
            }
        }
    }
}

impl FromIterator<RouterTrace> for Calibration {
    fn from_iter<I: IntoIterator<Item = RouterTrace>>(passes: I) -> Self {
        let mut calibration = Self::default();
        for trace in passes {
            calibration.add(&trace);
        }
        calibration
    }
}
