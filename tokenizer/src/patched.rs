//! A tokenizer whose latents are patches: squares of its own latents, each a position of more channels.

use crate::image_tokenizer::ImageTokenizer;
use crate::open::{LatentScale, Opened};
use crate::{Error, Result};
use burn::tensor::{Device, Tensor};
use serde_json::Value;
use std::borrow::Cow;
use std::path::Path;
use tessera_weights::{WeightDtype, Weights};

/// Side of the largest patch, in latents.
const MOST: usize = 16;

/// A tokenizer with each square of `patch_size` × `patch_size` latents as one.
///
/// A position then has `patch_size²` times the channels, in the order of MAR's `patchify` (arXiv 2406.11838,
/// `models/mar.py`: `nchpwq->nhwcpq`): by channel, then by row in the patch, then by column.
#[derive(Debug)]
pub struct Patched {
    inner: Box<dyn ImageTokenizer>,
    patch_size: usize,
}

impl Patched {
    /// The tokenizer in patches of this side; with a side of 1 the tokenizer itself.
    ///
    /// # Errors
    /// [`Error::PatchSize`] for a side that is no patch's.
    pub fn over(
        inner: Box<dyn ImageTokenizer>,
        patch_size: usize,
    ) -> Result<Box<dyn ImageTokenizer>> {
        match patch_size {
            1 => Ok(inner),
            2..=MOST => Ok(Box::new(Self { inner, patch_size })),
            found => Err(Error::PatchSize { most: MOST, found }),
        }
    }
}

impl Opened {
    /// The same in patches of this side, with the scale of their dimensions.
    ///
    /// # Errors
    /// As [`Patched::over`].
    pub fn patched(self, patch_size: usize) -> Result<Self> {
        let of_each = |values: Cow<'static, [f32]>| match values.len() {
            1 => values,
            _ => {
                let positions = patch_size * patch_size;
                let of_patch = |&value| std::iter::repeat_n(value, positions);
                values.iter().flat_map(of_patch).collect()
            }
        };
        Ok(Self {
            tokenizer: Patched::over(self.tokenizer, patch_size)?,
            files: self.files,
            latents: self.latents.map(|LatentScale { mean, scale }| LatentScale {
                mean: of_each(mean),
                scale: of_each(scale),
            }),
        })
    }
}

impl ImageTokenizer for Patched {
    fn architecture(&self) -> &'static str {
        self.inner.architecture()
    }

    fn config_json(&self) -> Value {
        let mut config = self.inner.config_json();
        config["patch_size"] = self.patch_size.into();
        config
    }

    fn weights(&self) -> Weights {
        self.inner.weights()
    }

    fn image_channels(&self) -> usize {
        self.inner.image_channels()
    }

    fn latent_channels(&self) -> usize {
        self.inner.latent_channels() * self.patch_size.pow(2)
    }

    fn downsampling(&self) -> usize {
        self.inner.downsampling() * self.patch_size
    }

    fn patch_size(&self) -> usize {
        self.patch_size
    }

    fn resolution(&self) -> Option<usize> {
        self.inner.resolution()
    }

    fn device(&self) -> Device {
        self.inner.device()
    }

    fn largest_tensor(&self, height_px: usize, width_px: usize) -> usize {
        self.inner.largest_tensor(height_px, width_px)
    }

    fn encode(&self, images: Tensor<4>) -> Tensor<4> {
        patchify(self.inner.encode(images), self.patch_size)
    }

    fn gives_distributions(&self) -> bool {
        self.inner.gives_distributions()
    }

    fn encode_moments(&self, images: Tensor<4>) -> Tensor<4> {
        // The means' patches stay before those of the log-variances.
        patchify(self.inner.encode_moments(images), self.patch_size)
    }

    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.inner.decode(unpatchify(latents, self.patch_size))
    }

    fn check_image_size(&self, height_px: usize, width_px: usize) -> Result<()> {
        self.inner.check_image_size(height_px, width_px)?;
        let factor = self.downsampling();
        if height_px.is_multiple_of(factor) && width_px.is_multiple_of(factor) {
            return Ok(());
        }
        let latents = self.inner.downsampling();
        Err(Error::PatchFit {
            height_px,
            width_px,
            latents: [height_px / latents, width_px / latents],
            patch_size: self.patch_size,
        })
    }

    /// Writes the tokenizer without patches: whoever loads it says how large they are.
    fn save_dir(&self, folder: &Path, dtype: WeightDtype) -> Result<()> {
        self.inner.save_dir(folder, dtype)
    }
}

/// Squares of `side` × `side` latents as one position each.
///
/// # Shapes
/// - `latents`: `[batch, channels, height, width]`
/// - returns `[batch, channels · side², height / side, width / side]`
///
/// # Panics
/// When the side does not divide height and width.
fn patchify(latents: Tensor<4>, side: usize) -> Tensor<4> {
    let [batch, channels, height, width] = latents.dims();
    let (rows, columns) = (height / side, width / side);
    latents
        .reshape([batch, channels, rows, side, columns, side])
        .permute([0, 1, 3, 5, 2, 4]) // [batch, channels, side, side, rows, columns]
        .reshape([batch, channels * side * side, rows, columns])
}

/// The inverse of [`patchify`].
///
/// # Shapes
/// - `patches`: `[batch, channels · side², rows, columns]`
/// - returns `[batch, channels, rows · side, columns · side]`
///
/// # Panics
/// When the channels are not `side²` for each.
fn unpatchify(patches: Tensor<4>, side: usize) -> Tensor<4> {
    let [batch, dimensions, rows, columns] = patches.dims();
    let channels = dimensions / (side * side);
    patches
        .reshape([batch, channels, side, side, rows, columns])
        .permute([0, 1, 4, 2, 5, 3]) // [batch, channels, rows, side, columns, side]
        .reshape([batch, channels, rows * side, columns * side])
}
