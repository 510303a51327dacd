//! The quantizer's table (section 3.1): the means of equal-probability bins of a Gaussian.

use crate::gaussian::{cumulative, quantile, truncated_mean};
use crate::search::Search;
use crate::{Error, Result};

/// The 2^bits reconstruction values γ_i of a dimension, in table units (standard deviations of the Gaussian).
///
/// # Placement of the levels
/// The range `[-std_range, std_range]` is divided into bins of equal probability under a standard normal
/// distribution. Each bin is represented by its mean:
///
/// ```text
/// b_i = clamp(Φ⁻¹(i / levels), -std_range, std_range)
/// γ_i = (φ(b_i) - φ(b_{i+1})) / (Φ(b_{i+1}) - Φ(b_i))
/// ```
///
/// The reference evaluates this in f32, where both differences suffer cancellation: the error is up to 6e-6 at 6 bits
/// and 3e-5 at 8. Generators are trained on those values, so [`Table::gaussian`] follows the same f32 steps.
///
/// # Ten bits and more
/// From ten bits on (at the usual 3 standard deviations) Φ⁻¹(1 / levels) is below `-std_range`: the clamp gives the
/// outermost bins zero width, and the reference's γ becomes 0 there, so that the table is not sorted and some levels
/// are unreachable. Whenever a value of the reference lies outside its own bin, *all* bins are placed in f64 with
/// equal probability under the Gaussian *truncated* to ± `std_range`:
///
/// ```text
/// b_i = Φ⁻¹(Φ(-std_range) + (i / levels) · (Φ(std_range) - Φ(-std_range)))
/// ```
///
/// No bin is empty, so the values increase strictly and every level is reachable. Away from the edges the two rules
/// differ by the truncated mass, 0.27 % at 3 standard deviations.
#[derive(Debug, Clone)]
pub struct Table {
    values: Vec<f32>,
    search: Search,
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values // the search is derived from them
    }
}

impl Table {
    /// The Gaussian table of 2^`bits` levels within ± `std_range` standard deviations.
    ///
    /// # Errors
    /// [`Error::Bits`] unless `bits` is 1 to 16, [`Error::Setting`] unless `std_range` is positive and finite, and
    /// [`Error::TableOrder`] if `std_range` is so small that levels are equal in f32.
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

    /// A table of given values: the `reconstruction_values` of a checkpoint. Always prefer them to recomputed values.
    ///
    /// # Errors
    /// [`Error::TableLength`] unless there are 2, 4, … 65536 values, [`Error::TableOrder`] unless they are finite and
    /// strictly increasing. Reference checkpoints of ten bits or more are refused here, because their tables are not.
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

    /// The values γ_i in table units, increasing.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of levels.
    pub fn levels(&self) -> usize {
        self.values.len()
    }

    /// Bits of an index.
    pub fn bits(&self) -> u8 {
        self.values.len().trailing_zeros() as u8
    }

    /// The index of the value nearest to `x` (table units), the first at equal distance.
    ///
    /// Distances are compared as rounded to f32, so that this equals the reference's `argmin |γ_i - x|` even in ties,
    /// as long as no gap between two levels vanishes in the rounding of its neighbors. NaN gives 0.
    #[inline]
    pub fn index_of(&self, x: f32) -> u16 {
        self.search.nearest(x)
    }
}

/// The quantiles b_i of the Gaussian between `levels` bins of equal probability, clamped to ± `std_range`: the
/// `boundaries` of a checkpoint. Indices are decided by the nearest value ([`Table::index_of`]), not by these, and
/// tables from 10 bits on have other bins.
///
/// # Shapes
/// - output: `[levels + 1]`
pub fn boundaries(levels: usize, std_range: f32) -> Vec<f32> {
    let boundary = |i: usize| match i {
        0 => -std_range,
        i if i == levels => std_range,
        i => (quantile(i as f64 / levels as f64) as f32).clamp(-std_range, std_range),
    };
    (0..=levels).map(boundary).collect()
}

/// The reference's table, or `None` if one of its values lies outside its own bin.
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

/// The means of equal-probability bins of the truncated Gaussian; the upper half is mirrored, so that the table is
/// symmetric.
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
