//! The result of measuring a quantizer on a set of latents, and its file.

use std::io::Write;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tessera_files::{Existing, write_atomically};

use crate::{Error, QuantizerConfig, Result, ScaleBy};

/// Statistics of one dimension (channel) of the latents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    /// Mean of the latents.
    pub mean: f32,
    /// Their standard deviation.
    pub std: f32,
    /// Share of the normalized latents outside ± range, 0 to 1.
    pub clip_rate: f32,
    /// Entropy of the indices in bits: the cross-entropy of a generator that knows only their frequencies.
    pub entropy_bits: f32,
    /// Share of the levels that occur, 0 to 1.
    pub code_usage: f32,
    /// Mean squared error of the quantizer in normalized units, including clipping.
    pub mse: f32,
    /// Share of the spectral energy at low frequencies, 0 to 1; see [`Calibration::order`].
    pub low_frequency: f32,
    /// The smallest latent; none in calibrations of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f32>,
    /// The largest latent; none in calibrations of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f32>,
    /// The quantizer's figures at every width from 1 to [`MOST_MEASURED_BITS`](crate::MOST_MEASURED_BITS); empty in
    /// calibrations of older versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub widths: Vec<Width>,
    /// The rate of the tokenizer's posterior in bits, `KL(q(z|x) ‖ N(0, 1)) / ln 2` averaged over latents and data;
    /// none where a tokenizer gives no distributions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posterior_bits: Option<f32>,
    /// The noise that the decoder tolerates in the dimension: the standard deviation, in units of latents, at which it
    /// adds one over the number of dimensions of the error that reconstructions have anyway. None where it was not
    /// measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder_noise: Option<f32>,
}

/// What a dimension is like with another number of bits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Width {
    /// The bits.
    pub bits: u8,
    /// Entropy of the indices in bits.
    pub entropy_bits: f32,
    /// Share of the levels that occur, 0 to 1.
    pub code_usage: f32,
    /// Mean squared error in normalized units, including clipping.
    pub mse: f32,
}

impl Dimension {
    /// The rate of the dimension in bits as the decoder needs it, `log2(std / decoder_noise)`: with so many bits in
    /// every dimension, quantization would add as much error as reconstructions have anyway. None where it was not
    /// measured.
    pub fn decoder_bits(&self) -> Option<f32> {
        self.decoder_noise
            .map(|noise| (self.std / noise).log2().max(0.0))
    }
}

/// Statistics of latents and of their quantization, measured by a [`MomentsBuilder`](crate::MomentsBuilder) and
/// then a [`CalibrationBuilder`](crate::CalibrationBuilder), and kept as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Version of the file, [`Calibration::SCHEMA`].
    pub schema: u32,
    /// Number of images of the first pass.
    pub images: u64,
    /// Dimensions of a latent.
    pub channels: usize,
    /// Rows of the latent map.
    pub height: usize,
    /// Columns of the latent map.
    pub width: usize,
    /// Mean over all latents of all channels.
    pub latent_mean: f32,
    /// Standard deviation over all latents of all channels.
    pub latent_std: f32,
    /// One over `latent_std`: the paper's 0.2325, applied without subtracting the mean.
    pub latent_scale: f32,
    /// The quantizer of the statistics below.
    pub quantizer: QuantizerConfig,
    /// Share of the normalized latents outside ± range, over all dimensions.
    pub clip_rate: f32,
    /// Entropy of the indices in bits per dimension, the mean over all dimensions.
    pub entropy_bits: f32,
    /// Mean squared error in normalized units, over all dimensions.
    pub mse: f32,
    /// The channels by descending share of low-frequency energy: the order in which a generator predicts them
    /// (section 3.2).
    ///
    /// The paper does not state its radius. Here low means at most 0.25 cycles per latent in any direction, half the
    /// Nyquist frequency, so that any map of four or more rows or columns has low frequencies. Energies are summed
    /// over the images before taking shares. Each map's mean is removed: with a global scale, which subtracts no
    /// mean, the channels would otherwise be ordered by their offsets.
    pub order: Vec<usize>,
    /// One entry per channel, in the channels' own order.
    pub dimensions: Vec<Dimension>,
    /// Side of the squares of a tokenizer's latents that are one latent here; 1 in files of before there were any.
    #[serde(default = "one")]
    pub patch_size: usize,
    /// What the weights of the tokenizer are known by; `None` where that was not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<String>,
}

fn one() -> usize {
    1
}

impl Calibration {
    /// The version of the file that this crate writes and reads.
    pub const SCHEMA: u32 = 1;

