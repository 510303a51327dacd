//! What the tests of pictures share.

use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType};
use tessera_pictures::{Channels, Pixels};

/// A picture that has slopes and detail and is the same every time.
pub(crate) fn picture(height: usize, width: usize, channels: Channels) -> Pixels {
    let sample = |index: usize| {
        let (y, x) = (
            index / channels.count() / width,
            index / channels.count() % width,
        );
        (3 * x + 5 * y + 40 * (index % channels.count()) + 7 * ((x * y) % 5)) as u8
    };
    let data = (0..height * width * channels.count()).map(sample).collect();
    Pixels::new(height, width, channels, data).unwrap()
}

/// Color, smooth, 40x56, made with `smooth.png` by `fixtures/gen/jpeg.py`.
pub(crate) const SMOOTH_JPEG: &[u8] = include_bytes!("../fixtures/smooth.jpg");
/// Gray, 8x16, the left half dark; made by the same.
pub(crate) const HALVES_JPEG: &[u8] = include_bytes!("../fixtures/halves.jpg");

/// A file of this crate's fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A PNG of the samples in `data`, as the file has them.
pub(crate) fn png_file(
    [height, width]: [u32; 2],
    color: ColorType,
    depth: BitDepth,
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    drop(writer);
    bytes
}

/// A lossless WebP of the samples in `data`.
pub(crate) fn webp_file(
    [height, width]: [u32; 2],
    color: image_webp::ColorType,
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image_webp::WebPEncoder::new(&mut bytes);
    encoder.encode(data, width, height, color).unwrap();
    bytes
}

/// The error's text with those of its causes.
pub(crate) fn text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", text(source)),
        None => error.to_string(),
    }
}
