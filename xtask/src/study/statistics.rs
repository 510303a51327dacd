//! Means over seeds, and whether a difference is more than their spread.

/// Student's t at 97.5 %, by degrees of freedom from 1 on.
const STUDENT: [f64; 10] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
];
/// The same, beyond the table: of the normal distribution.
const NORMAL: f64 = 1.96;

/// A mean and the standard deviation around it; 0 of a single value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// The unbiased standard deviation.
    pub std: f64,
}

impl Mean {
    /// Of some values; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self {
            mean,
            std: (squares / (count - 1.0).max(1.0)).sqrt(),
        })
    }
}

/// What the figures say of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The difference is as claimed, and beyond what seeds alone do.
    Agrees,
    /// It is the other way, and beyond what seeds alone do.
    Disagrees,
    /// It is within what seeds alone do.
    Undecided,
}

/// By how much one variant is better than another, seed by seed: the seed decides weights, order and noise of both, so
/// that most of what it does cancels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// The mean difference; positive is as claimed.
    pub mean: f64,
    /// Half the 95 % interval of it; infinite for a single seed.
    pub half: f64,
    /// Seeds with a difference as claimed.
    pub in_favor: usize,
    /// Seeds.
    pub seeds: usize,
}

impl Gain {
    /// Of pairs (what should be better, what should be worse), where a smaller value is better.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let gains: Vec<f64> = pairs.iter().map(|(better, worse)| worse - better).collect();
        let Mean { mean, std } = Mean::of(&gains)?;
        let seeds = gains.len();
        let half = match seeds {
            1 => f64::INFINITY,
            _ => STUDENT.get(seeds - 2).unwrap_or(&NORMAL) * std / (seeds as f64).sqrt(),
        };
        Some(Self {
            mean,
            half,
            in_favor: gains.iter().filter(|&&gain| gain > 0.0).count(),
            seeds,
        })
    }

    /// Whether zero is in the interval, and if not, on which side.
    pub fn verdict(&self) -> Verdict {
        match self.mean {
            mean if mean > self.half => Verdict::Agrees,
            mean if mean < -self.half => Verdict::Disagrees,
            _ => Verdict::Undecided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_has_the_unbiased_deviation() {
        let Mean { mean, std } = Mean::of(&[1.0, 2.0, 6.0]).unwrap();
        assert!((mean - 3.0).abs() < 1e-12 && (std - 7f64.sqrt()).abs() < 1e-12);
        assert_eq!(
            Mean::of(&[4.0]),
            Some(Mean {
                mean: 4.0,
                std: 0.0
            })
        );
        assert_eq!(Mean::of(&[]), None);
    }

    #[test]
    fn a_difference_counts_if_it_is_alike_in_every_seed() {
        // The seeds differ by more than the variants, and all by the same.
        let gain = Gain::of(&[(1.0, 1.11), (2.0, 2.10), (3.0, 3.09)]).unwrap();
        assert!((gain.mean - 0.1).abs() < 1e-12);
        assert!((gain.half - 4.303 * 0.01 / 3f64.sqrt()).abs() < 1e-9);
        assert_eq!((gain.in_favor, gain.verdict()), (3, Verdict::Agrees));
        let other_way = Gain::of(&[(1.11, 1.0), (2.10, 2.0), (3.09, 3.0)]).unwrap();
        assert_eq!(other_way.verdict(), Verdict::Disagrees);
    }

    #[test]
    fn a_difference_that_changes_sides_or_stands_alone_decides_nothing() {
        let gain = Gain::of(&[(1.0, 2.0), (2.0, 1.5), (3.0, 4.0)]).unwrap();
        assert_eq!((gain.in_favor, gain.verdict()), (2, Verdict::Undecided));
        let single = Gain::of(&[(1.0, 2.0)]).unwrap();
        assert_eq!(single.verdict(), Verdict::Undecided);
        let equal = Gain::of(&[(1.0, 1.0), (2.0, 2.0)]).unwrap();
        assert_eq!(equal.verdict(), Verdict::Undecided);
    }
}
