//! Pictures in tiles: what holds for any tokenizer, and how close the tiles of a real one come.

use crate::fixtures::shared;
use crate::tiny::{golden, taef2};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use ndarray::{Array3, ArrayView3};
use proptest::prelude::*;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tessera_backend::ops::upsample_nearest;
use tessera_pictures::psnr_array;
use tessera_tokenizer::{
    Error, ImageTokenizer, Result, Tiling, TinyAutoencoder, TinyAutoencoderConfig, decode_tiled,
    encode_tiled, tiles,
};
use tessera_weights::{WeightDtype, Weights};

/// The mean of a square of pixels around a place, at every other place; and back. It sees `radius` px far.
#[derive(Debug)]
struct Blur {
    radius: usize,
}

impl Blur {
    const FACTOR: usize = 2;

    fn blur(&self, x: Tensor<4>, stride: usize) -> Tensor<4> {
        let side = 2 * self.radius + 1;
        let kernel = Tensor::ones([1, 1, side, side], &x.device()) / (side * side) as f32;
        let options = ConvOptions::new([stride; 2], [self.radius; 2], [1; 2], 1);
        conv2d(x, kernel, None, options)
    }
}

/// 1 in the tile of this number, counted as they come, and 0 in all others.
#[derive(Debug)]
struct Marker {
    tile: usize,
    passed: AtomicUsize,
}

impl Marker {
    fn mark(&self, x: Tensor<4>) -> Tensor<4> {
        let mark = self.passed.fetch_add(1, Ordering::Relaxed) == self.tile;
        x.zeros_like() + f32::from(mark)
    }
}

macro_rules! fake_tokenizer {
    ($name:ident, $encode:expr, $decode:expr) => {
        impl ImageTokenizer for $name {
            fn architecture(&self) -> &'static str {
                stringify!($name)
            }
            fn config_json(&self) -> serde_json::Value {
                serde_json::Value::Null
            }
            fn weights(&self) -> Weights {
                Weights::default()
            }
            fn image_channels(&self) -> usize {
                1
            }
            fn latent_channels(&self) -> usize {
                1
            }
            fn downsampling(&self) -> usize {
                Blur::FACTOR
            }
            fn resolution(&self) -> Option<usize> {
                None
            }
            fn device(&self) -> Device {
                Device::flex()
            }
            fn largest_tensor(&self, height_px: usize, width_px: usize) -> usize {
                height_px * width_px
            }
            fn encode(&self, images: Tensor<4>) -> Tensor<4> {
                $encode(self, images)
            }
            fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
                $decode(self, latents)
            }
            fn save_dir(&self, _folder: &Path, _dtype: WeightDtype) -> Result<()> {
                unreachable!("nothing saves it")
            }
        }
    };
}

fake_tokenizer!(
    Blur,
    |blur: &Blur, x| blur.blur(x, Blur::FACTOR),
    |blur: &Blur, x| blur.blur(upsample_nearest(x), 1)
);
fake_tokenizer!(
    Marker,
    |marker: &Marker, x| {
        let latents = Blur { radius: 0 }.encode(x);
        marker.mark(latents)
    },
    |marker: &Marker, x| marker.mark(upsample_nearest(x))
);

fn picture(channels: usize, height: usize, width: usize) -> Array3<f32> {
    Array3::from_shape_fn((channels, height, width), |(c, y, x)| {
        ((3 * c + 7 * y * y + 5 * x + x * y) as f32).sin()
    })
}

/// Everything in one tile.
fn whole() -> Tiling {
    Tiling {
        tile_px: 1 << 20,
        overlap_px: 0,
    }
}