    /// The config of a quantizer for latents like these.
    pub fn quantizer_config(&self, bits: u8, range: f32, scale_by: ScaleBy) -> QuantizerConfig {
        let (mean, scale) = match scale_by {
            ScaleBy::Channel => self
                .dimensions
                .iter()
                .map(|dimension| (dimension.mean, 1.0 / dimension.std))
                .unzip(),
            ScaleBy::Global => (Vec::new(), vec![self.latent_scale]),
        };
        QuantizerConfig {
            bits,
            range,
            mean,
            scale,
            ..QuantizerConfig::default()
        }
    }

    /// Writes the calibration as JSON. The file appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        write_atomically(path, Existing::Replace, |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        })
        .map_err(|error| Error::Write {
            path: error.path,
            source: error.source,
        })
    }

    /// Reads a file written by [`save`](Self::save). A file that is incomplete or inconsistent is refused.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Json`], [`Error::FieldType`] or [`Error::FieldValue`] names the file and the field.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read(path).map_err(|source| Error::Read {
            path: path.into(),
            source,
        })?;
        let fields = serde_json::from_slice(&text).map_err(|source| Error::Json {
            path: path.into(),
            source,
        })?;
        let mut file = Fields { path, fields };
        // Before all else: another version may well lack the other fields.
        let schema = file.take("schema")?;
        file.ensure(schema == Self::SCHEMA, "schema", Self::SCHEMA, schema)?;
        let calibration = Self {
            schema,
            images: file.take("images")?,
            channels: file.take("channels")?,
            height: file.take("height")?,
            width: file.take("width")?,
            latent_mean: file.take("latent_mean")?,
            latent_std: file.take("latent_std")?,
            latent_scale: file.take("latent_scale")?,
            quantizer: file.take("quantizer")?,
            clip_rate: file.take("clip_rate")?,
            entropy_bits: file.take("entropy_bits")?,
            mse: file.take("mse")?,
            order: file.take("order")?,
            dimensions: file.take("dimensions")?,
            patch_size: file.take::<Option<_>>("patch_size")?.unwrap_or_else(one),
            vae: file.take("vae")?,
        };
        calibration.check(&file)?;
        Ok(calibration)
    }

    /// Checks that the fields agree with each other.
    fn check(&self, file: &Fields) -> Result<()> {
        let Self {
            channels,
            latent_scale,
            order,
            dimensions,
            ..
        } = self;
        let usable = |scale: f32| scale.is_finite() && scale > 0.0;
        file.ensure(
            usable(*latent_scale),
            "latent_scale",
            "a positive number",
            latent_scale,
        )?;
        file.ensure(
            dimensions.len() == *channels,
            "dimensions",
            format!("{channels} of them"),
            dimensions.len(),
        )?;
        for (channel, Dimension { std, .. }) in dimensions.iter().enumerate() {
            let expected = format!("a positive std in channel {channel}");
            file.ensure(
                usable(*std) && usable(1.0 / std),
                "dimensions",
                expected,
                std,
            )?;
        }
        for (channel, Dimension { decoder_noise, .. }) in dimensions.iter().enumerate() {
            let expected = format!("a positive decoder_noise in channel {channel}");
            let noise = decoder_noise.unwrap_or(1.0);
            file.ensure(usable(noise), "dimensions", expected, noise)?;
        }
        let mut sorted = order.clone();
        sorted.sort_unstable();
        let expected = format!("every channel below {channels} once");
        file.ensure(
            sorted.into_iter().eq(0..*channels),
            "order",
            expected,
            format!("{order:?}"),
        )?;
        let quantizer = self
            .quantizer
            .validate()
            .and_then(|()| self.quantizer.check_channels(*channels));
        quantizer.or_else(|why| file.ensure(false, "quantizer", "valid settings", why))
    }
}

/// The fields of a JSON file, taken one by one so that an error can name the one it is about.
struct Fields<'a> {
    path: &'a Path,
    fields: Map<String, Value>,
}

impl Fields<'_> {
    fn take<T: DeserializeOwned>(&mut self, field: &'static str) -> Result<T> {
        let value = self.fields.remove(field).unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|source| Error::FieldType {
            path: self.path.into(),
            field,
            source,
        })
    }

    fn ensure(
        &self,
        holds: bool,
        field: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> Result<()> {
        match holds {
            true => Ok(()),
            false => Err(Error::FieldValue {
                path: self.path.into(),
                field,
                expected: expected.to_string(),
                found: found.to_string(),
            }),
        }
    }
}
