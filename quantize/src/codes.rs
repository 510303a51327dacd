//! The second pass of a calibration: the quantizer's statistics on the latents, and the latents' spectrum.

use ndarray::{ArrayView2, ArrayView4};

use crate::moments::same_size;
use crate::quantizer::ensure_finite;
use crate::spectrum::{Energy, Spectrum, descending_order};
use crate::{Calibration, Dimension, Error, Moments, Quantizer, Result};

/// The counts of one dimension.
#[derive(Debug, Clone, PartialEq)]
struct Tally {
    /// Number of occurrences of each index.
    histogram: Vec<u64>,
    clipped: u64,
    squared_error: f64,
    energy: Energy,
}

impl Tally {
    fn new(levels: usize) -> Self {
        Self {
            histogram: vec![0; levels],
            clipped: 0,
            squared_error: 0.0,
            energy: Energy::default(),
        }
    }

    fn add(&mut self, map: ArrayView2<f32>, channel: usize, quantizer: &Quantizer) {
        let affine = quantizer.config().channel(channel);
        for &latent in map {
            let x = affine.normalize(latent);
            let index = usize::from(quantizer.index_of(x));
            self.histogram[index] += 1;
            self.clipped += u64::from(quantizer.clips(x));
            self.squared_error += f64::from(x - quantizer.values()[index]).powi(2);
        }
    }

    fn merge(&mut self, other: &Self) {
        for (count, more) in self.histogram.iter_mut().zip(&other.histogram) {
            *count += more;
        }
        self.clipped += other.clipped;
        self.squared_error += other.squared_error;
        self.energy = self.energy.merge(other.energy);
    }

    fn dimension(&self, mean: f32, std: f32) -> Dimension {
        let count = self.histogram.iter().sum::<u64>() as f64;
        let used = self.histogram.iter().filter(|&&count| count > 0);
        let entropy = used.clone().map(|&occurrences| {
            let p = occurrences as f64 / count;
            -p * p.log2()
        });
        Dimension {
            mean,
            std,
            clip_rate: (self.clipped as f64 / count) as f32,
            entropy_bits: entropy.sum::<f64>() as f32,
            code_usage: used.count() as f32 / self.histogram.len() as f32,
            mse: (self.squared_error / count) as f32,
            low_frequency: self.energy.low_share() as f32,
        }
    }
}

/// Accumulates a [`Calibration`] over batches of latents whose [`Moments`] are known.
///
/// As with [`MomentsBuilder`](crate::MomentsBuilder), parts of the data may be added to separate builders and merged.
#[derive(Clone)]
pub struct CalibrationBuilder<'a> {
    moments: &'a Moments,
    quantizer: &'a Quantizer,
    spectrum: Spectrum,
    images: u64,
    tallies: Vec<Tally>,
}

impl<'a> CalibrationBuilder<'a> {
    /// An empty builder. `moments` come from the first pass, `quantizer` usually from [`Moments::quantizer_config`].
    ///
    /// # Errors
    /// [`Error::Shape`] if the quantizer is for another number of channels.
    pub fn new(moments: &'a Moments, quantizer: &'a Quantizer) -> Result<Self> {
        quantizer.config().check_channels(moments.channels)?;
        let tallies = vec![Tally::new(quantizer.levels()); moments.channels];
        Ok(Self {
            moments,
            quantizer,
            spectrum: Spectrum::new(moments.height, moments.width),
            images: 0,
            tallies,
        })
    }

    /// Adds a batch.
    ///
    /// # Shapes
    /// - `latents`: `[batch, channels, height, width]`, all but `batch` as in the first pass
    ///
    /// # Errors
    /// [`Error::NonFinite`] for the first NaN or infinity, [`Error::Shape`] if the size is not that of the first
    /// pass. Nothing of the batch is added then.
    pub fn add(&mut self, latents: ArrayView4<f32>) -> Result<()> {
        let (batch, channels, height, width) = latents.dim();
        same_size(
            (
                self.moments.channels,
                self.moments.height,
                self.moments.width,
            ),
            (channels, height, width),
        )?;
        ensure_finite(latents)?;
        for image in latents.outer_iter() {
            for (channel, (tally, map)) in
                self.tallies.iter_mut().zip(image.outer_iter()).enumerate()
            {
                tally.add(map, channel, self.quantizer);
                tally.energy = tally.energy.merge(self.spectrum.measure(map));
            }
        }
        self.images += batch as u64;
        Ok(())
    }

    /// Adds the counts of another builder for the same quantizer and moments.
    ///
    /// # Errors
    /// [`Error::Shape`] if the other builder is for other levels or channels.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let size = |builder: &Self| {
            vec![
                builder.moments.channels,
                builder.moments.height,
                builder.moments.width,
                builder.quantizer.levels(),
            ]
        };
        if size(self) != size(other) {
            return Err(Error::Shape {
                what: "[channels, height, width, levels] of a calibration",
                expected: size(self),
                found: size(other),
            });
        }
        for (tally, more) in self.tallies.iter_mut().zip(&other.tallies) {
            tally.merge(more);
        }
        self.images += other.images;
        Ok(())
    }

    /// The calibration of all batches.
    ///
    /// # Errors
    /// [`Error::Empty`] without any latents.
    pub fn finish(&self) -> Result<Calibration> {
        if self.images == 0 {
            return Err(Error::Empty);
        }
        let Moments {
            images,
            channels,
            height,
            width,
            latent_mean,
            latent_std,
            ref mean,
            ref std,
        } = *self.moments;
        let of_channel =
            |(tally, (&mean, &std)): (&Tally, (&f32, &f32))| tally.dimension(mean, std);
        let dimensions: Vec<_> = self
            .tallies
            .iter()
            .zip(mean.iter().zip(std))
            .map(of_channel)
            .collect();
        // All dimensions have equally many latents, so the mean over dimensions is the mean over latents.
        let average = |of: fn(&Dimension) -> f32| {
            (dimensions
                .iter()
                .map(|dimension| f64::from(of(dimension)))
                .sum::<f64>()
                / channels as f64) as f32
        };
        let shares: Vec<f32> = dimensions
            .iter()
            .map(|dimension| dimension.low_frequency)
            .collect();
        Ok(Calibration {
            schema: Calibration::SCHEMA,
            images,
            channels,
            height,
            width,
            latent_mean,
            latent_std,
            latent_scale: self.moments.latent_scale(),
            quantizer: self.quantizer.config().clone(),
            clip_rate: average(|dimension| dimension.clip_rate),
            entropy_bits: average(|dimension| dimension.entropy_bits),
            mse: average(|dimension| dimension.mse),
            order: descending_order(&shares),
            dimensions,
            patch_size: 1,
            vae: None,
        })
    }
}
