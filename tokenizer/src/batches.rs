//! Many pictures through a tokenizer on a device whose memory, or whose largest tensor, is bounded: as many at once as
//! there is room for, and in tiles where there is none for a whole one.
//!
//! ```
//! use burn::tensor::Device;
//! use ndarray::Array4;
//! use tessera_tokenizer::{KlVaeConfig, decode_within};
//!
//! let vae = KlVaeConfig::small(3, 16, 8, &[1, 2], 1, 4).init(0, &Device::flex())?;
//! let latents = Array4::zeros((5, 4, 8, 8));
//! let whole = decode_within(&vae, latents.clone(), u64::MAX)?;
//! let two_at_a_time = decode_within(&vae, latents, 2 * 4 * 16 * 16 * 16)?;
//! assert_eq!(whole, two_at_a_time);
//! # Ok::<(), tessera_tokenizer::Error>(())
//! ```

use crate::tiles::encode_tiled_by;
use crate::{Error, ImageTokenizer, Result, Tiling, decode_tiled};
use burn::tensor::Tensor;
use ndarray::{Array3, Array4, ArrayView3, Axis, concatenate, stack};
use tessera_backend::{download, upload};

/// What neighboring tiles share at most, in px.
const OVERLAP_PX: usize = 128;

/// How pictures of one size are worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// Whole, so many at once.
    Whole(usize),
    /// One at a time, in tiles.
    Tiled(Tiling),
}

/// The way in which no tensor takes more than `bytes`.
fn way(tokenizer: &dyn ImageTokenizer, [height, width]: [usize; 2], bytes: u64) -> Result<Way> {
    let room = usize::try_from(bytes / size_of::<f32>() as u64).unwrap_or(usize::MAX);
    let largest = |height, width| tokenizer.largest_tensor(height, width);
    let at_once = room / largest(height, width).max(1);
    if at_once > 0 {
        return Ok(Way::Whole(at_once));
    }
    let factor = tokenizer.downsampling();
    let longest = height.max(width) / factor;
    let fits = |&side: &usize| largest(side * factor, side * factor) <= room;
    // A tile of two latents has a border that is not all of it.
    let side = (2..=longest).rev().find(fits).ok_or(Error::NoRoom {
        bytes,
        needed: 4 * largest(2 * factor, 2 * factor) as u64,
    })?;
    Ok(Way::Tiled(Tiling {
        tile_px: side * factor,
        overlap_px: (side * factor / 4).min(OVERLAP_PX) / factor * factor,
    }))
}

/// [`ImageTokenizer::encode`], no tensor of it larger than `bytes`.
///
/// # Shapes
/// - `images`: `[batch, image_channels, height, width]`, in `[-1, 1]`
/// - returns `[batch, latent_channels, height / downsampling, width / downsampling]`
///
/// # Errors
/// When there is no room for a tile, or the images' sides are no multiples of the downsampling.
pub fn encode_within(
    tokenizer: &dyn ImageTokenizer,
    images: Array4<f32>,
    bytes: u64,
) -> Result<Array4<f32>> {
    encode_by(tokenizer, images, bytes, |images| tokenizer.encode(images))
}

/// [`ImageTokenizer::encode_moments`], no tensor of it larger than `bytes`.
///
/// # Shapes
/// - `images`: `[batch, image_channels, height, width]`, in `[-1, 1]`
/// - returns `[batch, 2 latent_channels, …]` where latents are distributions, or `[batch, latent_channels, …]`
///
/// # Errors
/// As [`encode_within`].
pub fn encode_moments_within(
    tokenizer: &dyn ImageTokenizer,
    images: Array4<f32>,
    bytes: u64,
) -> Result<Array4<f32>> {
    encode_by(tokenizer, images, bytes, |images| {
        tokenizer.encode_moments(images)
    })
}

fn encode_by(
    tokenizer: &dyn ImageTokenizer,
    images: Array4<f32>,
    bytes: u64,
    encode: impl Fn(Tensor<4>) -> Tensor<4>,
) -> Result<Array4<f32>> {
    let (_, _, height, width) = images.dim();
    tokenizer.check_image_size(height, width)?;
    run(
        images,
        way(tokenizer, [height, width], bytes)?,
        |images| download(encode(upload(images, &tokenizer.device()))),
        |image, tiling| encode_tiled_by(tokenizer, image, tiling, &encode),
    )
}

/// [`ImageTokenizer::decode`], no tensor of it larger than `bytes`.
///
/// # Shapes
/// - `latents`: `[batch, latent_channels, height, width]`
/// - returns `[batch, image_channels, height * downsampling, width * downsampling]`
///
/// # Errors
/// When there is no room for a tile.
pub fn decode_within(
    tokenizer: &dyn ImageTokenizer,
    latents: Array4<f32>,
    bytes: u64,
) -> Result<Array4<f32>> {
    let (_, _, height, width) = latents.dim();
    let factor = tokenizer.downsampling();
    run(
        latents,
        way(tokenizer, [height * factor, width * factor], bytes)?,
        |latents| download(tokenizer.decode(upload(latents, &tokenizer.device()))),
        |latents, tiling| decode_tiled(tokenizer, latents, tiling),
    )
}

/// Works on an array in this way.
fn run(
    array: Array4<f32>,
    way: Way,
    whole: impl Fn(Array4<f32>) -> Array4<f32>,
    tiled: impl Fn(ArrayView3<'_, f32>, &Tiling) -> Result<Array3<f32>>,
) -> Result<Array4<f32>> {
    let count = array.dim().0;
    match way {
        Way::Whole(at_once) if at_once >= count => Ok(whole(array)),
        Way::Whole(at_once) => {
            let batches = array.axis_chunks_iter(Axis(0), at_once);
            let parts: Vec<_> = batches.map(|batch| whole(batch.to_owned())).collect();
            let parts: Vec<_> = parts.iter().map(|part| part.view()).collect();
            Ok(concatenate(Axis(0), &parts).expect("all parts have the shape of one picture"))
        }
        Way::Tiled(tiling) => {
            let parts = array.outer_iter().map(|one| tiled(one, &tiling));
            let parts = parts.collect::<Result<Vec<_>>>()?;
            let parts: Vec<_> = parts.iter().map(|part| part.view()).collect();
            Ok(stack(Axis(0), &parts).expect("all pictures are of one shape"))
        }
    }
}
