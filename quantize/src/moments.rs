//! The first pass of a calibration: mean and standard deviation of the latents, per channel and overall.

use ndarray::{ArrayView2, ArrayView4};

use crate::quantizer::ensure_finite;
use crate::{Error, QuantizerConfig, Result, ScaleBy};

/// Count, mean and sum of squared deviations, in f64.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Spread {
    count: u64,
    mean: f64,
    deviation: f64,
}

impl Spread {
    /// Two passes over one map, to avoid cancellation.
    fn of(map: ArrayView2<f32>) -> Self {
        let count = map.len();
        let mean = map.iter().map(|&latent| f64::from(latent)).sum::<f64>() / count as f64;
        let deviation = map
            .iter()
            .map(|&latent| (f64::from(latent) - mean).powi(2))
            .sum();
        Self {
            count: count as u64,
            mean,
            deviation,
        }
    }

    /// The parallel update by Chan, Golub and LeVeque.
    fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0 {
            return self;
        }
        let (shift, share) = (other.mean - self.mean, other.count as f64 / count as f64);
        Self {
            count,
            mean: self.mean + shift * share,
            deviation: self.deviation + other.deviation + shift * shift * share * self.count as f64,
        }
    }

    /// The population's standard deviation.
    fn std(self) -> f64 {
        (self.deviation / self.count as f64).sqrt()
    }
}

/// Accumulates [`Moments`] over batches of latents.
///
/// Parts of the data may be added to separate builders, on any number of threads, and merged: the result is that of
/// one builder up to rounding in f64.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MomentsBuilder {
    images: u64,
    size: Option<(usize, usize, usize)>,
    spreads: Vec<Spread>,
}

impl MomentsBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a batch.
    ///
    /// # Shapes
    /// - `latents`: `[batch, channels, height, width]`, all but `batch` the same each time
    ///
    /// # Errors
    /// [`Error::NonFinite`] for the first NaN or infinity, [`Error::Shape`] if the size of the maps changes. Nothing
    /// of the batch is added then.
    pub fn add(&mut self, latents: ArrayView4<f32>) -> Result<()> {
        let (batch, channels, height, width) = latents.dim();
        if latents.is_empty() {
            return Ok(());
        }
        ensure_finite(latents)?;
        self.fit((channels, height, width))?;
        for image in latents.outer_iter() {
            for (spread, map) in self.spreads.iter_mut().zip(image.outer_iter()) {
                *spread = spread.merge(Spread::of(map));
            }
        }
        self.images += batch as u64;
        Ok(())
    }

    /// Adds the latents of another builder.
    ///
    /// # Errors
    /// [`Error::Shape`] if they have another size.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let Some(size) = other.size else {
            return Ok(());
        };
        self.fit(size)?;
        for (spread, more) in self.spreads.iter_mut().zip(&other.spreads) {
            *spread = spread.merge(*more);
        }
        self.images += other.images;
        Ok(())
    }

    /// The moments of all batches.
    ///
    /// # Errors
    /// [`Error::Empty`] without any latents, [`Error::ConstantChannel`] if no finite f32 scales a channel to unit
    /// variance.
    pub fn finish(&self) -> Result<Moments> {
        let (channels, height, width) = self.size.ok_or(Error::Empty)?;
        for (channel, spread) in self.spreads.iter().enumerate() {
            let std = spread.std();
            if !(((1.0 / std) as f32).is_finite() && std > 0.0) {
                return Err(Error::ConstantChannel {
                    channel,
                    mean: spread.mean,
                    std,
                });
            }
        }
        let all = self
            .spreads
            .iter()
            .fold(Spread::default(), |all, spread| all.merge(*spread));
        Ok(Moments {
            images: self.images,
            channels,
            height,
            width,
            latent_mean: all.mean as f32,
            latent_std: all.std() as f32,
            mean: self
                .spreads
                .iter()
                .map(|spread| spread.mean as f32)
                .collect(),
            std: self
                .spreads
                .iter()
                .map(|spread| spread.std() as f32)
                .collect(),
        })
    }

    /// Remembers the size of the first latents and requires it of all others.
    fn fit(&mut self, size: (usize, usize, usize)) -> Result<()> {
        let known = *self.size.get_or_insert(size);
        self.spreads.resize(known.0, Spread::default());
        same_size(known, size)
    }
}

/// Mean and spread of latents, the result of the first pass of a calibration.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Number of images.
    pub images: u64,
    /// Dimensions of a latent.
    pub channels: usize,
    /// Rows of the latent map.
    pub height: usize,
    /// Columns of the latent map.
    pub width: usize,
    /// Mean over all latents of all channels.
    pub latent_mean: f32,
    /// Standard deviation over all latents of all channels, about `latent_mean`.
    pub latent_std: f32,
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, about its own mean.
    pub std: Vec<f32>,
}

impl Moments {
    /// One over the standard deviation of all latents: the paper's 0.2325, which leaves the mean in place.
    pub fn latent_scale(&self) -> f32 {
        1.0 / self.latent_std
    }

    /// The config of a quantizer for these latents.
    pub fn quantizer_config(&self, bits: u8, range: f32, scale_by: ScaleBy) -> QuantizerConfig {
        let (mean, scale) = match scale_by {
            ScaleBy::Channel => (
                self.mean.clone(),
                self.std.iter().map(|std| 1.0 / std).collect(),
            ),
            ScaleBy::Global => (Vec::new(), vec![self.latent_scale()]),
        };
        QuantizerConfig {
            bits,
            range,
            mean,
            scale,
            ..QuantizerConfig::default()
        }
    }
}

/// Refuses latents of another `(channels, height, width)`.
pub(crate) fn same_size(known: (usize, usize, usize), size: (usize, usize, usize)) -> Result<()> {
    let list = |(channels, height, width)| vec![channels, height, width];
    match known == size {
        true => Ok(()),
        false => Err(Error::Shape {
            what: "[channels, height, width] of latents",
            expected: list(known),
            found: list(size),
        }),
    }
}
