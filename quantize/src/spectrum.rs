//! The low-frequency energy of latent maps, which orders the dimensions (section 3.2).

use std::sync::Arc;

use ndarray::ArrayView2;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

/// Radius of the low-frequency disc, in cycles per latent: half the Nyquist frequency.
const LOW_FREQUENCY_RADIUS: f64 = 0.25;

/// Spectral energy of a channel's maps, without their means.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Energy {
    low: f64,
    total: f64,
}

impl Energy {
    pub(crate) fn merge(self, other: Self) -> Self {
        Self {
            low: self.low + other.low,
            total: self.total + other.total,
        }
    }

    /// The share of the low frequencies, 0 to 1; 1 for constant maps.
    pub(crate) fn low_share(self) -> f64 {
        match self.total > 0.0 {
            true => self.low / self.total,
            false => 1.0,
        }
    }
}

/// The Fourier transform of maps of one size.
#[derive(Clone)]
pub(crate) struct Spectrum {
    rows: Arc<dyn Fft<f64>>,
    columns: Arc<dyn Fft<f64>>,
    /// Which bins are within the low-frequency disc, `[width, height]`.
    low: Vec<bool>,
}

impl Spectrum {
    pub(crate) fn new(height: usize, width: usize) -> Self {
        let mut planner = FftPlanner::new();
        let low = (0..width).flat_map(|column| {
            (0..height).map(move |row| {
                frequency(row, height).hypot(frequency(column, width)) <= LOW_FREQUENCY_RADIUS
            })
        });
        Self {
            rows: planner.plan_fft_forward(width),
            columns: planner.plan_fft_forward(height),
            low: low.collect(),
        }
    }

    /// The energy of one map, `[height, width]`.
    pub(crate) fn measure(&self, map: ArrayView2<f32>) -> Energy {
        let (height, width) = map.dim();
        let mean = map.iter().map(|&latent| f64::from(latent)).sum::<f64>() / map.len() as f64;
        let mut rows: Vec<_> = map
            .iter()
            .map(|&latent| Complex::from(f64::from(latent) - mean))
            .collect();
        self.rows.process(&mut rows);
        let mut columns: Vec<_> = (0..height * width)
            .map(|i| rows[i % height * width + i / height])
            .collect();
        self.columns.process(&mut columns); // [width, height]
        let mut energy = Energy::default();
        // Bin 0 is the mean, which was subtracted: what is left is rounding.
        for (bin, &low) in columns.iter().zip(&self.low).skip(1) {
            energy.total += bin.norm_sqr();
            energy.low += if low { bin.norm_sqr() } else { 0.0 };
        }
        energy
    }
}

/// The absolute frequency of a bin in cycles per sample, 0 to 0.5.
fn frequency(bin: usize, length: usize) -> f64 {
    bin.min(length - bin) as f64 / length as f64
}

/// The channels by descending share; equal shares keep their order.
pub(crate) fn descending_order(shares: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use std::f64::consts::TAU;

    fn wave(height: usize, width: usize, cycles: (f64, f64)) -> Array2<f32> {
        Array2::from_shape_fn((height, width), |(row, column)| {
            let phase =
                cycles.0 * row as f64 / height as f64 + cycles.1 * column as f64 / width as f64;
            (100.0 + (TAU * phase).cos()) as f32
        })
    }

    #[test]
    fn a_wave_counts_as_low_up_to_half_the_nyquist_frequency_in_any_direction() {
        let spectrum = Spectrum::new(16, 24);
        for (cycles, share) in [
            ((4.0, 0.0), 1.0),
            ((5.0, 0.0), 0.0),
            ((0.0, 6.0), 1.0),
            ((0.0, 7.0), 0.0),
            ((3.0, 3.0), 1.0),
            ((4.0, 6.0), 0.0),
        ] {
            let measured = spectrum.measure(wave(16, 24, cycles).view()).low_share();
            assert!((measured - share).abs() < 1e-6, "{cycles:?}: {measured}");
        }
    }

    #[test]
    fn energy_is_that_of_the_map_without_its_mean() {
        let map = Array2::from_shape_fn((5, 7), |(row, column)| {
            ((row * 31 + column * 17) % 11) as f32
        });
        let mean = map.sum() / 35.0;
        let expected = 35.0 * map.iter().map(|x| f64::from(x - mean).powi(2)).sum::<f64>(); // Parseval
        let total = Spectrum::new(5, 7).measure(map.view()).total;
        assert!((total / expected - 1.0).abs() < 1e-6, "{total} {expected}");
    }
}