/// Encodes or decodes.
type Pass = fn(&dyn ImageTokenizer, ArrayView3<'_, f32>, &Tiling) -> Result<Array3<f32>>;

/// In how many tiles each place is, as the markers tell.
fn covering(pass: Pass, input: &Array3<f32>, tiling: &Tiling) -> Array3<usize> {
    let mut count = pass(&Blur { radius: 0 }, input.view(), tiling)
        .unwrap()
        .mapv(|_| 0);
    for tile in 0.. {
        let marker = Marker {
            tile,
            passed: AtomicUsize::new(0),
        };
        let weights = pass(&marker, input.view(), tiling).unwrap();
        if weights.iter().all(|weight| *weight == 0.0) {
            break;
        }
        count.zip_mut_with(&weights, |count, weight| {
            *count += usize::from(*weight > 0.0)
        });
    }
    count
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn where_one_tile_covers_a_place_a_tokenizer_that_sees_no_farther_than_the_overlap_gives_what_it_gives_untiled(
        height in 1usize..24,
        width in 1usize..24,
        tile in 2usize..10,
        overlap in 1usize..9,
    ) {
        prop_assume!(overlap < tile);
        let tiling = Tiling { tile_px: 2 * tile, overlap_px: 2 * overlap };
        let passes: [(Pass, _); 2] = [
            (encode_tiled, picture(1, 2 * height, 2 * width)),
            (decode_tiled, picture(1, height, width)),
        ];
        for (pass, input) in passes {
            let blur = Blur { radius: tiling.overlap_px };
            let untiled = pass(&blur, input.view(), &whole()).unwrap();
            let tiled = pass(&blur, input.view(), &tiling).unwrap();
            let covering = covering(pass, &input, &tiling);
            for ((place, untiled), tiled) in untiled.indexed_iter().zip(&tiled) {
                prop_assert!(covering[place] >= 1, "nothing covers {place:?}");
                let differs = (untiled - tiled).abs() > 1e-5;
                prop_assert!(covering[place] > 1 || !differs, "{place:?}: {untiled}, {tiled}");
            }
        }
    }

    #[test]
    fn what_each_place_gives_by_itself_is_not_changed_by_tiles(
        height in 1usize..40,
        width in 1usize..40,
        tile in 1usize..20,
        overlap in 0usize..19,
    ) {
        prop_assume!(overlap < tile);
        let tiling = Tiling { tile_px: 2 * tile, overlap_px: 2 * overlap };
        let blur = Blur { radius: 0 };
        let picture = picture(1, height, width);
        let padded = tiles::pad(picture.view(), Blur::FACTOR);
        let latents = encode_tiled(&blur, padded.view(), &tiling).unwrap();
        let image = decode_tiled(&blur, latents.view(), &tiling).unwrap();
        prop_assert_eq!(image.dim(), padded.dim());
        let image = tiles::crop(image, height, width);
        prop_assert_eq!(image.dim(), picture.dim());
        // Every other pixel is kept and takes the place of its neighbors: weights that sum to 1 leave it alone.
        for ((c, y, x), value) in image.indexed_iter() {
            prop_assert!((value - picture[[c, y / 2 * 2, x / 2 * 2]]).abs() < 1e-5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_picture_of_any_size_comes_back_in_its_size(height in 1usize..50, width in 1usize..50) {
        let tokenizer = TinyAutoencoderConfig::taef2().init(0, &Device::flex()).unwrap();
        let tiling = Tiling { tile_px: 24, overlap_px: 8 };
        let padded = tiles::pad(picture(3, height, width).view(), tokenizer.downsampling());
        let latents = encode_tiled(&tokenizer, padded.view(), &tiling).unwrap();
        prop_assert_eq!(latents.dim(), (32, height.div_ceil(8), width.div_ceil(8)));
        let image = decode_tiled(&tokenizer, latents.view(), &tiling).unwrap();
        let image = tiles::crop(image, height, width);
        prop_assert_eq!(image.dim(), (3, height, width));
        prop_assert!(image.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn a_picture_no_larger_than_a_tile_comes_out_as_without_tiles_to_the_bit() {
    let device = Device::flex();
    let tokenizer = TinyAutoencoderConfig::taef2().init(0, &device).unwrap();
    let picture = picture(3, 24, 40);
    let image = Tensor::<1>::from_floats(picture.as_slice().unwrap(), &device);
    let latents = tokenizer.encode(image.reshape([1, 3, 24, 40]));
    let image = tokenizer.decode(latents.clone());
    let bits = |values: Vec<f32>| -> Vec<u32> { values.into_iter().map(f32::to_bits).collect() };
    for tile_px in [40, 64] {
        let tiling = Tiling {
            tile_px,
            overlap_px: 16,
        };
        let tiled_latents = encode_tiled(&tokenizer, picture.view(), &tiling).unwrap();
        let tiled_image = decode_tiled(&tokenizer, tiled_latents.view(), &tiling).unwrap();
        for (tiled, untiled) in [(tiled_latents, &latents), (tiled_image, &image)] {
            let untiled = crate::tiny::values(untiled.clone());
            assert!(bits(tiled.into_raw_vec_and_offset().0) == bits(untiled));
        }
    }
}

#[test]
fn padding_repeats_the_last_row_and_column() {
    let image = picture(2, 5, 3);
    let padded = tiles::pad(image.view(), 4);
    assert_eq!(padded.dim(), (2, 8, 4));
    for ((c, y, x), value) in padded.indexed_iter() {
        assert_eq!(*value, image[[c, y.min(4), x.min(2)]]);
    }
    assert_eq!(tiles::crop(padded, 5, 3), image);
    assert_eq!(tiles::pad(image.view(), 1), image);
}

#[test]
fn tiles_that_do_not_fit_the_tokenizer_and_arrays_of_other_channels_are_refused() {
    let tokenizer = TinyAutoencoderConfig::taesd()
        .init(0, &Device::flex())
        .unwrap();
    let encode = |array: Array3<f32>, tile_px, overlap_px| {
        let tiling = Tiling {
            tile_px,
            overlap_px,
        };
        encode_tiled(&tokenizer, array.view(), &tiling).unwrap_err()
    };
    let image = picture(3, 16, 16);
    for (tile_px, overlap_px, at_fault) in [
        (0, 0, "tile_px"),
        (20, 8, "tile_px"),
        (16, 16, "overlap_px"),
        (16, 4, "overlap_px"),
    ] {
        let error = encode(image.clone(), tile_px, overlap_px);
        assert!(
            matches!(error, Error::Tiling { field, .. } if field == at_fault),
            "{error}"
        );
    }
    let error = encode(picture(3, 16, 12), 16, 8);
    assert!(matches!(error, Error::ImageSize { .. }), "{error}");
    let error = encode(picture(1, 16, 16), 16, 8);
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    for latents in [picture(3, 2, 2), picture(4, 0, 2)] {
        assert!(decode_tiled(&tokenizer, latents.view(), &whole()).is_err());
    }
}

/// In dB. The branch of TAEF2 that is normalized over the whole picture is over the tile then, so that latents of the
/// whole decode less closely in tiles than those of the same tiles.
#[test]
fn tiles_of_a_photograph_come_close_to_the_whole() {
    let (Some(weights), Some(io)) = (taef2(), shared("taef2_io.safetensors")) else {
        return;
    };
    let tokenizer = TinyAutoencoder::from_weights(weights, &Device::flex()).unwrap();
    let (shape, values) = golden(&io, "astronaut.image");
    let image = Array3::from_shape_vec((shape[1], shape[2], shape[3]), values).unwrap() * 2.0 - 1.0;
    let encode = |tiling: &Tiling| encode_tiled(&tokenizer, image.view(), tiling).unwrap();
    let decode = |latents: &Array3<f32>, tiling: &Tiling| {
        decode_tiled(&tokenizer, latents.view(), tiling).unwrap()
    };
    let db = |a: &Array3<f32>, b: &Array3<f32>| psnr_array(a.view(), b.view()).unwrap();
    let latents = encode(&whole());
    let untiled = decode(&latents, &whole());
    let untiled_db = db(&image, &untiled);
    println!("untiled, against the photograph: {untiled_db:.2} dB");
    for (tile_px, overlap_px) in [(128, 64), (192, 64)] {
        let tiling = Tiling {
            tile_px,
            overlap_px,
        };
        let tiled = decode(&encode(&tiling), &tiling);
        let (close, tiled_db) = (db(&untiled, &tiled), db(&image, &tiled));
        let decoded = db(&untiled, &decode(&latents, &tiling));
        println!(
            "tiles of {tile_px} px that overlap by {overlap_px}: against untiled {close:.2} dB, decoded alone \
             {decoded:.2} dB; against the photograph {tiled_db:.2} dB"
        );
        assert!(close > 35.0 && tiled_db > untiled_db - 0.1);
    }
}
