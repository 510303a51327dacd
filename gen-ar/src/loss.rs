//! The training loss: cross-entropy of every dimension of the masked tokens (section 3.2 of the paper).

use crate::GenAr;
use crate::config::FirstPosition;
use crate::context::ForwardContext;
use crate::mask::MaskPlan;
use crate::positions::int_tensor;
use burn::tensor::{Int, Tensor};
use tessera_backend::{Rng, ops};
use tessera_moe::{Auxiliary, thresholds_after};
use tessera_train::Losses;

impl GenAr {
    /// The mean cross-entropy of the predicted tokens' dimensions, in nats. With experts, their auxiliary losses are
    /// added and `cross_entropy` is reported separately.
    ///
    /// On an autodiff device this is a training step: the config's dropout with masks from `rng`, and experts that
    /// race within the batch. Elsewhere the model runs as at inference. With tokens [sharded](Self::on) over ranks,
    /// the mean of the ranks' losses and gradients is that of all tokens.
    ///
    /// # Shapes
    /// - indices: `[batch, seq, dims]`, in `0..levels`
    /// - labels: one per image
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
        let context = &mut match device.is_autodiff() {
            true => ForwardContext::training(config, rng),
            false => ForwardContext::inference(),
        };
        let z = self.masked_features(indices.clone(), labels, plan, context);
        let predicted = plan.predicted();
        let (part, ranks) = (self.sequence.part(predicted.total()), self.sequence.ranks());
        if part.is_empty() {
            return Losses::new(z.sum() * 0.0);
        }
        let order = int_tensor(config.channel_order.iter().copied(), &device);
        let targets = indices
            .reshape([batch * seq, dims]) // [batch * seq, dims]
            .select(0, predicted.rows(seq, 0, &device))
            .narrow(0, part.start, part.len())
            .select(1, order); // [tokens, dims]
        let z = z.narrow(0, part.start, part.len());
        let first = FirstPosition::AsTrained;
        let logits = self.head_logits(z, targets.clone(), first, &mut context.dropout);
        let rows = dims * part.len();
        let logits = logits.reshape([rows, config.levels]); // [dims * tokens, levels]
        let targets = targets.transpose().reshape([rows]); // [dims * tokens]
        let cross_entropy = ops::cross_entropy(logits, targets);
        // A rank's share of the tokens, weighted so that the mean over ranks is the mean over all tokens.
        let cross_entropy =
            cross_entropy.sum() / ((dims * predicted.total()) as f64 / ranks as f64);
        let Some(moe) = &config.moe else {
            return Losses::new(cross_entropy);
        };
        let auxiliary = Auxiliary::of(moe, &context.trace.layers, None);
        let mut parts = vec![("cross_entropy", cross_entropy.clone())];
        parts.extend(auxiliary.parts);
        Losses {
            total: match auxiliary.total {
                Some(total) => cross_entropy + total,
                None => cross_entropy,
            },
            parts,
            buffers: thresholds_after(self.experts(), &context.trace),
        }
    }
}
