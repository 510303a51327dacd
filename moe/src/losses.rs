//! The auxiliary losses: router similarity (section 5, equations 9 to 11), Switch's balance loss for comparison, and
//! per-layer regularization (section 6).

use crate::{LayerTrace, MoeConfig, RoutingMask};
use burn::tensor::{Tensor, activation};
use tessera_backend::device_values;

/// The auxiliary losses of all layers.
#[derive(Debug, Clone)]
pub struct Auxiliary {
    /// Their weighted sum, `[1]`; `None` if the config gives no loss a weight.
    pub total: Option<Tensor<1>>,
    /// The losses that have a weight, by name and averaged over the layers, for reports.
    pub parts: Vec<(&'static str, Tensor<1>)>,
}

impl Auxiliary {
    /// The losses of a forward pass. `target` is the model's training target, which the target heads predict (section
    /// 6).
    ///
    /// # Shapes
    /// - target: `[batch, seq, target]`
    /// - every loss: `[1]`
    pub fn of(config: &MoeConfig, layers: &[LayerTrace], target: Option<Tensor<3>>) -> Self {
        let mut auxiliary = Self {
            total: None,
            parts: Vec::new(),
        };
        let routed = |loss: fn(Tensor<3>, &RoutingMask) -> Tensor<1>| -> Vec<Tensor<1>> {
            let layers = layers.iter();
            layers
                .map(|layer| loss(layer.logits.clone(), &layer.mask))
                .collect()
        };
        if config.similarity_weight > 0.0 {
            auxiliary.add(
                "similarity",
                config.similarity_weight,
                routed(similarity_loss),
            );
        }
        if config.balance_weight > 0.0 {
            auxiliary.add("balance", config.balance_weight, routed(balance_loss));
        }
        if let Some(target) = target.filter(|_| config.target_weight > 0.0) {
            let predictions = layers.iter().filter_map(|layer| layer.target.clone());
            let losses = predictions.map(|prediction| {
                let error = prediction - target.clone();
                (error.clone() * error).mean()
            });
            auxiliary.add("target", config.target_weight, losses.collect());
        }
        auxiliary
    }

    fn add(&mut self, name: &'static str, weight: f64, losses: Vec<Tensor<1>>) {
        let layers = losses.len() as f64;
        let Some(sum) = losses.into_iter().reduce(|a, b| a + b) else {
            return;
        };
        self.parts.push((name, sum.clone() / layers));
        let weighted = sum * weight;
        self.total = Some(match self.total.take() {
            Some(total) => total + weighted,
            None => weighted,
        });
    }
}

/// The router similarity loss (section 5, equations 9 to 11): `Σ W ⊙ PᵀP / T` over T tokens, with P the softmax of
/// the logits. W, which has no gradient, holds the co-activations of two experts relative to their mean, and on the
/// diagonal an expert's load relative to the mean load. 1 if all loads and all pairs are equally frequent, E if one
/// expert takes every token.
///
/// # Shapes
/// - logits: `[batch, seq, experts]`
/// - output: `[1]`
pub fn similarity_loss(logits: Tensor<3>, mask: &RoutingMask) -> Tensor<1> {
    let [batch, seq, experts] = logits.dims();
    assert_eq!(mask.shape(), [batch, seq, experts]);
    let weights = pair_weights(mask);
    let weights = device_values(weights, [experts, experts], &logits.device());
    let p = activation::softmax(logits.reshape([batch * seq, experts]), 1); // [tokens, experts]
    let similarity = p.clone().transpose().matmul(p); // P' = PᵀP, [experts, experts]
    (weights * similarity).sum() / (batch * seq) as f64
}

/// W, `[experts, experts]`: equations 10 and 11.
fn pair_weights(mask: &RoutingMask) -> Vec<f32> {
    let [_, _, experts] = mask.shape();
    let mut shared = shared_tokens(mask);
    let on_diagonal = |index: usize| index / experts == index % experts;
    let sum = |diagonal: bool| -> f64 {
        let of = shared.iter().enumerate();
        of.filter(|(i, _)| on_diagonal(*i) == diagonal)
            .map(|(_, m)| m)
            .sum()
    };
    let (loads, pairs) = (sum(true), sum(false));
    let number = experts as f64;
    for (index, m) in shared.iter_mut().enumerate() {
        let (places, total) = match on_diagonal(index) {
            true => (number, loads),
            false => (number * number - number, pairs),
        };
        *m = if total > 0.0 {
            places * *m / total
        } else {
            0.0
        };
    }
    shared.into_iter().map(|m| m as f32).collect()
}

/// `M' = MᵀM`, `[experts, experts]`: the tokens that two experts share, and on the diagonal each expert's load.
pub(crate) fn shared_tokens(mask: &RoutingMask) -> Vec<f64> {
    let [_, _, experts] = mask.shape();
    let mut shared = vec![0.0; experts * experts];
    let mut of_token = Vec::with_capacity(experts);
    for row in mask.rows() {
        of_token.clear();
        of_token.extend((0..experts).filter(|&expert| row[expert]));
        for &a in &of_token {
            for &b in &of_token {
                shared[a * experts + b] += 1.0;
            }
        }
    }
    shared
}

/// Switch's balance loss (Fedus et al. 2022, arXiv 2101.03961, eq. 4): `E Σ f_i P̄_i` with f_i expert i's share of all
/// assignments, without gradient, and P̄_i its mean probability. 1 if all loads are equal, whatever the pairs.
///
/// # Shapes
/// - logits: `[batch, seq, experts]`
/// - output: `[1]`
pub fn balance_loss(logits: Tensor<3>, mask: &RoutingMask) -> Tensor<1> {
    let [batch, seq, experts] = logits.dims();
    assert_eq!(mask.shape(), [batch, seq, experts]);
    let mut loads = vec![0.0_f32; experts];
    for row in mask.rows() {
        for (load, &won) in loads.iter_mut().zip(row) {
            *load += f32::from(u8::from(won));
        }
    }
    let total = loads.iter().sum::<f32>().max(1.0);
    loads.iter_mut().for_each(|load| *load /= total);
    let shares = device_values(loads, [1, experts], &logits.device());
    let p = activation::softmax(logits.reshape([batch * seq, experts]), 1); // [tokens, experts]
    (shares * p.mean_dim(0)).sum() * experts as f64
}
