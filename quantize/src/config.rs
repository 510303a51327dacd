//! The config of a quantizer: bits, range, and the normalization of the latents.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Of means, and of what one of the normalized units is in latents: no tokenizer's latents come near it, and a damaged
/// file is named where it is read.
const MOST: f32 = 1e6;

/// Standard deviations covered by the paper's Gaussian table, on either side.
pub const STD_RANGE: f32 = 3.0;

/// How measured latents are brought to unit variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleBy {
    /// Each channel to zero mean and unit variance.
    Channel,
    /// All channels by one scale, without subtracting a mean: the paper's choice.
    Global,
}

/// Settings of a [`Quantizer`](crate::Quantizer).
///
/// A latent `z` of channel `c` is normalized as `x = (z - mean[c]) · scale[c]`, which should have unit variance.
/// `mean` and `scale` hold one number per channel, one number for all channels, or none (0 and 1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizerConfig {
    /// Bits per dimension, 1 to 16; a dimension has 2^`bits` levels.
    pub bits: u8,
    /// Normalized latents are clipped to ± `range`; 5 is best in table 1b of the paper.
    pub range: f32,
    /// Standard deviations of the Gaussian table that ± `range` is mapped to.
    pub std_range: f32,
    /// Subtracted from the latents, per channel.
    pub mean: Vec<f32>,
    /// Multiplied with the latents after that, per channel.
    pub scale: Vec<f32>,
}

impl Default for QuantizerConfig {
    /// The paper's six bits over ± 5, for latents that already have unit variance.
    fn default() -> Self {
        Self {
            bits: 6,
            range: 5.0,
            std_range: STD_RANGE,
            mean: Vec::new(),
            scale: Vec::new(),
        }
    }
}

impl QuantizerConfig {
    /// One over the standard deviation of the KL-16 latents of ImageNet.
    const KL16_LATENT_SCALE: f32 = 0.2325;

    /// The released TokenBridge models: six bits over ± 5 on KL-16 latents times 0.2325.
    pub fn tokenbridge() -> Self {
        Self {
            scale: vec![Self::KL16_LATENT_SCALE],
            ..Self::default()
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Bits`] or [`Error::Setting`] for the first setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        if !(1..=16).contains(&self.bits) {
            return Err(Error::Bits { found: self.bits });
        }
        positive("range".into(), self.range)?;
        positive("std_range".into(), self.std_range)?;
        for (channel, &scale) in self.scale.iter().enumerate() {
            positive(format!("scale[{channel}]"), scale)?;
            require(
                scale >= 1.0 / MOST,
                format!("scale[{channel}]"),
                "0.000001 at least",
                scale,
            )?;
        }
        for (channel, &mean) in self.mean.iter().enumerate() {
            require(
                mean.is_finite() && mean.abs() <= MOST,
                format!("mean[{channel}]"),
                "a number of -1000000 to 1000000",
                mean,
            )?;
        }
        Ok(())
    }

    /// Checks that `mean` and `scale` match the number of channels.
    pub(crate) fn check_channels(&self, channels: usize) -> Result<()> {
        let settings = [
            ("channels of `mean` and of the latents", &self.mean),
            ("channels of `scale` and of the latents", &self.scale),
        ];
        for (what, setting) in settings {
            if setting.len() > 1 && setting.len() != channels {
                return Err(Error::Shape {
                    what,
                    expected: vec![setting.len()],
                    found: vec![channels],
                });
            }
        }
        Ok(())
    }

    /// The normalization of one channel.
    pub(crate) fn channel(&self, channel: usize) -> Affine {
        let of = |setting: &[f32], absent| match setting {
            [] => absent,
            [shared] => *shared,
            each => each[channel],
        };
        Affine {
            mean: of(&self.mean, 0.0),
            scale: of(&self.scale, 1.0),
        }
    }
}

fn positive(field: String, found: f32) -> Result<()> {
    let expected = "a positive, finite number";
    require(found.is_finite() && found > 0.0, field, expected, found)
}

fn require(holds: bool, field: String, expected: &'static str, found: f32) -> Result<()> {
    match holds {
        true => Ok(()),
        false => Err(Error::Setting {
            field,
            expected,
            found,
        }),
    }
}

/// The map between a channel's latents and their normalized values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Affine {
    mean: f32,
    scale: f32,
}

impl Affine {
    #[inline]
    pub(crate) fn normalize(self, latent: f32) -> f32 {
        (latent - self.mean) * self.scale
    }

    #[inline]
    pub(crate) fn restore(self, x: f32) -> f32 {
        x / self.scale + self.mean
    }
}
