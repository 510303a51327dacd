//! The second pass of a calibration: the quantizer's statistics on the latents, and the latents' spectrum.

use ndarray::{ArrayView2, ArrayView4};

use crate::moments::same_size;
use crate::quantizer::ensure_finite;
use crate::spectrum::{Energy, Spectrum, descending_order};
use crate::{Calibration, Dimension, Error, MOST_MEASURED_BITS, Moments, Quantizer, Result, Width};

/// The counts of one dimension at one width.
#[derive(Debug, Clone, PartialEq)]
struct Tally {
    /// Number of occurrences of each index.
    histogram: Vec<u64>,
    squared_error: f64,
}

impl Tally {
    fn new(levels: usize) -> Self {
        Self {
            histogram: vec![0; levels],
            squared_error: 0.0,
        }
    }

    fn add(&mut self, x: f32, index: u16, value: f32) {
        self.histogram[usize::from(index)] += 1;
        self.squared_error += f64::from(x - value).powi(2);
    }

    fn merge(&mut self, other: &Self) {
        for (count, more) in self.histogram.iter_mut().zip(&other.histogram) {
            *count += more;
        }
        self.squared_error += other.squared_error;
    }

    fn width(&self, bits: u8) -> Width {
        let count = self.histogram.iter().sum::<u64>() as f64;
        let used = self.histogram.iter().filter(|&&count| count > 0);
        let entropy = used.clone().map(|&occurrences| {
            let p = occurrences as f64 / count;
            -p * p.log2()
        });
        Width {
            bits,
            entropy_bits: entropy.sum::<f64>() as f32,
            code_usage: used.count() as f32 / self.histogram.len() as f32,
            mse: (self.squared_error / count) as f32,
        }
    }
}

/// The counts of one dimension.
#[derive(Debug, Clone, PartialEq)]
struct Tallies {
    /// With the quantizer's own width.
    own: Tally,
    /// With every width that is measured.
    widths: Vec<Tally>,
    clipped: u64,
    /// The smallest and the largest latent.
    extremes: (f32, f32),
    energy: Energy,
}

impl Tallies {
    fn new(levels: usize) -> Self {
        Self {
            own: Tally::new(levels),
            widths: (1..=MOST_MEASURED_BITS)
                .map(|bits| Tally::new(1 << bits))
                .collect(),
            clipped: 0,
            extremes: (f32::INFINITY, f32::NEG_INFINITY),
            energy: Energy::default(),
        }
    }

    fn add(
        &mut self,
        map: ArrayView2<f32>,
        channel: usize,
        quantizer: &Quantizer,
        widths: &[Quantizer],
    ) {
        let affine = quantizer.config().channel(channel);
        let normalized: Vec<f32> = map.iter().map(|&latent| affine.normalize(latent)).collect();
        let own = std::iter::once((&mut self.own, quantizer));
        for (tally, quantizer) in own.chain(self.widths.iter_mut().zip(widths)) {
            let values = quantizer.values_of(channel);
            for &x in &normalized {
                let index = quantizer.index_of(channel, x);
                tally.add(x, index, values[usize::from(index)]);
            }
        }
        self.include(map.iter().copied());
        let clipped = normalized.iter().filter(|&&x| quantizer.clips(x));
        self.clipped += clipped.count() as u64;
    }

    fn merge(&mut self, other: &Self) {
        self.own.merge(&other.own);
        for (tally, more) in self.widths.iter_mut().zip(&other.widths) {
            tally.merge(more);
        }
        self.clipped += other.clipped;
        self.include([other.extremes.0, other.extremes.1]);
        self.energy = self.energy.merge(other.energy);
    }

    fn include(&mut self, latents: impl IntoIterator<Item = f32>) {
        let (min, max) = self.extremes;
        let wider = |(min, max): (f32, f32), x: f32| (min.min(x), max.max(x));
        self.extremes = latents.into_iter().fold((min, max), wider);
    }

    fn dimension(&self, bits: u8, mean: f32, std: f32) -> Dimension {
        let own = self.own.width(bits);
        let count = self.own.histogram.iter().sum::<u64>() as f64;
        Dimension {
            mean,
            std,
            clip_rate: (self.clipped as f64 / count) as f32,
            entropy_bits: own.entropy_bits,
            code_usage: own.code_usage,
            mse: own.mse,
            low_frequency: self.energy.low_share() as f32,
            min: Some(self.extremes.0),
            max: Some(self.extremes.1),
            widths: (1..)
                .zip(&self.widths)
                .map(|(bits, tally)| tally.width(bits))
                .collect(),
            posterior_bits: None,
            decoder_noise: None,
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
    /// The same quantizer with every width that is measured.
    widths: Vec<Quantizer>,
    tallies: Vec<Tallies>,
}

impl<'a> CalibrationBuilder<'a> {
    /// An empty builder. `moments` come from the first pass, `quantizer` usually from [`Moments::quantizer_config`].
    ///
    /// # Errors
    /// [`Error::Shape`] if the quantizer is for another number of channels.
    pub fn new(moments: &'a Moments, quantizer: &'a Quantizer) -> Result<Self> {
        quantizer.config().check_channels(moments.channels)?;
        let of_width = |bits| Quantizer::new(quantizer.config().clone().with_bits(bits));
        let of_channel = |channel| Tallies::new(quantizer.levels_of(channel));
        Ok(Self {
            moments,
            quantizer,
            widths: (1..=MOST_MEASURED_BITS)
                .map(of_width)
                .collect::<Result<_>>()?,
            spectrum: Spectrum::new(moments.height, moments.width),
            images: 0,
            tallies: (0..moments.channels).map(of_channel).collect(),
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
                tally.add(map, channel, self.quantizer, &self.widths);
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
                builder.quantizer.levels(), // of the widest
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
        let moments = mean.iter().zip(std);
        let each = self.tallies.iter().zip(moments).enumerate();
        let dimensions: Vec<_> = each
            .map(|(channel, (tallies, (&mean, &std)))| {
                let bits = self.quantizer.config().bits_of(channel);
                tallies.dimension(bits, mean, std)
            })
            .collect();
        let shares: Vec<f32> = dimensions
            .iter()
            .map(|dimension| dimension.low_frequency)
            .collect();
        let mut calibration = Calibration {
            schema: Calibration::SCHEMA,
            images,
            channels,
            height,
            width,
            latent_mean,
            latent_std,
            latent_scale: self.moments.latent_scale(),
            quantizer: self.quantizer.config().clone(),
            clip_rate: 0.0,
            entropy_bits: 0.0,
            mse: 0.0,
            order: descending_order(&shares),
            dimensions,
            patch_size: 1,
            vae: None,
        };
        calibration.clip_rate = calibration.mean_of(|dimension| dimension.clip_rate);
        calibration.entropy_bits = calibration.mean_of(|dimension| dimension.entropy_bits);
        calibration.mse = calibration.mean_of(|dimension| dimension.mse);
        Ok(calibration)
    }
}
