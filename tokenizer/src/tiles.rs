//! Pictures of any size in bounded memory: cut into tiles that overlap, worked on one at a time, and joined without a
//! seam.
//!
//! Tiles are of one size and spread evenly, so that neighbors overlap by at least what was asked for. Over an
//! overlap one tile fades into the next linearly; at every place the weights sum to 1. Hence:
//!
//! * A picture no larger than a tile comes out as without tiles, to the bit.
//! * Where one tile alone covers a place, it reaches the overlap farther to every side that is not the picture's own.
//!   So a tokenizer that sees no farther around a place than the overlap gives there what it gives without tiles, and
//!   in the overlaps a mean of what two neighbors (at a corner four) give.
//! * One that normalizes or attends over the whole picture, as the KL-VAE does and a pooled tiny autoencoder in part,
//!   normalizes over its tile instead, and comes as close as tiles resemble the picture they are of: take large ones,
//!   and decode with the tiling that encoded.
//!
//! ```
//! use burn::tensor::Device;
//! use ndarray::Array3;
//! use tessera_tokenizer::{TinyAutoencoderConfig, Tiling, decode_tiled, encode_tiled, tiles};
//!
//! let tokenizer = TinyAutoencoderConfig::taesd().init(0, &Device::flex())?;
//! let picture = Array3::<f32>::zeros((3, 50, 37));
//! let tiling = Tiling { tile_px: 32, overlap_px: 8 };
//! let latents = encode_tiled(&tokenizer, tiles::pad(picture.view(), 8).view(), &tiling)?;
//! assert_eq!(latents.dim(), (4, 7, 5));
//! let image = decode_tiled(&tokenizer, latents.view(), &tiling)?;
//! assert_eq!(tiles::crop(image, 50, 37).dim(), (3, 50, 37));
//! # Ok::<(), tessera_tokenizer::Error>(())
//! ```

use crate::{Error, ImageTokenizer, Result};
use burn::tensor::Tensor;
use ndarray::{Array3, ArrayBase, ArrayView3, Axis, Ix3, RawData, Zip};
use std::ops::Range;
use tessera_backend::{download, upload};

/// How a picture is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiling {
    /// Side of a tile in px; a multiple of the tokenizer's downsampling. The network needs memory for one.
    pub tile_px: usize,
    /// What neighbors share, in px: a multiple of the downsampling too, and less than the side.
    pub overlap_px: usize,
}

impl Tiling {
    /// Whether a tokenizer of this downsampling can work on these tiles.
    ///
    /// # Errors
    /// [`Error::Tiling`].
    pub fn validate(&self, downsampling: usize) -> Result<()> {
        let misfit = |field, expected, found| {
            Err(Error::Tiling {
                field,
                expected,
                found,
            })
        };
        let fits = |side: usize| side.is_multiple_of(downsampling);
        if self.tile_px == 0 || !fits(self.tile_px) {
            let expected = format!("a multiple of {downsampling}, at least that");
            return misfit("tile_px", expected, self.tile_px);
        }
        if self.overlap_px >= self.tile_px || !fits(self.overlap_px) {
            let expected = format!("a multiple of {downsampling} below {}", self.tile_px);
            return misfit("overlap_px", expected, self.overlap_px);
        }
        Ok(())
    }
}

/// Repeats the last row and the last column until both sides are multiples.
///
/// # Shapes
/// - `image`: `[channels, height, width]`
/// - returns `[channels, height', width']`, the next multiples
///
/// # Panics
/// If `multiple_of` is 0.
pub fn pad(image: ArrayView3<'_, f32>, multiple_of: usize) -> Array3<f32> {
    let (channels, height, width) = image.dim();
    let padded = |side: usize| side.div_ceil(multiple_of) * multiple_of;
    Array3::from_shape_fn(
        (channels, padded(height), padded(width)),
        |(channel, row, column)| image[[channel, row.min(height - 1), column.min(width - 1)]],
    )
}

/// Takes away what [`pad`] added.
///
/// # Shapes
/// - `image`: `[channels, height', width']`
/// - returns `[channels, height, width]`, the top left corner
///
/// # Panics
/// If the image is smaller than that.
pub fn crop(image: Array3<f32>, height: usize, width: usize) -> Array3<f32> {
    window(image, 0..height, 0..width)
}

