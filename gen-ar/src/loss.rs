//! The training loss: cross-entropy of every dimension of the masked tokens (section 3.2 of the paper).

use crate::config::FirstPosition;
use crate::pass::Pass;
use crate::positions::{Positions, int_tensor};
use crate::{GenAr, GenArConfig};
use burn::tensor::{Int, Tensor};
use std::ops::Range;
use tessera_backend::{Rng, ops};
use tessera_moe::{Auxiliary, thresholds_after};
use tessera_train::Losses;

/// What one training step hides: positions from the encoder, classes from some images.
#[derive(Debug, Clone)]
pub struct MaskPlan {
    /// What each image keeps last to first masked: its first `masked` positions are masked.
    orders: Vec<Vec<usize>>,
    masked: usize,
    /// Of the masked, those the head is trained on.
    head: usize,
    class_dropped: Vec<bool>,
}

impl MaskPlan {
    /// Draws the mask ratio of the step from a normal around 1 cut to `mask_ratio_min..=1`, every image's own masked
    /// positions, as many in each, and which images lose their class.
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

    /// Masks the first `masked` positions of each image's order and keeps every class: for evaluation.
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

    /// Trains the head on a random `share` of the masked positions, at least one of each image. The gradient is
    /// unbiased, at a higher variance; the head is most of a step's work.
    ///
    /// # Panics
    /// If `share` is not in `0..=1`.
    pub fn with_head_subset(mut self, share: f32) -> Self {
        assert!((0.0..=1.0).contains(&share), "a share is in 0..=1");
        self.head = ((self.masked as f32 * share).ceil() as usize).clamp(1, self.masked);
        self
    }

    /// The plan of some of the images alone.
    pub fn part(self, images: Range<usize>) -> Self {
        Self {
            orders: self.orders[images.clone()].to_vec(),
            class_dropped: self.class_dropped[images].to_vec(),
            ..self
        }
    }

    /// Images of the step.
    pub fn batch(&self) -> usize {
        self.orders.len()
    }

    /// Positions the encoder sees.
    pub fn visible(&self) -> Positions {
        Positions::new(
            self.orders
                .iter()
                .map(|order| order[self.masked..].to_vec()),
        )
    }

    /// Positions the head is trained on: the orders being random, the first of the masked ones.
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

/// `N(1, std²)` cut to `min..=1`, by rejection from the uniform law there. What lies more than 8 std below 1 has no
/// weight in f64; without it at least 3 of 20 draws are taken, however small `std` is.
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
    /// Mean cross-entropy in nats over the dimensions of the predicted tokens and, where experts race, what keeps them apart
    /// and even; `cross_entropy` is then a part on its own. On an autodiff device the config's dropout is in it (masks from
    /// `rng`), and experts race in the batch; elsewhere the model is as at inference. With tokens [dealt](Self::on) to ranks, the loss
    /// and its gradients are the means of what the ranks give.
    ///
    /// # Shapes
    /// - indices: `[batch, seq, dims]`
    ///
    /// # Panics
    /// If the batch is not the plan's, or a label is not a class.
    pub fn loss(
        &self,
        indices: Tensor<3, Int>,
        labels: &[usize],
        plan: &MaskPlan,
        rng: &mut Rng,
    ) -> Losses {
        let ([batch, seq, dims], config, device) = (indices.dims(), &self.config, indices.device());
        let pass = &mut match device.is_autodiff() {
            true => Pass::training(config, rng),
            false => Pass::inference(),
        };
        let z = self.masked_features(indices.clone(), labels, plan, pass);
        let predicted = plan.predicted();
        let (part, ranks) = (self.sequence.part(predicted.total()), self.sequence.ranks());
        if part.is_empty() {
            return Losses::new(z.sum() * 0.0);
        }
        let order = int_tensor(config.channel_order.iter().copied(), &device);
        let targets = indices
            .reshape([batch * seq, dims])
            .select(0, predicted.rows(seq, 0, &device))
            .narrow(0, part.start, part.len())
            .select(1, order); // [tokens, dims]
        let z = z.narrow(0, part.start, part.len());
        let first = FirstPosition::AsTrained;
        let logits = self.head_logits(z, targets.clone(), first, &mut pass.dropout);
        let rows = dims * part.len();
        let cross_entropy = ops::cross_entropy(
            logits.reshape([rows, config.levels]),
            targets.transpose().reshape([rows]),
        );
        // Of a share of the tokens, so that the mean over the ranks is the mean over all.
        let cross_entropy =
            cross_entropy.sum() / ((dims * predicted.total()) as f64 / ranks as f64);
        let Some(moe) = &config.moe else {
            return Losses::new(cross_entropy);
        };
        let auxiliary = Auxiliary::of(moe, &pass.trace.layers, None);
        let mut parts = vec![("cross_entropy", cross_entropy.clone())];
        parts.extend(auxiliary.parts);
        Losses {
            total: match auxiliary.total {
                Some(total) => cross_entropy + total,
                None => cross_entropy,
            },
            parts,
            measured: thresholds_after(self.experts(), &pass.trace),
        }
    }

    /// The features of the predicted tokens, from what the plan leaves visible.
    ///
    /// # Shapes
    /// - indices: `[batch, seq, dims]`
    /// - output: `[predicted, dec.width]`
    pub(crate) fn masked_features(
        &self,
        indices: Tensor<3, Int>,
        labels: &[usize],
        plan: &MaskPlan,
        pass: &mut Pass<'_>,
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
        let seen = indices.reshape([batch * seq, dims]).select(0, seen);
        let values = self.values_of(seen);
        let encoded = self.encode(values, &visible, &plan.classes(labels), pass);
        self.decode(encoded, &visible, &plan.predicted(), pass)
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
