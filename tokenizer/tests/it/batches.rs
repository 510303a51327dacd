//! Pictures through a tokenizer that may not hold all of them at once.

use burn::tensor::Device;
use ndarray::{Array4, s};
use tessera_backend::{Rng, host_values};
use tessera_tokenizer::{
    Error, ImageTokenizer, KlVaeConfig, TinyAutoencoderConfig, decode_within,
    encode_moments_within, encode_within,
};

fn array(shape: [usize; 4]) -> Array4<f32> {
    let values = host_values(Rng::new(3, 0).normal_tensor(shape, &Device::flex()));
    Array4::from_shape_vec(shape, values).unwrap()
}

/// Bytes of the largest tensor of so many pictures at once.
fn bytes(tokenizer: &dyn ImageTokenizer, side: usize, pictures: usize) -> u64 {
    4 * (tokenizer.largest_tensor(side, side) * pictures) as u64
}

#[test]
fn fewer_pictures_at_a_time_are_the_same_pictures() {
    let vae = KlVaeConfig::small(3, 16, 8, &[1, 2], 1, 4).init(0, &Device::flex());
    let vae = vae.unwrap();
    let latents = array([5, 4, 8, 8]);
    let images = array([5, 3, 16, 16]);
    let decoded = decode_within(&vae, latents.clone(), u64::MAX).unwrap();
    let encoded = encode_within(&vae, images.clone(), u64::MAX).unwrap();
    let moments = encode_moments_within(&vae, images.clone(), u64::MAX).unwrap();
    assert_eq!(moments.slice(s![.., ..4, .., ..]), encoded, "means first");
    for at_once in [1, 2, 3, 7] {
        let bytes = bytes(&vae, 16, at_once);
        assert_eq!(
            decode_within(&vae, latents.clone(), bytes).unwrap(),
            decoded
        );
        assert_eq!(encode_within(&vae, images.clone(), bytes).unwrap(), encoded);
        let found = encode_moments_within(&vae, images.clone(), bytes).unwrap();
        assert_eq!(found, moments);
    }
}

/// Below what one picture takes it is cut; a network that sees little of a picture at once gives nearly the same.
#[test]
fn a_picture_without_room_is_cut_into_tiles() {
    let tiny = TinyAutoencoderConfig::taesd()
        .init(0, &Device::flex())
        .unwrap();
    let latents = array([2, 4, 24, 40]);
    let whole = decode_within(&tiny, latents.clone(), u64::MAX).unwrap();
    let cut = decode_within(&tiny, latents.clone(), bytes(&tiny, 160, 1)).unwrap();
    assert_eq!(cut.dim(), whole.dim());
    let largest = whole.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let mean = (&cut - &whole).mapv(f32::abs).mean().unwrap();
    assert!(mean > 0.0, "it was cut");
    assert!(mean < 0.05 * largest, "off by {mean} of {largest}");
}

#[test]
fn no_room_for_a_tile_is_refused() {
    let tiny = TinyAutoencoderConfig::taesd()
        .init(0, &Device::flex())
        .unwrap();
    let error = decode_within(&tiny, array([1, 4, 4, 4]), 1000).unwrap_err();
    assert!(matches!(error, Error::NoRoom { bytes: 1000, .. }));
    assert!(error.to_string().contains("65536 are needed"), "{error}");
}
