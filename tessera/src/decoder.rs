//! How much noise in each dimension of the latents a decoder tolerates: what its error says when one is perturbed.

use crate::device::Device;
use crate::error::Error;
use crate::error::Result;
use crate::latents::{OnProgress, at_once};
use ndarray::{Array4, Axis};
use tessera_backend::streams;
use tessera_pictures::dataset::{self, Dataset, spaced};
use tessera_tokenizer::ImageTokenizer;

/// Pictures that are looked at: sensitivities differ more from dimension to dimension than from picture to picture.
const PROBES: usize = 8;
/// The noise, in standard deviations of the dimension: about what four bits leave.
const NOISE: f32 = 0.1;
/// The squared error of rounding a pixel of [-1, 1] to 8 bits: no reconstruction is better.
const ROUNDING: f64 = (2.0 / 255.0) * (2.0 / 255.0) / 12.0;
/// A dimension is said to tolerate noise of this many standard deviations at most.
const MOST: f64 = 1024.0;

/// The noise that the decoder tolerates in each dimension of the latents: the standard deviation, in their own units,
/// at which it adds one over the number of dimensions of the squared error that reconstructions have anyway. Measured
/// with small Gaussian noise, in a dimension at a time, on pictures spread over the data set.
///
/// # Shapes
/// - output: one for each of the latents' channels
///
/// # Errors
/// When an image cannot be read, the device has no room, or `progress` cancels.
pub fn decoder_noise(
    tokenizer: &dyn ImageTokenizer,
    data: &dyn Dataset,
    device: &Device,
    progress: OnProgress<'_>,
) -> Result<Vec<f32>> {
    let one = data.image(0)?;
    let pixels = one.index_axis(Axis(0), 0).len();
    let probes = PROBES.min(at_once(pixels));
    let images = dataset::batch(data, &spaced(data.len(), probes))?;
    let latents = device.encode(tokenizer, images.clone())?;
    let plain = device.decode(tokenizer, latents.clone())?;
    let own = squared_error(&plain, &images).max(ROUNDING);
    let channels = latents.dim().1;
    let mut tolerated = Vec::with_capacity(channels);
    for channel in 0..channels {
        let step = NOISE
            * latents
                .index_axis(Axis(1), channel)
                .std(0.0)
                .max(f32::MIN_POSITIVE);
        let mut rng = streams::DECODER_NOISE.of(0, channel as u64);
        let mut noisy = latents.clone();
        noisy
            .index_axis_mut(Axis(1), channel)
            .mapv_inplace(|latent| latent + step * rng.normal());
        let decoded = device.decode(tokenizer, noisy)?;
        let per_variance = squared_error(&decoded, &plain) / f64::from(step).powi(2);
        let share = own / channels as f64;
        let most = MOST * f64::from(step / NOISE);
        tolerated.push((share / per_variance).sqrt().min(most) as f32);
        if progress(channel + 1, channels).is_break() {
            return Err(Error::Cancelled {
                done: channel + 1,
                total: channels,
                what: "dimensions",
            });
        }
    }
    Ok(tolerated)
}

/// The mean squared difference of images.
fn squared_error(a: &Array4<f32>, b: &Array4<f32>) -> f64 {
    let each = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    each.sum::<f64>() / a.len().max(1) as f64
}
