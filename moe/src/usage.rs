//! Load balance: MaxVio and combination usage (section 5, table 2; section 11, figure 13).

use crate::RoutingMask;
use crate::losses::shared_tokens;

/// The share of all co-activations that the pairs in use account for (figure 13).
const MOST_SHARED: f64 = 0.95;

/// Statistics of one layer over any number of forward passes.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    experts: usize,
    tokens: u64,
    unrouted: u64,
    /// `MᵀM`: the experts' loads on the diagonal, the tokens that two experts share off it.
    shared: Vec<f64>,
}

impl Usage {
    /// Empty statistics.
    pub fn new(experts: usize) -> Self {
        Self {
            experts,
            tokens: 0,
            unrouted: 0,
            shared: vec![0.0; experts * experts],
        }
    }

    /// The statistics of one forward pass.
    pub fn of(mask: &RoutingMask) -> Self {
        let mut usage = Self::new(mask.shape()[2]);
        usage.add(mask);
        usage
    }

    /// Adds a forward pass.
    ///
    /// # Panics
    /// If the number of experts differs.
    pub fn add(&mut self, mask: &RoutingMask) {
        assert_eq!(mask.shape()[2], self.experts);
        self.tokens += mask.rows().len() as u64;
        self.unrouted += mask.rows().filter(|row| !row.contains(&true)).count() as u64;
        for (sum, more) in self.shared.iter_mut().zip(shared_tokens(mask)) {
            *sum += more;
        }
    }

    /// Number of tokens.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The number of tokens of each expert.
    pub fn loads(&self) -> Vec<u64> {
        let diagonal = self.shared.iter().step_by(self.experts + 1);
        diagonal.map(|&load| load as u64).collect()
    }

    /// The mean number of experts per token: the k in effect.
    pub fn mean_active(&self) -> f64 {
        self.loads().iter().sum::<u64>() as f64 / (self.tokens as f64).max(1.0)
    }

    /// The share of tokens without an expert.
    pub fn share_without(&self) -> f64 {
        self.unrouted as f64 / (self.tokens as f64).max(1.0)
    }

    /// MaxVio, `max load / mean load − 1`: 0 if all loads are equal, at most E / k − 1 if every token has k experts.
    /// 0 without tokens.
    pub fn max_vio(&self) -> f64 {
        let loads = self.loads();
        let mean = loads.iter().sum::<u64>() as f64 / self.experts as f64;
        let most = loads.into_iter().max().unwrap_or(0) as f64;
        if mean > 0.0 { most / mean - 1.0 } else { 0.0 }
    }

    /// Combination usage (figure 13): the share of expert pairs that, in descending order of frequency, account for
    /// less than 95 % of all co-activations. 0 if no two experts share a token.
    pub fn combination_usage(&self) -> f64 {
        let pairs = (0..self.experts).flat_map(|a| (0..a).map(move |b| (a, b)));
        let mut counts: Vec<f64> = pairs
            .map(|(a, b)| self.shared[a * self.experts + b])
            .collect();
        let total: f64 = counts.iter().sum();
        if total == 0.0 {
            return 0.0;
        }
        counts.sort_by(|a, b| b.total_cmp(a));
        let mut reached = 0.0;
        let in_use = counts.iter().take_while(|&&count| {
            reached += count / total;
            reached < MOST_SHARED
        });
        in_use.count() as f64 / counts.len() as f64
    }
}
