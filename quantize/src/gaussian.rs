//! The standard normal distribution: density, distribution function and its inverse, in f64.

use std::f64::consts::{PI, SQRT_2};

/// φ(z), the density.
pub(crate) fn density(z: f64) -> f64 {
    libm::exp(-0.5 * z * z) / (2.0 * PI).sqrt()
}

/// Φ(z), the probability below `z`.
pub(crate) fn cumulative(z: f64) -> f64 {
    0.5 * libm::erfc(-z / SQRT_2)
}

/// Φ⁻¹(p) for 0 < p < 1.
///
/// Φ is convex left of its median, so Newton's method from there decreases monotonically towards the root. The first
/// step that does not decrease has converged to the last bit.
pub(crate) fn quantile(p: f64) -> f64 {
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    let mut z = 0.0;
    loop {
        let next = z - (cumulative(z) - p) / density(z);
        if next >= z {
            return z;
        }
        z = next;
    }
}

/// Mean of the standard normal distribution truncated to `[low, high]`.
pub(crate) fn truncated_mean(low: f64, high: f64) -> f64 {
    (density(low) - density(high)) / (cumulative(high) - cumulative(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_inverts_the_distribution_function() {
        for exponent in 1..=40 {
            let p = 0.5_f64.powi(exponent);
            let error = (cumulative(quantile(p)) - p).abs() / p;
            assert!(error < 1e-13, "p = {p:e}: relative error {error:e}");
        }
        assert_eq!(quantile(0.75), -quantile(0.25));
        assert!((quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-14);
    }
}
