//! Patches of latents: their order, there and back, and what fits in them.

use crate::tiny::values;
use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use tessera_backend::Rng;
use tessera_tokenizer::{
    Error, ImageTokenizer, KlVaeConfig, LatentScale, Opened, Patched, PixelTokenizer, Tiling,
    TinyAutoencoderConfig, decode_tiled, encode_tiled, load_tokenizer,
};
use tessera_weights::WeightDtype;

fn pixels(patch_size: usize) -> Box<dyn ImageTokenizer> {
    let pixels = PixelTokenizer::new(3, &Device::flex());
    Patched::over(Box::new(pixels), patch_size).unwrap()
}

/// The values `0, 1, 2, …`.
fn counted(shape: [usize; 4]) -> Tensor<4> {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|i: usize| i as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

#[test]
fn a_patch_has_the_order_of_mars_patchify() {
    // x.reshape(n, c, h, p, w, q), then einsum('nchpwq->nhwcpq'): by channel, row, column. Counted by hand:
    //   channel 0    0  1  2  3     channel 1   16 17 18 19
    //                4  5  6  7                 20 21 22 23
    //                8  9 10 11                 24 25 26 27
    //               12 13 14 15                 28 29 30 31
    let two = PixelTokenizer::new(1, &Device::flex());
    let two = Patched::over(Box::new(two), 2).unwrap();
    let patches = two.encode(counted([1, 2, 4, 4]));
    assert_eq!(patches.dims(), [1, 8, 2, 2]);
    let tokens = values(patches.permute([0, 2, 3, 1])); // [batch, rows, columns, dimensions]
    let expected = [
        [0, 1, 4, 5, 16, 17, 20, 21],
        [2, 3, 6, 7, 18, 19, 22, 23],
        [8, 9, 12, 13, 24, 25, 28, 29],
        [10, 11, 14, 15, 26, 27, 30, 31],
    ];
    assert_eq!(
        tokens,
        expected
            .as_flattened()
            .iter()
            .map(|&i| i as f32)
            .collect::<Vec<_>>()
    );
}

proptest! {
    #[test]
    fn patches_come_back_as_they_were(
        (batch, rows, columns, side) in (1_usize..4, 1_usize..5, 1_usize..5, 1_usize..5)
    ) {
        let tokenizer = pixels(side);
        let images = counted([batch, 3, rows * side, columns * side]);
        let patches = tokenizer.encode(images.clone());
        prop_assert_eq!(patches.dims(), [batch, 3 * side * side, rows, columns]);
        prop_assert_eq!(values(tokenizer.decode(patches)), values(images));
    }
}

#[test]
fn means_and_spreads_of_a_posterior_have_the_same_patches() {
    let vae = || KlVaeConfig::small(3, 16, 8, &[1, 2], 1, 4).init(0, &Device::flex());
    let images = Rng::new(1, 0).uniform_tensor([2, 3, 16, 16], &Device::flex()) * 2.0 - 1.0;
    let plain = vae().unwrap();
    let patched = Patched::over(Box::new(vae().unwrap()), 2).unwrap();
    assert_eq!((patched.latent_channels(), patched.downsampling()), (16, 4));
    let moments = patched.encode_moments(images.clone());
    assert_eq!(moments.dims(), [2, 32, 4, 4]);
    let means = moments.clone().narrow(1, 0, 16);
    assert_eq!(
        values(means.clone()),
        values(patched.encode(images.clone()))
    );
    assert_eq!(
        values(patched.decode(means.clone())),
        values(plain.decode(plain.encode(images.clone()).mean))
    );
    // The spread of dimension i belongs to mean i: one position of one channel, whichever half it is in.
    let [whole, halves] = [plain.encode_moments(images), moments].map(values);
    let at = |channel: usize, row: usize, column: usize| whole[(channel * 8 + row) * 8 + column];
    for (dimension, [row, column]) in [(5, [0, 1]), (14, [3, 2])] {
        let (channel, y, x) = (dimension / 4, dimension / 2 % 2, dimension % 2);
        for half in [0, 1] {
            let found = halves[((half * 16 + dimension) * 4 + row) * 4 + column];
            assert_eq!(found, at(half * 4 + channel, 2 * row + y, 2 * column + x));
        }
    }
}

#[test]
fn the_scale_of_a_channel_is_that_of_its_dimensions() {
    let opened = |mean: &'static [f32], scale: &'static [f32]| Opened {
        tokenizer: pixels(1),
        files: Vec::new(),
        latents: Some(LatentScale {
            mean: mean.into(),
            scale: scale.into(),
        }),
    };
    let each = opened(&[1.0, 2.0, 3.0], &[0.5]).patched(2).unwrap();
    let latents = each.latents.unwrap();
    assert_eq!(
        latents.mean[..],
        [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]
    );
    assert_eq!(latents.scale[..], [0.5]);
    assert_eq!(each.tokenizer.patch_size(), 2);
    let one = opened(&[1.0, 2.0, 3.0], &[0.5]).patched(1).unwrap();
    assert_eq!(
        (one.latents.unwrap().mean.len(), one.tokenizer.patch_size()),
        (3, 1)
    );
}

#[test]
fn sizes_that_are_no_patches_are_refused() {
    let tiny = || {
        Box::new(
            TinyAutoencoderConfig::taesd()
                .init(0, &Device::flex())
                .unwrap(),
        )
    };
    let two = Patched::over(tiny(), 2).unwrap();
    assert!(two.check_image_size(32, 48).is_ok());
    let refused = |height, width| two.check_image_size(height, width).unwrap_err().to_string();
    assert_eq!(
        refused(24, 32),
        "image of 24x32 px (height x width): 3x4 latents, expected multiples of the patch size, 2"
    );
    assert!(
        refused(20, 32).contains("multiples of 8"),
        "the network's own first"
    );
    assert!(refused(0, 32).contains("multiples of 8"));
    for side in [0, 17, usize::MAX] {
        let error = Patched::over(tiny(), side).unwrap_err();
        assert!(
            matches!(error, Error::PatchSize { found, .. } if found == side),
            "{error}"
        );
    }
}

#[test]
fn tiles_hold_whole_patches_and_a_folder_holds_none() {
    let tokenizer = Patched::over(Box::new(PixelTokenizer::new(1, &Device::flex())), 2).unwrap();
    let image = ndarray::Array3::from_shape_fn((1, 20, 12), |(_, y, x)| (12 * y + x) as f32);
    let tiling = Tiling {
        tile_px: 8,
        overlap_px: 2,
    };
    let latents = encode_tiled(&*tokenizer, image.view(), &tiling).unwrap();
    assert_eq!(latents.dim(), (4, 10, 6));
    let back = decode_tiled(&*tokenizer, latents.view(), &tiling).unwrap();
    assert!((&back - &image).iter().all(|off| off.abs() < 1e-4));
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save_dir(folder.path(), WeightDtype::F32).unwrap();
    let loaded = load_tokenizer(folder.path(), &Device::flex()).unwrap();
    assert_eq!((loaded.patch_size(), loaded.latent_channels()), (1, 1));
    assert_ne!(
        loaded.config_json(),
        tokenizer.config_json(),
        "what caches are known by"
    );
}
