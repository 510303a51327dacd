//! From a data set to latents: every image encoded once, and what a quantizer needs to know of them.

use crate::device::Device;
use crate::error::{Error, Result};
use ndarray::{Array4, Axis, s};
use std::ops::ControlFlow;
use tessera_pictures::dataset::{self, Dataset};
use tessera_tokenizer::ImageTokenizer;
#[cfg(feature = "train")]
use {
    ndarray::Array3,
    std::ops::Range,
    tessera_backend::{download, streams, upload},
    tessera_quantize::{Calibration, CalibrationBuilder, MomentsBuilder, Quantizer, ScaleBy},
    tessera_tokenizer::KlVae,
    tessera_train::LatentCache,
};

/// Images encoded at once.
const BATCH: usize = 64;

/// Hears how many of how many images are done; `Break` cancels.
pub type OnProgress<'a> = &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>;

/// Whether images are encoded as they are or as their mirror images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    /// As they are.
    Upright,
    /// Left and right exchanged.
    Mirrored,
}

/// What `encode` makes of every image of a data set, batch by batch.
fn each(
    data: &dyn Dataset,
    progress: OnProgress<'_>,
    mut encode: impl FnMut(Array4<f32>) -> Result<Array4<f32>>,
) -> Result<Array4<f32>> {
    let indices: Vec<usize> = (0..data.len()).collect();
    let mut encoded: Option<Array4<f32>> = None;
    for chunk in indices.chunks(BATCH) {
        let part = encode(dataset::batch(data, chunk)?)?;
        let (_, channels, height, width) = part.dim();
        let all =
            encoded.get_or_insert_with(|| Array4::zeros((data.len(), channels, height, width)));
        let done = chunk[0] + chunk.len();
        all.slice_mut(s![chunk[0]..done, .., .., ..]).assign(&part);
        if progress(done, data.len()).is_break() {
            return Err(Error::Cancelled {
                done,
                total: data.len(),
                what: "images",
            });
        }
    }
    encoded.ok_or(Error::Invalid {
        what: "images to encode",
        expected: "1 or more".into(),
        found: "0".into(),
    })
}

/// The latents `[images, channels, height, width]` of every image of a data set through any tokenizer; means, where
/// these are distributions.
///
/// # Errors
/// When an image cannot be read, or `progress` cancels.
pub fn encode_dataset(
    tokenizer: &dyn ImageTokenizer,
    data: &dyn Dataset,
    orientation: Orientation,
    device: &Device,
    progress: OnProgress<'_>,
) -> Result<Array4<f32>> {
    each(data, progress, |mut images| {
        if orientation == Orientation::Mirrored {
            images.invert_axis(Axis(3));
        }
        device.encode(tokenizer, images)
    })
}

/// The posteriors of every image of a data set.
///
/// # Errors
/// When an image cannot be read, or `progress` cancels.
#[cfg(feature = "train")]
pub fn encode_posteriors(
    vae: &KlVae,
    data: &dyn Dataset,
    device: &Device,
    progress: OnProgress<'_>,
) -> Result<LatentCache> {
    let moments = each(data, progress, |images| {
        Ok(download(
            vae.encode(upload(images, device.burn())).moments(),
        ))
    })?;
    Ok(LatentCache {
        moments,
        moments_flip: None,
        labels: (0..data.len()).map(|i| data.label(i) as u32).collect(),
        class_names: data.class_names().to_vec(),
        provenance: serde_json::json!({ "vae": vae.config() }),
    })
}

/// How a quantizer is calibrated.
#[cfg(feature = "train")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationOptions {
    /// Bits per dimension, 1 to 16.
    pub bits: u8,
    /// Normalized latents are clipped to this many standard deviations.
    pub range: f32,
    /// A mean and a scale for each channel, or one scale for all as in the paper.
    pub scale: ScaleBy,
    /// What the samples of the posteriors come from.
    pub seed: u64,
}

/// Measures scale, clipping, entropy and the order of the dimensions on samples of all posteriors.
///
/// # Errors
/// Bits or range out of bounds, a latent that is not finite, a channel that never varies.
#[cfg(feature = "train")]
pub fn calibrate(cache: &LatentCache, options: &CalibrationOptions) -> Result<Calibration> {
    let CalibrationOptions {
        bits,
        range,
        scale,
        seed,
    } = *options;
    let chunks = || {
        let starts = (0..cache.len()).step_by(1024);
        starts.map(|first| first..cache.len().min(first + 1024))
    };
    let mut moments = MomentsBuilder::new();
    for chunk in chunks() {
        moments.add(samples(cache, chunk, seed).view())?;
    }
    let moments = moments.finish()?;
    let config = moments.quantizer_config(bits, range, scale);
    let quantizer = Quantizer::new(config)?;
    let mut builder = CalibrationBuilder::new(&moments, &quantizer)?;
    for chunk in chunks() {
        builder.add(samples(cache, chunk, seed).view())?;
    }
    Ok(builder.finish()?)
}

/// One sample of every posterior in `range`, the same for a seed whatever the range.
#[cfg(feature = "train")]
fn samples(cache: &LatentCache, range: Range<usize>, seed: u64) -> Array4<f32> {
    let one = |i| cache.sample(i, false, &mut streams::CALIBRATION.of(seed, i as u64));
    let images: Vec<Array3<f32>> = range.map(one).collect();
    let views: Vec<_> = images.iter().map(|image| image.view()).collect();
    ndarray::stack(Axis(0), &views).expect("latents of one data set are of one size")
}
