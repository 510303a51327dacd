//! Rate and distortion: what a tokenizer keeps of a picture, before and after its latents are quantized.

use crate::error::Result;
use crate::tokenizer::Tokenizer;
use ndarray::{Array3, Array4};
use serde::Serialize;
use tessera_pictures::{Pixels, psnr, ssim};
use tessera_quantize::{CalibrationBuilder, MomentsBuilder, Quantizer};

/// Side in px of the window that SSIM compares by; smaller pictures have none.
const SSIM_WINDOW: usize = 11;

/// A picture and its reconstructions.
#[derive(Debug, Clone)]
pub struct Reconstructions {
    /// As it went in, of the finished size.
    pub original: Pixels,
    /// Its latents left continuous.
    pub continuous: Pixels,
    /// Its latents quantized, one for each quantizer.
    pub quantized: Vec<Pixels>,
}

/// How near a reconstruction is to its original.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quality {
    /// In dB; infinite for identical pictures.
    pub psnr: f64,
    /// In −1 to 1; none for pictures that are smaller than its window of 11 x 11 px.
    pub ssim: Option<f64>,
}

/// The distortion of one picture, or the mean of several, at every rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RateDistortion {
    /// The picture's name, or `mean`.
    pub name: String,
    /// Of the continuous latents.
    pub continuous: Quality,
    /// Of the quantized ones, one for each quantizer.
    #[serde(rename = "quantised")]
    pub quantized: Vec<Quality>,
}

impl Tokenizer {
    /// Sends images of one size, `[channels, height, width]` in `[-1, 1]`, through the tokenizer: without quantization,
    /// and with each of `quantizers`.
    ///
    /// ```
    /// use tessera::quantize::Quantizer;
    /// use tessera::{Device, Tokenizer};
    ///
    /// let tokenizer = Tokenizer::of_model(None, &Device::cpu())?;
    /// let config = tokenizer.quantizer.clone().expect("a model over tokens has one");
    /// let image = ndarray::Array3::zeros((3, 64, 64));
    /// let all = tokenizer.reconstruct(&[image], &[Quantizer::new(config)?])?;
    /// assert_eq!(all[0].measure("gray")?.quantized.len(), 1);
    /// # Ok::<(), tessera::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the device has no room, or a value is not finite.
    pub fn reconstruct(
        &self,
        images: &[Array3<f32>],
        quantizers: &[Quantizer],
    ) -> Result<Vec<Reconstructions>> {
        match images.is_empty() {
            true => Ok(Vec::new()),
            false => self.reconstruct_encoded(images, self.encode(images)?, quantizers),
        }
    }

    /// As [`reconstruct`](Self::reconstruct), of images whose latents `[images, channels, height, width]` are known.
    ///
    /// # Errors
    /// As `reconstruct`.
    pub fn reconstruct_encoded(
        &self,
        images: &[Array3<f32>],
        latents: Array4<f32>,
        quantizers: &[Quantizer],
    ) -> Result<Vec<Reconstructions>> {
        let (_, image_height, image_width) = images.first().map_or((0, 0, 0), Array3::dim);
        let size = [image_height, image_width];
        let (_, _, height, width) = latents.dim();
        let quantized = quantizers.iter().map(|quantizer| {
            let indices = quantizer.quantize(latents.view())?;
            let restored = quantizer.dequantize(indices.view(), height, width)?;
            Ok(self.decode(restored, size)?.into_iter())
        });
        let mut quantized: Vec<_> = quantized.collect::<Result<_>>()?;
        let continuous = self.decode(latents, size)?;
        let each = images.iter().zip(continuous).map(|(image, continuous)| {
            Ok(Reconstructions {
                original: self.finish(image.view())?,
                continuous,
                quantized: quantized.iter_mut().filter_map(Iterator::next).collect(),
            })
        });
        each.collect()
    }
}

impl Reconstructions {
    /// The original, the continuous reconstruction, and those of every quantizer.
    pub fn pictures(&self) -> impl Iterator<Item = &Pixels> {
        let first = [&self.original, &self.continuous];
        first.into_iter().chain(&self.quantized)
    }

    /// How far each is from the original.
    ///
    /// # Errors
    /// When the pictures are not of one size; those that [`Tokenizer::reconstruct`] makes are.
    pub fn measure(&self, name: &str) -> Result<RateDistortion> {
        let side = self.original.height().min(self.original.width());
        let quality = |picture: &Pixels| -> Result<Quality> {
            Ok(Quality {
                psnr: psnr(&self.original, picture)?,
                ssim: match side >= SSIM_WINDOW {
                    true => Some(ssim(&self.original, picture)?),
                    false => None,
                },
            })
        };
        Ok(RateDistortion {
            name: name.into(),
            continuous: quality(&self.continuous)?,
            quantized: self.quantized.iter().map(quality).collect::<Result<_>>()?,
        })
    }
}

impl RateDistortion {
    /// Continuous first, then every quantizer's.
    pub fn qualities(&self) -> impl Iterator<Item = &Quality> {
        std::iter::once(&self.continuous).chain(&self.quantized)
    }

    /// Whether the picture is too small for SSIM, so that no mean counts it.
    pub fn lacks_ssim(&self) -> bool {
        self.continuous.ssim.is_none()
    }

    /// The mean of every column, of SSIM over the pictures that have one; none of no pictures.
    pub fn mean(rows: &[Self]) -> Option<Self> {
        let first = rows.first()?;
        let column = |of: &dyn Fn(&Self) -> Quality| {
            let ssims: Vec<f64> = rows.iter().filter_map(|row| of(row).ssim).collect();
            Quality {
                psnr: rows.iter().map(|row| of(row).psnr).sum::<f64>() / rows.len() as f64,
                ssim: (!ssims.is_empty()).then(|| ssims.iter().sum::<f64>() / ssims.len() as f64),
            }
        };
        Some(Self {
            name: "mean".into(),
            continuous: column(&|row| row.continuous),
            quantized: (0..first.quantized.len())
                .map(|i| column(&|row| row.quantized[i]))
                .collect(),
        })
    }
}

/// Entropy in bits of the tokens that latents, in batches of `[images, channels, height, width]`, become: of each
/// dimension, in the order of the channels.
///
/// ```
/// use tessera::entropy_bits;
/// use tessera::quantize::{Quantizer, QuantizerConfig};
///
/// let latents = ndarray::array![[[[-1.0, 1.0, -1.0, 1.0]], [[1.0, 2.0, 3.0, 4.0]]]]; // one image, 2 channels of 1 x 4
/// let quantizer = Quantizer::new(QuantizerConfig::default())?;
/// assert_eq!(entropy_bits(&[latents], &quantizer)?, [1.0, 2.0]);
/// # Ok::<(), tessera::Error>(())
/// ```
///
/// # Errors
/// No latents, or values that are not finite.
pub fn entropy_bits(latents: &[Array4<f32>], quantizer: &Quantizer) -> Result<Vec<f32>> {
    let mut moments = MomentsBuilder::new();
    for batch in latents {
        moments.add(batch.view())?;
    }
    let moments = moments.finish()?;
    let mut builder = CalibrationBuilder::new(&moments, quantizer)?;
    for batch in latents {
        builder.add(batch.view())?;
    }
    let dimensions = builder.finish()?.dimensions;
    Ok(dimensions.iter().map(|one| one.entropy_bits).collect())
}
