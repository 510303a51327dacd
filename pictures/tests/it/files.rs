//! Files that are as they should be.

use std::fs;

use png::{BitDepth, ColorType};
use tempfile::tempdir;
use tessera_pictures::{Channels, Error, Existing, Pixels, decode, read, read_metadata, write_png};

use crate::support::{HALVES_JPEG, SMOOTH_JPEG, picture, png_file, webp_file};

/// A PNG of one row, decoded by this crate.
fn through(color: ColorType, depth: BitDepth, width: u32, row: &[u8]) -> Pixels {
    decode(&png_file([1, width], color, depth, row), "memory", None).unwrap()
}

#[test]
fn transparent_pixels_are_composited_on_white() {
    let row = [[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 128]].concat();
    let png = png_file([1, 3], ColorType::Rgba, BitDepth::Eight, &row);
    let webp = webp_file([1, 3], image_webp::ColorType::Rgba8, &row);
    for bytes in [png, webp] {
        let pixels = decode(&bytes, "memory", None).unwrap();
        // 128 of 255: 200 * 128 / 255 + 127 = 227.4, 100: 177.2, 0: 127.
        assert_eq!(
            pixels.data(),
            [200, 100, 0, 255, 255, 255, 227, 177, 127],
            "{:?}",
            &bytes[..4]
        );
    }
    let gray = through(ColorType::GrayscaleAlpha, BitDepth::Eight, 1, &[0, 51]);
    assert_eq!(gray.data(), [204]);
}

#[test]
fn sixteen_bit_samples_are_rounded_to_eight() {
    // 257 to a step: 128 is just under a half, 129 just over.
    let row = [0_u16, 128, 129, 32767, 65535].map(u16::to_be_bytes);
    let pixels = through(
        ColorType::Grayscale,
        BitDepth::Sixteen,
        5,
        row.as_flattened(),
    );
    assert_eq!(
        (pixels.channels(), pixels.data()),
        (Channels::Gray, &[0, 0, 1, 127, 255][..])
    );
    let row = [257_u16, 514, 65535].map(u16::to_be_bytes);
    let pixels = through(ColorType::Rgb, BitDepth::Sixteen, 1, row.as_flattened());
    assert_eq!(pixels.data(), [1, 2, 255]);
}

#[test]
fn palettes_and_bits_are_looked_up() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 4, 1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Two);
    encoder.set_palette(vec![1, 2, 3, 4, 5, 6, 7, 8, 9]);
    encoder.set_trns(vec![255, 255, 0]);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&[0b00_01_10_00])
        .unwrap();
    let pixels = decode(&bytes, "memory", None).unwrap();
    assert_eq!(pixels.data(), [1, 2, 3, 4, 5, 6, 255, 255, 255, 1, 2, 3]);

    let bits = through(ColorType::Grayscale, BitDepth::One, 3, &[0b0100_0000]);
    assert_eq!(bits.data(), [0, 255, 0]);
}

#[test]
fn channels_are_kept_unless_asked_for() {
    let gray = png_file([1, 2], ColorType::Grayscale, BitDepth::Eight, &[77; 2]);
    let read_as = |bytes: &[u8], channels| decode(bytes, "memory", channels).unwrap();
    assert_eq!(read_as(&gray, None).channels(), Channels::Gray);
    assert_eq!(read_as(&gray, Some(Channels::Rgb)).data(), [77; 6]);
    let red = png_file([1, 1], ColorType::Rgb, BitDepth::Eight, &[255, 0, 0]);
    assert_eq!(read_as(&red, Some(Channels::Gray)).data(), [76]);
}

#[test]
fn webp_gives_the_picture_that_was_written() {
    let pixels = picture(40, 56, Channels::Rgb);
    let bytes = webp_file([40, 56], image_webp::ColorType::Rgb8, pixels.data());
    assert_eq!(decode(&bytes, "memory", None).unwrap(), pixels);
}

/// Decoders may round the inverse transform and the change of color space as they like: two levels are between any two.
#[test]
fn jpeg_gives_what_pillow_decodes() {
    let golden = read(crate::support::fixture("smooth.png"), None).unwrap();
    let decoded = decode(SMOOTH_JPEG, "memory", None).unwrap();
    assert_eq!(
        (decoded.height(), decoded.width(), decoded.channels()),
        (golden.height(), golden.width(), golden.channels())
    );
    for (index, (found, expected)) in decoded.data().iter().zip(golden.data()).enumerate() {
        assert!(
            found.abs_diff(*expected) <= 2,
            "sample {index}: {found}, Pillow has {expected}"
        );
    }
}

