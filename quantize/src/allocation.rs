//! Bits where they matter: a width for each dimension instead of one for all.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::{Calibration, Error, Result};

/// The largest width that a calibration measures and [`Calibration::allocate`] gives.
pub const MOST_MEASURED_BITS: u8 = 12;

/// How many bits the dimensions of a quantizer have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bits {
    /// All as many, as in the paper: 1 to 16.
    Uniform(u8),
    /// As many on average, each dimension what [`Calibration::allocate`] gives it: 1 to 12.
    Auto {
        /// The mean over the dimensions.
        mean: f32,
    },
}

impl Bits {
    /// What starts the text of [`Bits::Auto`].
    const AUTO: &str = "auto:";
}

impl FromStr for Bits {
    type Err = String;

    /// `6`, or `auto:5.0`.
    fn from_str(text: &str) -> Result<Self, String> {
        let most = f32::from(MOST_MEASURED_BITS);
        let bits = match text.strip_prefix(Self::AUTO) {
            Some(mean) => mean
                .parse()
                .ok()
                .filter(|mean| (1.0..=most).contains(mean))
                .map(|mean| Self::Auto { mean }),
            None => text
                .parse()
                .ok()
                .filter(|bits| (1..=16).contains(bits))
                .map(Self::Uniform),
        };
        let expected = || {
            format!(
                "expected a whole number of 1 to 16, or {}MEAN with a mean of 1 to {most}",
                Self::AUTO
            )
        };
        bits.ok_or_else(expected)
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform(bits) => write!(f, "{bits}"),
            Self::Auto { mean } => write!(f, "{}{mean}", Self::AUTO),
        }
    }
}

impl Serialize for Bits {
    /// A number, or the text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Uniform(bits) => serializer.serialize_u8(*bits),
            Self::Auto { .. } => serializer.collect_str(self),
        }
    }
}

impl Calibration {
    /// The widths of mean `mean` that leave the least error in the decoded picture, in bits per dimension.
    ///
    /// Quantizing dimension `i` with `b` bits leaves the measured error `mse_i(b)`. The picture suffers from it as
    /// much as the decoder amplifies it: by one over the square of [`decoder_noise`](crate::Dimension::decoder_noise),
    /// in the same units. Errors of dimensions add up, since the quantizer's are independent, so that the best widths
    /// are found bit by bit: each goes where it takes away the most. For a Gaussian dimension a bit divides `mse_i` by
    /// four, which gives `bits_i = R_i + constant` with the rate `R_i` of Gaussian Quant (arXiv 2512.06609): the rule
    /// of that paper, with measured errors in place of the formula.
    ///
    /// # Errors
    /// [`Error::MeanBits`] if `mean` is below 1 or above [`MOST_MEASURED_BITS`]; [`Error::NotMeasured`] if the
    /// calibration has no errors by width, or knows nothing of the decoder.
    pub fn allocate(&self, mean: f32) -> Result<Vec<u8>> {
        if !(1.0..=f32::from(MOST_MEASURED_BITS)).contains(&mean) {
            return Err(Error::MeanBits {
                least: 1,
                most: MOST_MEASURED_BITS,
                found: mean,
            });
        }
        let gains = self
            .dimensions
            .iter()
            .enumerate()
            .map(|(channel, dimension)| {
                let noise = dimension.decoder_noise.ok_or(Error::NotMeasured {
                    what: "the noise that the decoder tolerates",
                })?;
                if dimension.widths.len() != usize::from(MOST_MEASURED_BITS) {
                    return Err(Error::NotMeasured {
                        what: "the errors of every width",
                    });
                }
                let weight =
                    (f64::from(self.quantizer.unit_of(channel)) / f64::from(noise)).powi(2);
                let error = |width: &crate::Width| weight * f64::from(width.mse);
                Ok(dimension
                    .widths
                    .windows(2)
                    .map(|pair| error(&pair[0]) - error(&pair[1]))
                    .collect())
            });
        let gains: Vec<Vec<f64>> = gains.collect::<Result<_>>()?;
        let mut bits = vec![1_u8; gains.len()];
        let total = (f64::from(mean) * gains.len() as f64).round() as usize;
        for _ in gains.len()..total {
            // The first of equal gains, so that the result does not depend on the order of a search.
            let gain = |&channel: &usize| gains[channel].get(usize::from(bits[channel]) - 1);
            let best = (0..gains.len())
                .filter(|channel| gain(channel).is_some())
                .reduce(|best, other| {
                    if gain(&other) > gain(&best) {
                        other
                    } else {
                        best
                    }
                });
            match best {
                Some(channel) => bits[channel] += 1,
                None => break,
            }
        }
        Ok(bits)
    }

    /// The calibration of the same quantizer with other widths, one for each dimension, from what was measured of them.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not as many as dimensions; [`Error::NotMeasured`] for a width that was not
    /// measured.
    pub fn with_channel_bits(mut self, bits: Vec<u8>) -> Result<Self> {
        if bits.len() != self.channels {
            return Err(Error::Shape {
                what: "widths of the dimensions",
                expected: vec![self.channels],
                found: vec![bits.len()],
            });
        }
        for (dimension, &bits) in self.dimensions.iter_mut().zip(&bits) {
            let width = dimension.widths.iter().find(|width| width.bits == bits);
            let width = *width.ok_or(Error::NotMeasured {
                what: "the errors of every width",
            })?;
            dimension.entropy_bits = width.entropy_bits;
            dimension.code_usage = width.code_usage;
            dimension.mse = width.mse;
        }
        self.quantizer = self.quantizer.with_channel_bits(bits);
        self.entropy_bits = self.mean_of(|dimension| dimension.entropy_bits);
        self.mse = self.mean_of(|dimension| dimension.mse);
        Ok(self)
    }

    /// The mean of a figure over the dimensions. All have equally many latents, so it is the mean over latents.
    pub(crate) fn mean_of(&self, of: impl Fn(&crate::Dimension) -> f32) -> f32 {
        let sum: f64 = self
            .dimensions
            .iter()
            .map(|dimension| f64::from(of(dimension)))
            .sum();
        (sum / self.channels as f64) as f32
    }
}