/// [`ImageTokenizer::encode`], one tile at a time.
///
/// # Shapes
/// - `image`: `[image_channels, height, width]`, in `[-1, 1]`
/// - returns `[latent_channels, height / downsampling, width / downsampling]`
///
/// # Errors
/// When the image's sides are no multiples of the downsampling (see [`pad`]), it has other channels than the
/// tokenizer, or the tiling does not fit.
pub fn encode_tiled(
    tokenizer: &dyn ImageTokenizer,
    image: ArrayView3<'_, f32>,
    tiling: &Tiling,
) -> Result<Array3<f32>> {
    encode_tiled_by(tokenizer, image, tiling, |tile| tokenizer.encode(tile))
}

/// The same with what `encode` makes of a tile, such as [`ImageTokenizer::encode_moments`].
pub(crate) fn encode_tiled_by(
    tokenizer: &dyn ImageTokenizer,
    image: ArrayView3<'_, f32>,
    tiling: &Tiling,
    encode: impl Fn(Tensor<4>) -> Tensor<4>,
) -> Result<Array3<f32>> {
    let (channels, height, width) = image.dim();
    let factor = tokenizer.downsampling();
    tiling.validate(factor)?;
    tokenizer.check_image_size(height, width)?;
    let expected = tokenizer.image_channels();
    expect_channels("channels of the image", expected, channels)?;
    let latent_cuts = [height, width].map(|side| tiling.cut(side / factor, factor));
    let image_cuts = latent_cuts.each_ref().map(|cut| cut.scaled(factor));
    Ok(tiled(image, &image_cuts, &latent_cuts, |tile| {
        on_device(tokenizer, tile, &encode)
    }))
}

/// [`ImageTokenizer::decode`], one tile at a time.
///
/// # Shapes
/// - `latents`: `[latent_channels, height, width]`
/// - returns `[image_channels, height * downsampling, width * downsampling]`
///
/// # Errors
/// When there are no latents, they have other channels than the tokenizer's, or the tiling does not fit.
pub fn decode_tiled(
    tokenizer: &dyn ImageTokenizer,
    latents: ArrayView3<'_, f32>,
    tiling: &Tiling,
) -> Result<Array3<f32>> {
    let (channels, height, width) = latents.dim();
    let factor = tokenizer.downsampling();
    tiling.validate(factor)?;
    tokenizer.check_image_size(height * factor, width * factor)?;
    let expected = tokenizer.latent_channels();
    expect_channels("channels of the latents", expected, channels)?;
    let latent_cuts = [height, width].map(|side| tiling.cut(side, factor));
    let image_cuts = latent_cuts.each_ref().map(|cut| cut.scaled(factor));
    Ok(tiled(latents, &latent_cuts, &image_cuts, |tile| {
        on_device(tokenizer, tile, |tile| tokenizer.decode(tile))
    }))
}

fn expect_channels(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Shape {
        what,
        expected: expected.to_string(),
        found: found.to_string(),
    })
}