/// An EXIF segment that says "turn by 90 degrees" is put behind the start-of-image marker of a JPEG of 16x8 pixels.
#[test]
fn exif_orientation_is_applied() {
    let mut bytes = HALVES_JPEG.to_vec();
    let mut segment = vec![0xFF, 0xE1, 0, 34];
    segment.extend(b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0");
    bytes.splice(2..2, segment);
    let pixels = decode(&bytes, "memory", None).unwrap();
    assert_eq!((pixels.height(), pixels.width()), (16, 8));
    let (first, last) = (pixels.data()[0], pixels.data()[16 * 8 - 1]);
    assert!(
        first < 10 && last > 245,
        "the dark left half goes to the top: {first} {last}"
    );
}

#[test]
fn the_content_decides_the_format_and_not_the_name() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("really_a_png.jpg");
    let pixels = picture(5, 4, Channels::Rgb);
    write_png(&path, &pixels, &[], Existing::Keep).unwrap();
    assert_eq!(read(&path, None).unwrap(), pixels);
}

#[test]
fn metadata_is_written_and_read_back() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.png");
    let metadata = [
        ("parameters", "tench\nSteps: 64, CFG scale: 3.1"),
        ("Author", "Andr\u{e9}"),
        ("empty", ""),
        ("caption", "\u{6f22}\u{5b57} \u{2192} \u{1f600}"),
    ];
    write_png(
        &path,
        &picture(3, 3, Channels::Gray),
        &metadata,
        Existing::Keep,
    )
    .unwrap();
    let found = read_metadata(&path).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|(keyword, text)| (keyword.as_str(), text.as_str()))
        .collect();
    assert_eq!(found, metadata);

    let bytes = fs::read(&path).unwrap();
    let count = |kind: &[u8]| bytes.windows(4).filter(|window| *window == kind).count();
    assert_eq!((count(b"tEXt"), count(b"iTXt")), (3, 1));
}

#[test]
fn compressed_text_behind_the_picture_is_found() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.png");
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::new(&mut bytes, 1, 1).write_header().unwrap();
    writer.write_image_data(&[0]).unwrap();
    writer
        .write_text_chunk(&png::text_metadata::ZTXtChunk::new(
            "packed",
            "x".repeat(500),
        ))
        .unwrap();
    writer.finish().unwrap();
    fs::write(&path, bytes).unwrap();
    assert_eq!(
        read_metadata(&path).unwrap(),
        [("packed".to_string(), "x".repeat(500))]
    );
}

#[test]
fn metadata_that_png_cannot_hold_is_refused_and_nothing_is_written() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.png");
    let long = "k".repeat(80);
    for (keyword, text) in [
        ("", "x"),
        (long.as_str(), "x"),
        (" a", "x"),
        ("a  b", "x"),
        ("\u{6f22}", "x"),
        ("a", "\0"),
    ] {
        let error = write_png(
            &path,
            &picture(1, 1, Channels::Gray),
            &[(keyword, text)],
            Existing::Keep,
        )
        .unwrap_err();
        assert!(
            matches!(error, Error::Metadata { .. }),
            "{keyword:?}: {error}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_existing_file_is_kept_unless_overwriting_is_asked_for() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.png");
    let (old, new) = (picture(2, 2, Channels::Gray), picture(3, 3, Channels::Rgb));
    write_png(&path, &old, &[], Existing::Keep).unwrap();
    let error = write_png(&path, &new, &[], Existing::Keep).unwrap_err();
    assert!(
        matches!(&error, Error::Exists { path: named } if *named == path),
        "{error}"
    );
    assert_eq!(read(&path, None).unwrap(), old);
    write_png(&path, &new, &[], Existing::Replace).unwrap();
    assert_eq!(read(&path, None).unwrap(), new);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "temporary files are gone"
    );
}

#[cfg(unix)]
#[test]
fn a_written_picture_is_readable_as_any_other_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempdir().unwrap();
    let (ours, other) = (folder.path().join("a.png"), folder.path().join("b.txt"));
    write_png(&ours, &picture(2, 2, Channels::Gray), &[], Existing::Keep).unwrap();
    fs::write(&other, "x").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&other));
}

#[test]
fn writing_into_a_folder_that_is_not_there_names_the_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("none/a.png");
    let error = write_png(&path, &picture(2, 2, Channels::Gray), &[], Existing::Keep).unwrap_err();
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}
