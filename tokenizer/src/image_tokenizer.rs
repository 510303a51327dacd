//! What every image tokenizer does, whichever network it is.

use crate::{Error, Result};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde_json::Value;
use std::fmt::Debug;
use std::path::Path;
use tessera_weights::{WeightDtype, Weights};

/// A network that takes images to continuous latents and back.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use tessera_tokenizer::{ImageTokenizer, KlVaeConfig, TinyAutoencoderConfig};
///
/// let device = Device::flex();
/// let tokenizers: [Box<dyn ImageTokenizer>; 2] = [
///     Box::new(KlVaeConfig::small(3, 16, 8, &[1, 2], 1, 4).init(0, &device)?),
///     Box::new(TinyAutoencoderConfig::taesd().init(0, &device)?),
/// ];
/// for tokenizer in tokenizers {
///     let latents = tokenizer.encode(Tensor::zeros([1, 3, 16, 16], &device));
///     assert_eq!(latents.dims()[1], tokenizer.latent_channels());
///     assert_eq!(latents.dims()[2], 16 / tokenizer.downsampling());
///     assert_eq!(tokenizer.decode(latents).dims(), [1, 3, 16, 16]);
/// }
/// # Ok::<(), tessera_tokenizer::Error>(())
/// ```
pub trait ImageTokenizer: Debug + Send {
    /// What kind of network it is, in words.
    fn architecture(&self) -> &'static str;

    /// What `config.json` says of it.
    fn config_json(&self) -> Value;

    /// Its parameters, under the names and in the values that the network has them; none if it has no parameters.
    fn weights(&self) -> Weights;

    /// Channels of the images: 1 for gray, 3 for RGB.
    fn image_channels(&self) -> usize;

    /// Channels of the latents.
    fn latent_channels(&self) -> usize;

    /// Image px per latent, along each side.
    fn downsampling(&self) -> usize;

    /// Side of the squares of a network's latents that are one latent here; 1 unless it is [`Patched`](crate::Patched).
    fn patch_size(&self) -> usize {
        1
    }

    /// Side in px of the images it was made for; `None` if no size is special to it.
    fn resolution(&self) -> Option<usize>;

    /// Where it computes.
    fn device(&self) -> Device;

    /// How many values the largest tensor has that encoding or decoding one picture of this size makes, in about: what
    /// a device with little memory has to be asked for.
    fn largest_tensor(&self, height_px: usize, width_px: usize) -> usize;

    /// The latents of images; where these are distributions, their means.
    ///
    /// # Shapes
    /// - `images`: `[batch, image_channels, height, width]`, in `[-1, 1]`
    /// - returns `[batch, latent_channels, height / downsampling, width / downsampling]`
    ///
    /// # Panics
    /// On another number of channels, or a size that [`check_image_size`](Self::check_image_size) refuses.
    fn encode(&self, images: Tensor<4>) -> Tensor<4>;

    /// Whether latents are distributions, of which [`encode_moments`](Self::encode_moments) gives both moments.
    fn gives_distributions(&self) -> bool {
        false
    }

    /// What latents of images are drawn from: means, then log-variances, where they are distributions; elsewhere
    /// [`encode`](Self::encode)'s latents.
    ///
    /// # Shapes
    /// - `images`: as [`encode`](Self::encode) takes them
    /// - returns `[batch, 2 latent_channels, …]`, or `[batch, latent_channels, …]`
    ///
    /// # Panics
    /// As [`encode`](Self::encode).
    fn encode_moments(&self, images: Tensor<4>) -> Tensor<4> {
        self.encode(images)
    }

    /// Images of the latents. Nothing clamps them: values may lie a little outside `[-1, 1]`.
    ///
    /// # Shapes
    /// - `latents`: `[batch, latent_channels, height, width]`
    /// - returns `[batch, image_channels, height * downsampling, width * downsampling]`
    ///
    /// # Panics
    /// On another number of channels.
    fn decode(&self, latents: Tensor<4>) -> Tensor<4>;

    /// Whether images of this size can be encoded; to ask before tensors are made of a user's image.
    ///
    /// # Errors
    /// [`Error::ImageSize`] if a side is 0 or not a multiple of [`downsampling`](Self::downsampling);
    /// [`Error::PatchFit`] if only the patch does not fit.
    fn check_image_size(&self, height_px: usize, width_px: usize) -> Result<()> {
        let multiple_of = self.downsampling();
        let fits = |side: usize| side > 0 && side.is_multiple_of(multiple_of);
        if fits(height_px) && fits(width_px) {
            return Ok(());
        }
        Err(Error::ImageSize {
            height_px,
            width_px,
            multiple_of,
        })
    }

    /// Writes what [`load_tokenizer`](crate::load_tokenizer) loads.
    ///
    /// # Errors
    /// When a file cannot be written; the one that was there is then still whole.
    fn save_dir(&self, folder: &Path, dtype: WeightDtype) -> Result<()>;
}

/// The device of a network that was made on one.
pub(crate) fn only_device<M: Module>(network: &M) -> Device {
    let mut devices = network.devices();
    devices
        .pop()
        .expect("a tokenizer has parameters, and they are somewhere")
}
