//! How evenly experts are used (section 5, table 2 and figure 13).

use crate::Winners;
use crate::losses::shared_tokens;

/// Share of all shared tokens that the pairs in use have to make up (figure 13).
const MOST_SHARED: f64 = 0.95;

/// Counts over any number of forward passes of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    experts: usize,
    tokens: u64,
    without: u64,
    /// `MᵀM`: loads on the diagonal, shared tokens beside it.
    shared: Vec<f64>,
}

impl Usage {
    /// Nothing counted yet.
    pub fn new(experts: usize) -> Self {
        Self {
            experts,
            tokens: 0,
            without: 0,
            shared: vec![0.0; experts * experts],
        }
    }

    /// The counts of one pass.
    pub fn of(winners: &Winners) -> Self {
        let mut usage = Self::new(winners.shape()[2]);
        usage.add(winners);
        usage
    }

    /// Counts another pass.
    ///
    /// # Panics
    /// If the number of experts differs.
    pub fn add(&mut self, winners: &Winners) {
        assert_eq!(winners.shape()[2], self.experts);
        self.tokens += winners.rows().len() as u64;
        self.without += winners.rows().filter(|row| !row.contains(&true)).count() as u64;
        for (sum, more) in self.shared.iter_mut().zip(shared_tokens(winners)) {
            *sum += more;
        }
    }

    /// Tokens counted.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Tokens of each expert.
    pub fn loads(&self) -> Vec<u64> {
        let diagonal = self.shared.iter().step_by(self.experts + 1);
        diagonal.map(|&load| load as u64).collect()
    }

    /// Experts a token has on average: the k that was achieved.
    pub fn mean_active(&self) -> f64 {
        self.loads().iter().sum::<u64>() as f64 / (self.tokens as f64).max(1.0)
    }

    /// Share of tokens that no expert has.
    pub fn share_without(&self) -> f64 {
        self.without as f64 / (self.tokens as f64).max(1.0)
    }

    /// Maximal violation, `max load / mean load − 1`: 0 where loads are even, E / k − 1 at most where every token has k.
    /// 0 of nothing.
    pub fn max_vio(&self) -> f64 {
        let loads = self.loads();
        let mean = loads.iter().sum::<u64>() as f64 / self.experts as f64;
        let most = loads.into_iter().max().unwrap_or(0) as f64;
        if mean > 0.0 { most / mean - 1.0 } else { 0.0 }
    }

    /// Share of the pairs of experts that are in use: counted downwards from the most frequent, those before 95 % of all
    /// shared tokens are reached (figure 13). 0 where no two experts share a token.
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
