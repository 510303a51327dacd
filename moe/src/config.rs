//! The config of a layer of experts and of its training.

use crate::{Error, Gate, Result, RoutingRule};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A mixture of experts in place of an MLP. Each expert's hidden layer is 1 / `split` as wide as the MLP's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoeConfig {
    /// Number of experts, E.
    pub experts: usize,
    /// The dense MLP's hidden width divided by an expert's.
    pub split: usize,
    /// Mean number of experts per token; need not be an integer.
    pub k: f64,
    /// Which scores race in training (figure 3).
    #[serde(default)]
    pub rule: RoutingRule,
    /// The gating function (table 1).
    #[serde(default)]
    pub gate: Gate,
    /// Whether inference routes by the threshold that training maintains (section 4). Without it, tokens race within
    /// each image, so that an image does not depend on its batch either way.
    #[serde(default = "yes")]
    pub threshold: bool,
    /// The threshold's momentum m, in `τ ← m τ + (1 − m) cutoff`.
    #[serde(default = "momentum")]
    pub momentum: f64,
    /// Weight of the router similarity loss of each layer.
    #[serde(default)]
    pub similarity_weight: f64,
    /// Weight of Switch's balance loss of each layer.
    #[serde(default)]
    pub balance_weight: f64,
    /// Weight of the per-layer regularization of each layer; 0 makes no target heads.
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
    /// `k`-in-`experts`: k experts per token, each 1 / k as wide as the dense MLP. The rest as in the paper: Expert
    /// Race, the identity gate, a threshold, a similarity loss of weight 1e-4 and per-layer regularization of weight
    /// 1e-2.
    pub fn k_in_e(k: usize, experts: usize) -> Self {
        Self {
            experts,
            split: k,
            k: k as f64,
            rule: RoutingRule::Race,
            gate: Gate::Identity,
            threshold: true,
            momentum: 0.95,
            similarity_weight: 1e-4,
            balance_weight: 0.0,
            target_weight: 1e-2,
        }
    }

    /// Refuses races that select nobody: with few tokens K can round to 0, and nothing would be learned.
    ///
    /// # Shapes
    /// - shape: `[batch, seq]` of a part of a batch in training
    ///
    /// # Errors
    /// [`Error::NobodyWins`].
    pub fn validate_races(&self, [batch, seq]: [usize; 2]) -> Result<()> {
        let shape = [batch, seq, self.experts];
        match self.k > 0.0 && self.rule.selected(shape, self.k) == 0 {
            false => Ok(()),
            true => Err(Error::NobodyWins {
                rule: self.rule,
                k: self.k,
                shape,
            }),
        }
    }

    /// Checks every field, and that `split` divides `hidden`, the dense MLP's hidden width.
    ///
    /// # Errors
    /// [`Error::Config`] names the first field that is out of range.
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
/// Experts at most, as text: larger numbers overflow before they are out of memory.
const MOST_EXPERTS: usize = 65_536;

impl FromStr for MoeConfig {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.replace('-', "");
        let parsed = parsed
            .split_once("in")
            .and_then(|(k, experts)| Some((k.parse().ok()?, experts.parse().ok()?)));
        match parsed {
            Some((k, experts)) if (1..=experts).contains(&k) && experts <= MOST_EXPERTS => {
                Ok(Self::k_in_e(k, experts))
            }
            _ => Err(Error::KInE { found: text.into() }),
        }
    }
}
