//! The reconstruction values of the quantizer, paper section 3.1: equal-probability bins of a Gaussian.

use crate::gaussian::{cumulative, quantile, truncated_mean};
use crate::search::Search;
use crate::{Error, Result};

/// The 2^bits values γ_i that a dimension can take, in table units (multiples of the Gaussian's standard deviation).
///
/// # How the levels are placed
/// The range `[-std_range, std_range]` is cut into bins that a standard normal variable meets equally often, and each
/// bin is represented by its mean:
///
/// ```text
/// b_i = clamp(Φ⁻¹(i / levels), -std_range, std_range)
/// γ_i = (φ(b_i) - φ(b_{i+1})) / (Φ(b_{i+1}) - Φ(b_i))
/// ```
///
/// The reference evaluates this in f32, where the two differences cancel: the results are off by up to 6e-6 at 6 bits
/// and 3e-5 at 8. Generators are trained on those very numbers, so [`Table::gaussian`] takes the same f32 steps rather
/// than better ones.
///
/// # Where the reference breaks
/// With ten bits or more (at the usual 3 standard deviations) Φ⁻¹(1 / levels) falls below `-std_range`, the clamp
/// squeezes the outermost bins to zero width, and the reference's γ becomes 0 there: the table is no longer sorted and
/// some levels cannot be reached. Whenever one of the reference's values leaves its own bin, *all* bins are placed
/// anew, in f64, with equal probability under the Gaussian *truncated* to ± `std_range`:
///
/// ```text
/// b_i = Φ⁻¹(Φ(-std_range) + (i / levels) · (Φ(std_range) - Φ(-std_range)))
/// ```
///
/// No bin is empty, so the values rise strictly and every level is reachable. Away from the edges the two rules agree
/// to the truncated mass, 0.27 % at 3 standard deviations.
#[derive(Debug, Clone)]
pub struct Table {
    values: Vec<f32>,
    search: Search,
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values // the search follows from them
    }
}

impl Table {
    /// The Gaussian table of 2^`bits` levels within ± `std_range` standard deviations.
    ///
    /// # Errors
    /// [`Error::Bits`] unless `bits` is 1 to 16, [`Error::Setting`] unless `std_range` is positive and finite, and
    /// [`Error::TableOrder`] where `std_range` is so small that f32 cannot tell the levels apart.
    pub fn gaussian(bits: u8, std_range: f32) -> Result<Self> {
        if !(1..=16).contains(&bits) {
            return Err(Error::Bits { found: bits });
        }
        if !(std_range.is_finite() && std_range > 0.0) {
            return Err(Error::Setting {
                field: "std_range".into(),
                expected: "a positive number of standard deviations",
                found: std_range,
            });
        }
        let levels = 1 << bits;
        Self::from_values(
            reference_values(levels, std_range)
                .unwrap_or_else(|| truncated_values(levels, std_range)),
        )
    }

    /// A table of given values: the `reconstruction_values` of a checkpoint, which are always to be preferred to values
    /// computed anew.
    ///
    /// # Errors
    /// [`Error::TableLength`] unless there are 2, 4, … 65536 values, [`Error::TableOrder`] unless they are finite and
    /// rise strictly. Reference checkpoints of ten bits or more are refused here: their tables are broken.
    pub fn from_values(values: Vec<f32>) -> Result<Self> {
        if !(values.len().is_power_of_two() && (2..=1 << 16).contains(&values.len())) {
            return Err(Error::TableLength {
                found: values.len(),
            });
        }
        let mut previous = f32::NEG_INFINITY;
        for (index, &found) in values.iter().enumerate() {
            if !(found.is_finite() && found > previous) {
                return Err(Error::TableOrder {
                    index,
                    previous,
                    found,
                });
            }
            previous = found;
        }
        let search = Search::new(&values);
        Ok(Self { values, search })
    }

    /// The values γ_i, rising, in table units.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// How many values there are.
    pub fn levels(&self) -> usize {
        self.values.len()
    }

    /// Bits of an index.
    pub fn bits(&self) -> u8 {
        self.values.len().trailing_zeros() as u8
    }

    /// The index of the value nearest to `x` (table units), the first at equal distance.
    ///
    /// Distances are compared as f32 rounds them, so this is `argmin |γ_i - x|` of the reference to the last tie, as
    /// long as no gap between two levels vanishes in the rounding of the gaps beside it. NaN has no nearest value and
    /// gives 0.
    #[inline]
    pub fn index_of(&self, x: f32) -> u16 {
        self.search.nearest(x)
    }
}

/// The quantiles of the Gaussian that part it into `levels` bins of equal probability, cut off at ± `std_range`: the
/// `boundaries` of a checkpoint. Indices do not come from them but from the nearest value ([`Table::index_of`]).
pub fn boundaries(levels: usize, std_range: f32) -> Vec<f32> {
    let boundary = |i: usize| match i {
        0 => -std_range,
        i if i == levels => std_range,
        i => (quantile(i as f64 / levels as f64) as f32).clamp(-std_range, std_range),
    };
    (0..=levels).map(boundary).collect()
}

/// The reference's table, or `None` where one of its values leaves its own bin.
fn reference_values(levels: usize, std_range: f32) -> Option<Vec<f32>> {
    let boundaries = boundaries(levels, std_range);
    let value = |bin: &[f32]| {
        let value = reference_mean(bin[0], bin[1]);
        (bin[0] < value && value < bin[1]).then_some(value)
    };
    boundaries.windows(2).map(value).collect()
}

/// Mean of the Gaussian between `low` and `high`, each step rounded to f32 as in the reference.
fn reference_mean(low: f32, high: f32) -> f32 {
    const SQRT_2PI: f32 = 2.506_628_3;
    let density = |z: f32| libm::exp(f64::from(-0.5 * z * z)) as f32 / SQRT_2PI;
    let cumulative =
        |z: f32| 0.5 * (1.0 + libm::erf(f64::from(z / std::f32::consts::SQRT_2)) as f32);
    (density(low) - density(high)) / (cumulative(high) - cumulative(low))
}

/// Equal-probability bins of the truncated Gaussian, the upper half mirrored so that the table is symmetric.
fn truncated_values(levels: usize, std_range: f32) -> Vec<f32> {
    let std_range = f64::from(std_range);
    let (outside, half) = (cumulative(-std_range), levels / 2);
    let boundary = |i: usize| match i {
        0 => -std_range,
        i => quantile(outside + i as f64 / levels as f64 * (1.0 - 2.0 * outside)),
    };
    let boundaries: Vec<f64> = (0..=half).map(boundary).collect();
    let lower: Vec<f32> = boundaries
        .windows(2)
        .map(|bin| truncated_mean(bin[0], bin[1]) as f32)
        .collect();
    let upper = lower.iter().rev().map(|value| -value);
    lower.iter().copied().chain(upper).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_kept_up_to_nine_bits_and_replaced_from_ten() {
        for bits in 1..=9 {
            assert!(reference_values(1 << bits, 3.0).is_some(), "{bits} bits");
        }
        for bits in 10..=12 {
            assert!(reference_values(1 << bits, 3.0).is_none(), "{bits} bits");
        }
    }
}