/// Works on each tile and joins the results. `[rows, columns]` are cut by `from` and joined by `to`.
fn tiled(
    whole: ArrayView3<'_, f32>,
    from: &[Cut; 2],
    to: &[Cut; 2],
    work: impl Fn(ArrayView3<'_, f32>) -> Array3<f32>,
) -> Array3<f32> {
    let [row_weights, column_weights] = to.each_ref().map(Cut::weights);
    let mut joined: Option<Array3<f32>> = None;
    for (row, row_weights) in row_weights.iter().enumerate() {
        for (column, column_weights) in column_weights.iter().enumerate() {
            let tile = work(window(whole, from[0].span(row), from[1].span(column)));
            let joined = joined
                .get_or_insert_with(|| Array3::zeros((tile.dim().0, to[0].length, to[1].length)));
            let place = window(joined.view_mut(), to[0].span(row), to[1].span(column));
            Zip::indexed(place)
                .and(&tile)
                .for_each(|(_, row, column), joined, value| {
                    *joined += row_weights[row] * column_weights[column] * value;
                });
        }
    }
    joined.expect("there is at least one tile")
}

/// What the tokenizer makes of one tile.
fn on_device(
    tokenizer: &dyn ImageTokenizer,
    tile: ArrayView3<'_, f32>,
    work: impl Fn(Tensor<4>) -> Tensor<4>,
) -> Array3<f32> {
    let tile = tile.insert_axis(Axis(0)).to_owned();
    download(work(upload(tile, &tokenizer.device()))).index_axis_move(Axis(0), 0)
}

/// These rows and columns of all channels.
fn window<S: RawData>(
    mut array: ArrayBase<S, Ix3>,
    rows: Range<usize>,
    columns: Range<usize>,
) -> ArrayBase<S, Ix3> {
    array.slice_axis_inplace(Axis(1), rows.into());
    array.slice_axis_inplace(Axis(2), columns.into());
    array
}

/// The tiles along one axis.
#[derive(Debug)]
struct Cut {
    length: usize,
    side: usize,
    starts: Vec<usize>,
}

impl Tiling {
    /// Cuts an axis of so many latents.
    fn cut(&self, length: usize, factor: usize) -> Cut {
        let (side, overlap) = (self.tile_px / factor, self.overlap_px / factor);
        if length <= side {
            return Cut {
                length,
                side: length,
                starts: vec![0],
            };
        }
        let count = (length - overlap).div_ceil(side - overlap);
        let start = |tile: usize| tile * (length - side) / (count - 1);
        Cut {
            length,
            side,
            starts: (0..count).map(start).collect(),
        }
    }
}

impl Cut {
    /// The same tiles in a unit that is smaller by the factor.
    fn scaled(&self, factor: usize) -> Self {
        Self {
            length: self.length * factor,
            side: self.side * factor,
            starts: self.starts.iter().map(|start| start * factor).collect(),
        }
    }

    fn span(&self, tile: usize) -> Range<usize> {
        self.starts[tile]..self.starts[tile] + self.side
    }

    /// For each tile, its part in every place it covers.
    fn weights(&self) -> Vec<Vec<f32>> {
        let mut weights: Vec<Vec<f32>> = (0..self.starts.len())
            .map(|tile| self.trapezoid(tile))
            .collect();
        // Two neighbors sum to 1 already; where a third reaches in, they do not.
        let mut totals = vec![0.0; self.length];
        for (tile, weights) in weights.iter().enumerate() {
            let totals = &mut totals[self.span(tile)];
            totals.iter_mut().zip(weights).for_each(|(t, w)| *t += w);
        }
        for (tile, weights) in weights.iter_mut().enumerate() {
            let totals = &totals[self.span(tile)];
            weights.iter_mut().zip(totals).for_each(|(w, t)| *w /= t);
        }
        weights
    }

    /// 1, but falling linearly over what the tile shares with a neighbor, towards the neighbor's middle.
    fn trapezoid(&self, tile: usize) -> Vec<f32> {
        let start = self.starts[tile];
        let end = start + self.side;
        let before = tile.checked_sub(1).map(|tile| self.span(tile).end - start);
        let after = self.starts.get(tile + 1).map(|next| end - next);
        let slope = |distance: usize, shared: Option<usize>| match shared {
            Some(shared) if distance < shared => (distance as f32 + 0.5) / shared as f32,
            _ => 1.0,
        };
        (0..self.side)
            .map(|place| slope(place, before).min(slope(self.side - 1 - place, after)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn tiles_cover_an_axis_with_the_overlap_asked_for_and_weights_that_sum_to_one(
            length in 1usize..200,
            side in 1usize..40,
            overlap in 0usize..40,
        ) {
            prop_assume!(overlap < side);
            let cut = Tiling { tile_px: side, overlap_px: overlap }.cut(length, 1);
            let mut totals = vec![0.0; length];
            for (tile, weights) in cut.weights().into_iter().enumerate() {
                for (total, weight) in totals[cut.span(tile)].iter_mut().zip(weights) {
                    prop_assert!(weight > 0.0);
                    *total += weight;
                }
            }
            for total in totals {
                prop_assert!((total - 1.0f32).abs() < 1e-6, "{total}");
            }
            for pair in cut.starts.windows(2) {
                prop_assert!(pair[0] < pair[1] && pair[0] + cut.side >= pair[1] + overlap);
            }
        }
    }

    #[test]
    fn neighbors_fade_into_each_other_linearly() {
        let tiling = Tiling {
            tile_px: 6,
            overlap_px: 2,
        };
        let weights = tiling.cut(10, 1).weights();
        assert_eq!(weights[0], [1.0, 1.0, 1.0, 1.0, 0.75, 0.25]);
        assert_eq!(weights[1], [0.25, 0.75, 1.0, 1.0, 1.0, 1.0]);
    }
}
