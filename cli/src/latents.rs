//! From a data set to latents: encode every image once, measure what the quantiser needs.

use crate::data;
use crate::interrupt;
use crate::progress::Progress;
use anyhow::{Result, bail};
use burn::tensor::Device;
use ndarray::{Array3, Array4, Axis, s};
use tessera_backend::Rng;
use tessera_quantize::{Calibration, CalibrationBuilder, MomentsBuilder, Quantizer};
use tessera_tokenizer::{ImageTokenizer, KlVae};
use tessera_train::data::{Dataset, LatentCache, download, upload};
use tessera_train::judge::images_of;

/// Images encoded at once.
const BATCH: usize = 64;

/// Random streams of calibration: the posterior of image `i` is sampled from stream `CALIBRATE + i`.
const CALIBRATE: u64 = 1 << 40;

/// What `encode` makes of every image of a data set, batch by batch.
fn each(
    data: &dyn Dataset,
    quiet: bool,
    mut encode: impl FnMut(Array4<f32>) -> Result<Array4<f32>>,
) -> Result<Array4<f32>> {
    let mut progress = Progress::new("encode", "images", data.len() as u64, quiet);
    let indices: Vec<usize> = (0..data.len()).collect();
    let mut encoded: Option<Array4<f32>> = None;
    for chunk in indices.chunks(BATCH) {
        let part = encode(images_of(data, chunk)?)?;
        let (_, channels, height, width) = part.dim();
        let all =
            encoded.get_or_insert_with(|| Array4::zeros((data.len(), channels, height, width)));
        all.slice_mut(s![chunk[0]..chunk[0] + chunk.len(), .., .., ..])
            .assign(&part);
        progress.set((chunk[0] + chunk.len()) as u64, "");
        if interrupt::requested() {
            bail!(
                "stopped after {} of {} images",
                chunk[0] + chunk.len(),
                data.len()
            );
        }
    }
    progress.finish();
    let Some(encoded) = encoded else {
        bail!("no image to encode")
    };
    Ok(encoded)
}

/// The posteriors of every image of a data set.
///
/// # Errors
/// When an image cannot be read or Ctrl-C is pressed.
pub fn encode(
    vae: &KlVae,
    data: &dyn Dataset,
    device: &Device,
    quiet: bool,
) -> Result<LatentCache> {
    let moments = each(data, quiet, |images| {
        Ok(download(vae.encode(upload(images, device)).moments()))
    })?;
    Ok(LatentCache {
        moments,
        moments_flip: None,
        labels: (0..data.len()).map(|i| data.label(i) as u32).collect(),
        class_names: data.class_names().to_vec(),
        provenance: serde_json::json!({ "vae": vae.config() }),
    })
}

/// The latents of every image of a data set through any tokenizer; means, where these are distributions. `flip` mirrors the
/// images.
///
/// # Errors
/// As [`encode`].
pub fn means(
    tokenizer: &dyn ImageTokenizer,
    data: &dyn Dataset,
    flip: bool,
    quiet: bool,
) -> Result<Array4<f32>> {
    each(data, quiet, |mut images| {
        if flip {
            images.invert_axis(Axis(3));
        }
        data::encoded(tokenizer, images)
    })
}

/// One sample of every posterior in `range`, the same for a seed whatever the range.
fn samples(cache: &LatentCache, range: std::ops::Range<usize>, seed: u64) -> Array4<f32> {
    let one = |i| cache.sample(i, false, &mut Rng::new(seed, CALIBRATE + i as u64));
    let images: Vec<Array3<f32>> = range.map(one).collect();
    let views: Vec<_> = images.iter().map(|image| image.view()).collect();
    ndarray::stack(Axis(0), &views).expect("latents of one data set are of one size")
}

/// Measures scale, clipping, entropy and the order of the dimensions on samples of all posteriors.
///
/// # Errors
/// Bits or range out of bounds, a latent that is not finite, a channel that never varies.
pub fn calibrate(
    cache: &LatentCache,
    bits: u8,
    range: f32,
    per_channel: bool,
    seed: u64,
) -> Result<Calibration> {
    let chunks = || {
        (0..cache.len())
            .step_by(1024)
            .map(|first| first..cache.len().min(first + 1024))
    };
    let mut moments = MomentsBuilder::new();
    for chunk in chunks() {
        moments.add(samples(cache, chunk, seed).view())?;
    }
    let moments = moments.finish()?;
    let quantizer = Quantizer::new(moments.quantizer_config(bits, range, per_channel))?;
    let mut builder = CalibrationBuilder::new(&moments, &quantizer)?;
    for chunk in chunks() {
        builder.add(samples(cache, chunk, seed).view())?;
    }
    Ok(builder.finish()?)
}
