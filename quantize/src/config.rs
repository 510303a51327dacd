//! The config of a quantizer: bits, range, and the normalization of the latents.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, Table};

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
    /// Bits per dimension, 1 to 16; a dimension has 2^`bits` levels. Where dimensions differ, those of the widest.
    pub bits: u8,
    /// Bits of each dimension where they differ; empty where all have `bits`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channel_bits: Vec<u8>,
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
            channel_bits: Vec::new(),
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

    /// The same quantizer with a width for each dimension, or one for all.
    pub fn with_channel_bits(self, bits: Vec<u8>) -> Self {
        let widest = bits.iter().copied().max().unwrap_or(self.bits);
        let uniform = bits.iter().all(|&bits| bits == widest);
        Self {
            bits: widest,
            channel_bits: if uniform { Vec::new() } else { bits },
            ..self
        }
    }

    /// The same quantizer with one width for all dimensions.
    pub fn with_bits(self, bits: u8) -> Self {
        Self {
            bits,
            channel_bits: Vec::new(),
            ..self
        }
    }

    /// Bits of a dimension.
    pub fn bits_of(&self, channel: usize) -> u8 {
        self.channel_bits.get(channel).copied().unwrap_or(self.bits)
    }

    /// The mean of the dimensions' bits.
    pub fn mean_bits(&self) -> f32 {
        match self.channel_bits.len() {
            0 => self.bits.into(),
            channels => {
                let sum: u32 = self.channel_bits.iter().map(|&bits| u32::from(bits)).sum();
                sum as f32 / channels as f32
            }
        }
    }

    /// What one of the normalized units is in latents.
    pub fn unit_of(&self, channel: usize) -> f32 {
        1.0 / self.channel(channel).scale
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Bits`], [`Error::ChannelBits`] or [`Error::Setting`] for the first setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        if !(1..=16).contains(&self.bits) {
            return Err(Error::Bits { found: self.bits });
        }
        if let Some(&found) = self
            .channel_bits
            .iter()
            .find(|bits| !(1..=16).contains(*bits))
        {
            return Err(Error::Bits { found });
        }
        if let Some(&widest) = self.channel_bits.iter().max()
            && widest != self.bits
        {
            return Err(Error::ChannelBits {
                bits: self.bits,
                widest,
            });
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

    /// Checks that `mean`, `scale` and `channel_bits` match the number of channels.
    pub(crate) fn check_channels(&self, channels: usize) -> Result<()> {
        let shared = |setting: &[f32]| (setting.len() > 1).then_some(setting.len());
        let bits = (!self.channel_bits.is_empty()).then_some(self.channel_bits.len());
        let settings = [
            ("channels of `mean` and of the latents", shared(&self.mean)),
            (
                "channels of `scale` and of the latents",
                shared(&self.scale),
            ),
            ("channels of `channel_bits` and of the latents", bits),
        ];
        for (what, setting) in settings {
            if let Some(expected) = setting.filter(|&expected| expected != channels) {
                return Err(Error::Shape {
                    what,
                    expected: vec![expected],
                    found: vec![channels],
                });
            }
        }
        Ok(())
    }

    /// The index of the normalized scalar `x` in a table; NaN gives 0.
    #[inline]
    pub(crate) fn index_in(&self, table: &Table, x: f32) -> u16 {
        let &Self {
            range, std_range, ..
        } = self;
        let x_table = (x + range) / (2.0 * range) * (2.0 * std_range) - std_range;
        table.index_of(x_table.clamp(-std_range, std_range))
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
