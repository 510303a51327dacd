//! What keeps the experts' loads even and their combinations many.

use crate::{LayerTrace, MoeConfig, Winners};
use burn::tensor::{Tensor, activation};
use tessera_backend::device_values;

/// The losses of all layers beside a model's own.
#[derive(Debug, Clone)]
pub struct Auxiliary {
    /// Their sum, weighted by the config; `None` if it gives none a weight.
    pub total: Option<Tensor<1>>,
    /// Means over the layers of what has a weight, by name, for reports.
    pub parts: Vec<(&'static str, Tensor<1>)>,
}

impl Auxiliary {
    /// Sums the losses of the layers. `target` is what the target heads should have guessed.
    ///
    /// # Shapes
    /// - target: `[batch, seq, target]`
    pub fn of(config: &MoeConfig, layers: &[LayerTrace], target: Option<Tensor<3>>) -> Self {
        let mut auxiliary = Self {
            total: None,
            parts: Vec::new(),
        };
        let routed = |loss: fn(Tensor<3>, &Winners) -> Tensor<1>| -> Vec<Tensor<1>> {
            let layers = layers.iter();
            layers
                .map(|layer| loss(layer.logits.clone(), &layer.winners))
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
            let guesses = layers.iter().filter_map(|layer| layer.target.clone());
            let losses = guesses.map(|guess| {
                let error = guess - target.clone();
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

/// The router similarity loss (section 5, equations 9 to 11): `Σ W ⊙ PᵀP / T` with P the softmax of the logits and W, without
/// gradient, how often two experts share a token, in multiples of its mean (on the diagonal: an expert's load in multiples of
/// the mean load). 1 where loads are even and every pair is as frequent; E where one expert has everything.
///
/// # Shapes
/// - logits: `[batch, seq, experts]`
/// - output: `[1]`
pub fn similarity_loss(logits: Tensor<3>, winners: &Winners) -> Tensor<1> {
    let [batch, seq, experts] = logits.dims();
    assert_eq!(winners.shape(), [batch, seq, experts]);
    let weights = pair_weights(winners);
    let weights = device_values(weights, [experts, experts], &logits.device());
    let p = activation::softmax(logits.reshape([batch * seq, experts]), 1);
    let similarity = p.clone().transpose().matmul(p); // P' of eq. (9), [experts, experts]
    (weights * similarity).sum() / (batch * seq) as f64
}

/// W of equations (10) and (11), row-major.
fn pair_weights(winners: &Winners) -> Vec<f32> {
    let [_, _, experts] = winners.shape();
    let mut shared = shared_tokens(winners);
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

/// `M' = MᵀM`, row-major: how many tokens two experts share, and on the diagonal the load of each.
pub(crate) fn shared_tokens(winners: &Winners) -> Vec<f64> {
    let [_, _, experts] = winners.shape();
    let mut shared = vec![0.0; experts * experts];
    let mut of_token = Vec::with_capacity(experts);
    for row in winners.rows() {
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

/// Switch's balance loss (Fedus et al. 2022, arXiv 2101.03961, eq. 4): `E Σ f_i P̄_i`, f the share of all assignments that
/// expert i has, without gradient, and P̄ its mean probability. 1 where loads are even, whatever the pairs.
///
/// # Shapes
/// - logits: `[batch, seq, experts]`
/// - output: `[1]`
pub fn balance_loss(logits: Tensor<3>, winners: &Winners) -> Tensor<1> {
    let [batch, seq, experts] = logits.dims();
    assert_eq!(winners.shape(), [batch, seq, experts]);
    let mut loads = vec![0.0_f32; experts];
    for row in winners.rows() {
        for (load, &won) in loads.iter_mut().zip(row) {
            *load += f32::from(u8::from(won));
        }
    }
    let total = loads.iter().sum::<f32>().max(1.0);
    loads.iter_mut().for_each(|load| *load /= total);
    let shares = device_values(loads, [1, experts], &logits.device());
    let p = activation::softmax(logits.reshape([batch * seq, experts]), 1);
    (shares * p.mean_dim(0)).sum() * experts as f64
}
