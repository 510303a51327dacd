//! The masking of training, and the features of masked tokens.

use crate::GenAr;
use crate::config::GenArConfig;
use crate::context::ForwardContext;
use crate::positions::Positions;
use burn::tensor::{Int, Tensor};
use std::ops::Range;
use tessera_backend::Rng;

/// The masking of one training step: the positions hidden from the encoder, and the images whose class is hidden.
#[derive(Debug, Clone)]
pub struct MaskPlan {
    /// A permutation of each image's positions, of which the first `masked` are masked.
    orders: Vec<Vec<usize>>,
    masked: usize,
    /// How many of the masked positions the head is trained on.
    head: usize,
    class_dropped: Vec<bool>,
}

impl MaskPlan {
    /// Draws the step's mask ratio from a normal distribution around 1 truncated to `mask_ratio_min..=1`, the masked
    /// positions of every image, equally many in each, and the images whose class is hidden.
    pub fn draw(config: &GenArConfig, batch: usize, rng: &mut Rng) -> Self {
        let ratio = mask_ratio(
            config.mask_ratio_min.into(),
            config.mask_ratio_std.into(),
            rng,
        );
        let masked = ((config.seq() as f64 * ratio).ceil() as usize).clamp(1, config.seq());
        let orders = (0..batch).map(|_| rng.permutation(config.seq())).collect();
        let class_dropped = (0..batch)
            .map(|_| rng.uniform() < config.label_drop_prob)
            .collect();
        Self {
            orders,
            masked,
            head: masked,
            class_dropped,
        }
    }

    /// Masks the first `masked` positions of each image's order and hides no class: for evaluation.
    ///
    /// # Panics
    /// If `masked` is 0 or more than an order holds.
    pub fn from_orders(orders: Vec<Vec<usize>>, masked: usize) -> Self {
        assert!(masked > 0 && orders.iter().all(|order| masked <= order.len()));
        Self {
            class_dropped: vec![false; orders.len()],
            orders,
            masked,
            head: masked,
        }
    }

    /// Trains the head on a random `share` of the masked positions, at least one per image. The gradient stays
    /// unbiased, with a higher variance; the head is most of a step's work.
    ///
    /// # Panics
    /// If `share` is not in `0..=1`.
    pub fn with_head_subset(mut self, share: f32) -> Self {
        assert!((0.0..=1.0).contains(&share), "a share is in 0..=1");
        self.head = ((self.masked as f32 * share).ceil() as usize).clamp(1, self.masked);
        self
    }

    /// The plan of some of the images.
    pub fn part(self, images: Range<usize>) -> Self {
        Self {
            orders: self.orders[images.clone()].to_vec(),
            class_dropped: self.class_dropped[images].to_vec(),
            ..self
        }
    }

    /// Number of images.
    pub fn batch(&self) -> usize {
        self.orders.len()
    }

    /// The positions that the encoder sees.
    pub fn visible(&self) -> Positions {
        Positions::new(
            self.orders
                .iter()
                .map(|order| order[self.masked..].to_vec()),
        )
    }

    /// The positions that the head is trained on: the first of the masked ones, in an order that is random.
    pub fn predicted(&self) -> Positions {
        Positions::new(self.orders.iter().map(|order| order[..self.head].to_vec()))
    }

    fn classes(&self, labels: &[usize]) -> Vec<Option<usize>> {
        labels
            .iter()
            .zip(&self.class_dropped)
            .map(|(&label, dropped)| (!dropped).then_some(label))
            .collect()
    }
}

/// `N(1, std²)` truncated to `min..=1`, by rejection from the uniform distribution there. More than 8 std below 1 the
/// density vanishes in f64; without that part at least 3 of 20 draws are accepted, however small `std` is.
fn mask_ratio(min: f64, std: f64, rng: &mut Rng) -> f64 {
    let width = (1.0 - min).min(8.0 * std);
    loop {
        let ratio = 1.0 - width * f64::from(rng.uniform());
        let z = (1.0 - ratio) / std;
        if f64::from(rng.uniform()) < (-0.5 * z * z).exp() {
            return ratio;
        }
    }
}

impl GenAr {
    /// The features of the predicted tokens, computed from the visible ones.
    ///
    /// # Shapes
    /// - indices: `[batch, seq, dims]`
    /// - output: `[batch * predicted, dec.width]`
    pub(crate) fn masked_features(
        &self,
        indices: Tensor<3, Int>,
        labels: &[usize],
        plan: &MaskPlan,
        context: &mut ForwardContext<'_>,
    ) -> Tensor<2> {
        let ([batch, seq, dims], config) = (indices.dims(), &self.config);
        assert_eq!(
            [batch, batch, seq, dims],
            [
                labels.len(),
                plan.batch(),
                config.seq(),
                config.token_embed_dim
            ]
        );
        assert!(
            labels.iter().all(|&label| label < config.class_num),
            "a label is a class"
        );
        let visible = plan.visible();
        let seen = visible.rows(seq, 0, &indices.device());
        let seen = indices.reshape([batch * seq, dims]).select(0, seen); // [batch * visible, dims]
        let values = self.values_of(seen);
        let encoded = self.encode(values, &visible, &plan.classes(labels), context);
        self.decode(encoded, &visible, &plan.predicted(), context)
    }

    fn values_of(&self, seen: Tensor<2, Int>) -> Option<Tensor<2>> {
        (seen.dims()[0] > 0).then(|| self.dequantize(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_ratio_has_the_mean_of_the_cut_normal() {
        let mut rng = Rng::new(5, 0);
        let ratios: Vec<f64> = (0..20_000)
            .map(|_| mask_ratio(0.7, 0.25, &mut rng))
            .collect();
        assert!(ratios.iter().all(|r| (0.7..=1.0).contains(r)));
        // Mean of N(1, 0.25²) on [0.7, 1]: 1 - 0.25 (φ(0) - φ(1.2)) / (Φ(0) - Φ(-1.2)).
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        assert!((mean - 0.8669).abs() < 0.002, "{mean}");
        assert_eq!(mask_ratio(1.0, 0.25, &mut rng), 1.0);
        assert!(mask_ratio(0.0, 1e-6, &mut rng) > 0.99999);
    }
}
