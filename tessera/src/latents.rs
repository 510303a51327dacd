//! From a data set to latents: every image encoded once, and what a quantizer needs to know of them.

use crate::device::Device;
use crate::error::{Error, Result};
use ndarray::{Array4, Axis, s};
use std::ops::ControlFlow;
use tessera_pictures::dataset::{self, Dataset};
use tessera_tokenizer::ImageTokenizer;
#[cfg(feature = "train")]
use {
    crate::identity::digest_of_tokenizer,
    ndarray::Array3,
    std::ops::Range,
    tessera_backend::streams,
    tessera_quantize::{
        Bits, Calibration, CalibrationBuilder, MOST_MEASURED_BITS, MomentsBuilder, Quantizer,
        ScaleBy,
    },
    tessera_train::{LatentCache, LatentKind},
};

/// Pixels worked on at once: 64 small pictures, or 16 of 256 px.
const BATCH_PIXELS: usize = 1 << 20;

/// How many pictures of so many pixels are worked on at once.
pub(crate) fn at_once(pixels: usize) -> usize {
    (BATCH_PIXELS / pixels.max(1)).clamp(1, 64)
}

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

impl Orientation {
    /// The images `[images, channels, height, width]` turned so.
    fn of(self, mut images: Array4<f32>) -> Array4<f32> {
        if self == Self::Mirrored {
            images.invert_axis(Axis(3));
        }
        images
    }
}

/// What `encode` makes of every image of a data set, batch by batch.
fn each(
    data: &dyn Dataset,
    progress: OnProgress<'_>,
    mut encode: impl FnMut(Array4<f32>) -> Result<Array4<f32>>,
) -> Result<Array4<f32>> {
    let indices: Vec<usize> = (0..data.len()).collect();
    let pixels = match data.len() {
        0 => 0,
        _ => data.image(0)?.index_axis(Axis(0), 0).len(),
    };
    let batch = at_once(pixels);
    let mut encoded: Option<Array4<f32>> = None;
    for chunk in indices.chunks(batch) {
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
    each(data, progress, |images| {
        device.encode(tokenizer, orientation.of(images))
    })
}

/// What the latents of every image of a data set are drawn from: posteriors, or the latents themselves where a
/// tokenizer gives no distributions.
///
/// # Errors
/// When an image cannot be read, or `progress` cancels.
#[cfg(feature = "train")]
pub fn encode_posteriors(
    tokenizer: &dyn ImageTokenizer,
    data: &dyn Dataset,
    orientation: Orientation,
    device: &Device,
    progress: OnProgress<'_>,
) -> Result<LatentCache> {
    let moments = each(data, progress, |images| {
        device.encode_moments(tokenizer, orientation.of(images))
    })?;
    Ok(LatentCache {
        kind: match moments.dim().1 == tokenizer.latent_channels() {
            true => LatentKind::Point,
            false => LatentKind::Posterior,
        },
        moments,
        moments_flip: None,
        labels: (0..data.len()).map(|i| data.label(i) as u32).collect(),
        class_names: data.class_names().to_vec(),
        provenance: serde_json::json!({ "vae": tokenizer.config_json() }),
    })
}

/// How a quantizer is calibrated.
#[cfg(feature = "train")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationOptions<'a> {
    /// Bits per dimension.
    pub bits: Bits,
    /// The noise that the decoder tolerates in each dimension ([`decoder_noise`](crate::decoder_noise)), without which
    /// bits cannot be [`Bits::Auto`].
    pub decoder_noise: Option<&'a [f32]>,
    /// Normalized latents are clipped to this many standard deviations.
    pub range: f32,
    /// A mean and a scale for each channel, or one scale for all as in the paper.
    pub scale: ScaleBy,
    /// What the samples of the posteriors come from.
    pub seed: u64,
}

/// Measures scale, clipping, entropy and the order of the dimensions on a sample of every posterior, or on the latents
/// themselves.
///
/// # Errors
/// Bits or range out of bounds, a latent that is not finite, a channel that never varies.
#[cfg(feature = "train")]
pub fn calibrate(cache: &LatentCache, options: &CalibrationOptions<'_>) -> Result<Calibration> {
    let CalibrationOptions {
        bits,
        decoder_noise,
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
    let uniform = match bits {
        Bits::Uniform(bits) => bits,
        Bits::Auto { .. } => MOST_MEASURED_BITS,
    };
    let config = moments.quantizer_config(uniform, range, scale);
    let quantizer = Quantizer::new(config)?;
    let mut builder = CalibrationBuilder::new(&moments, &quantizer)?;
    for chunk in chunks() {
        builder.add(samples(cache, chunk, seed).view())?;
    }
    let mut calibration = builder.finish()?;
    let posteriors = posterior_bits(cache);
    for (channel, dimension) in calibration.dimensions.iter_mut().enumerate() {
        dimension.posterior_bits = posteriors.get(channel).copied();
        dimension.decoder_noise = decoder_noise.and_then(|noise| noise.get(channel)).copied();
    }
    match bits {
        Bits::Uniform(_) => Ok(calibration),
        Bits::Auto { mean } => {
            let widths = calibration.allocate(mean)?;
            Ok(calibration.with_channel_bits(widths)?)
        }
    }
}

/// The rate of every channel's posteriors in bits, averaged over their latents: `KL(N(μ, σ²) ‖ N(0, 1)) / ln 2`.
/// Nothing where there are none.
#[cfg(feature = "train")]
fn posterior_bits(cache: &LatentCache) -> Vec<f32> {
    let [channels, height, width] = cache.latent_shape();
    if cache.kind == LatentKind::Point {
        return Vec::new();
    }
    let mut nats = vec![0.0_f64; channels];
    for index in 0..cache.len() {
        let (mean, logvar) = cache.posterior(index, false);
        let Some(logvar) = logvar else { continue };
        for (channel, sum) in nats.iter_mut().enumerate() {
            let pairs = mean.index_axis(Axis(0), channel);
            let pairs = pairs.iter().zip(logvar.index_axis(Axis(0), channel));
            let kl = pairs.map(|(&mean, &logvar)| {
                let (mean, logvar) = (f64::from(mean), f64::from(logvar));
                0.5 * (mean * mean + logvar.exp() - 1.0 - logvar)
            });
            *sum += kl.sum::<f64>();
        }
    }
    let count = (cache.len() * height * width) as f64 * std::f64::consts::LN_2;
    nats.iter().map(|nats| (nats / count) as f32).collect()
}

/// A calibration that says which tokenizer it was measured on, in which patches.
///
/// # Errors
/// None of a tokenizer in memory.
#[cfg(feature = "train")]
pub fn measured_on(
    tokenizer: &dyn ImageTokenizer,
    calibration: Calibration,
) -> Result<Calibration> {
    Ok(Calibration {
        patch_size: tokenizer.patch_size(),
        vae: Some(digest_of_tokenizer(tokenizer)?),
        ..calibration
    })
}

/// One sample of every posterior in `range`, the same for a seed whatever the range.
#[cfg(feature = "train")]
fn samples(cache: &LatentCache, range: Range<usize>, seed: u64) -> Array4<f32> {
    let one = |i| cache.sample(i, false, &mut streams::CALIBRATION.of(seed, i as u64));
    let images: Vec<Array3<f32>> = range.map(one).collect();
    let views: Vec<_> = images.iter().map(|image| image.view()).collect();
    ndarray::stack(Axis(0), &views).expect("latents of one data set are of one size")
}
