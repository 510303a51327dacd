//! What defines a layer of experts and how it is trained.

use crate::{Error, Gate, Result, Rule};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A mixture of experts in place of an MLP: `split`-in-`experts`, each expert a `split`-th as wide as the MLP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoeConfig {
    /// Experts of a layer, E.
    pub experts: usize,
    /// An expert's hidden width is the dense MLP's divided by it.
    pub split: usize,
    /// Experts that a token has on average; need not be whole.
    pub k: f64,
    /// Who races whom in training.
    #[serde(default)]
    pub rule: Rule,
    /// What scales an expert's output.
    #[serde(default)]
    pub gate: Gate,
    /// Whether inference takes the scores above a threshold learned in training. Without, the races are run image by image,
    /// so that a picture still does not depend on its batch.
    #[serde(default = "yes")]
    pub threshold: bool,
    /// What the threshold keeps of itself at each step, m in `threshold = m · threshold + (1 − m) · K-th score`.
    #[serde(default = "momentum")]
    pub momentum: f64,
    /// Weight of the router similarity loss of each layer.
    #[serde(default)]
    pub similarity_weight: f64,
    /// Weight of Switch's balance loss of each layer.
    #[serde(default)]
    pub balance_weight: f64,
    /// Weight of the per-layer regularisation of each layer; 0 makes no target heads.
    #[serde(default)]
    pub target_weight: f64,
}

fn yes() -> bool {
    true
}

fn momentum() -> f64 {
    MoeConfig::k_in_e(1, 1).momentum
}

impl MoeConfig {
    /// `k` of `experts`, each a k-th as wide as the dense MLP, with the paper's choices: Expert Race, the identity gate, a
    /// threshold, similarity loss 1e-4 and per-layer regularisation 1e-2.
    pub fn k_in_e(k: usize, experts: usize) -> Self {
        Self {
            experts,
            split: k,
            k: k as f64,
            rule: Rule::Race,
            gate: Gate::Identity,
            threshold: true,
            momentum: 0.95,
            similarity_weight: 1e-4,
            balance_weight: 0.0,
            target_weight: 1e-2,
        }
    }

    /// Refuses what no layer can be.
    ///
    /// # Errors
    /// [`Error::Config`] names the field, also where `hidden` does not divide by `split`.
    pub fn validate(&self, hidden: usize) -> Result<()> {
        let positive = |x: f64| x.is_finite() && x >= 0.0;
        let checks = [
            (
                "experts",
                self.experts > 0,
                "1 or more".into(),
                self.experts.to_string(),
            ),
            (
                "split",
                self.split > 0 && hidden.is_multiple_of(self.split),
                format!("a divisor of the MLP's width {hidden}"),
                self.split.to_string(),
            ),
            (
                "k",
                self.k >= 0.0 && self.k <= self.experts as f64,
                format!("in 0..={}", self.experts),
                self.k.to_string(),
            ),
            (
                "momentum",
                (0.0..1.0).contains(&self.momentum),
                "in 0..1".into(),
                self.momentum.to_string(),
            ),
            (
                "similarity_weight",
                positive(self.similarity_weight),
                "0 or more".into(),
                self.similarity_weight.to_string(),
            ),
            (
                "balance_weight",
                positive(self.balance_weight),
                "0 or more".into(),
                self.balance_weight.to_string(),
            ),
            (
                "target_weight",
                positive(self.target_weight),
                "0 or more".into(),
                self.target_weight.to_string(),
            ),
        ];
        match checks.into_iter().find(|check| !check.1) {
            None => Ok(()),
            Some((field, _, expected, found)) => Err(Error::Config {
                field,
                expected,
                found,
            }),
        }
    }
}

/// `4-in-32`, or `4in32`.
impl FromStr for MoeConfig {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.replace('-', "");
        let parsed = parsed
            .split_once("in")
            .and_then(|(k, experts)| Some((k.parse().ok()?, experts.parse().ok()?)));
        match parsed {
            Some((k, experts)) if (1..=experts).contains(&k) => Ok(Self::k_in_e(k, experts)),
            _ => Err(Error::KInE { found: text.into() }),
        }
    }
}
