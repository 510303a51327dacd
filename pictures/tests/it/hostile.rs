//! Files that are not as they should be: each error names the file and the fault, and nothing panics.

use std::fs;
use std::io::Read;

use proptest::prelude::*;
use tempfile::tempdir;
use tessera_pictures::{Channels, Error, Existing, decode, read, read_metadata, write_png};

use crate::support::{SMOOTH_JPEG, picture, png_file, text, webp_file};

/// A picture in each format that is read.
fn files() -> [(&'static str, Vec<u8>); 3] {
    let (size, pixels) = ([33, 47], picture(33, 47, Channels::Rgb).into_data());
    let png = png_file(size, png::ColorType::Rgb, png::BitDepth::Eight, &pixels);
    let webp = webp_file(size, image_webp::ColorType::Rgb8, &pixels);
    [("PNG", png), ("JPEG", SMOOTH_JPEG.to_vec()), ("WebP", webp)]
}

#[test]
fn a_missing_file_and_a_folder_are_told_apart() {
    let folder = tempdir().unwrap();
    let missing = folder.path().join("none.png");
    let error = read(&missing, None).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error:?}");
    assert!(error.to_string().contains("none.png"), "{error}");
    let error = read(folder.path(), None).unwrap_err();
    assert!(matches!(error, Error::IsFolder { .. }), "{error:?}");
    assert!(
        error.to_string().contains(folder.path().to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn what_is_no_picture_is_described() {
    let folder = tempdir().unwrap();
    for (name, content, found) in [
        ("empty.png", &b""[..], "an empty file"),
        (
            "notes.jpg",
            b"dear diary",
            "a file starting with \"dear diary\"",
        ),
        (
            "page.jpg",
            b"\n<!DOCTYPE html><title>404</title>",
            "a web page",
        ),
        ("zeros.jpg", &[0; 99], "zeros"),
        (
            "phone.jpg",
            b"\0\0\0\x18ftypheic\0\0\0\0",
            "HEIC is not supported; convert it to PNG or JPEG",
        ),
        (
            "scan.png",
            b"II+\0\x08\0\0\0",
            "BigTIFF is not supported; convert it to PNG or JPEG",
        ),
        ("new.png", b"\xFF\x0Aabcdefgh", "JPEG XL is not supported"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        for error in [
            read(&path, None).unwrap_err(),
            read_metadata(&path).unwrap_err(),
        ] {
            let message = error.to_string();
            assert!(
                message.contains(name) && message.contains(found),
                "{message}"
            );
        }
    }
}

#[test]
fn a_truncated_file_is_never_a_picture() {
    for (format, bytes) in files() {
        decode(&bytes, "whole", None).unwrap();
        for length in 0..bytes.len() {
            let error = decode(&bytes[..length], "cut.file", None).unwrap_err();
            assert!(error.to_string().starts_with("cut.file: "), "{error}");
            // Under 12 bytes there is nothing to know a format by.
            if length >= 12 {
                assert!(
                    matches!(error, Error::Truncated { .. }),
                    "{format} cut to {length}: {error:?}"
                );
                assert!(
                    error
                        .to_string()
                        .ends_with(&format!("the end of the file after {length} bytes")),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn truncated_metadata_is_an_error() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.png");
    write_png(
        &path,
        &picture(9, 9, Channels::Rgb),
        &[("parameters", "Steps: 64")],
        Existing::Keep,
    )
    .unwrap();
    let bytes = fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(
            read_metadata(&path)
                .unwrap_err()
                .to_string()
                .contains("a.png")
        );
    }
}

#[test]
fn a_jpeg_has_no_metadata_to_read_and_that_is_said() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.jpg");
    fs::write(&path, SMOOTH_JPEG).unwrap();
    let message = read_metadata(&path).unwrap_err().to_string();
    assert!(
        message.contains("expected a PNG picture, found JPEG"),
        "{message}"
    );
}

/// A PNG of a few bytes whose header announces 100000 x 50000 pixels.
#[test]
fn absurd_dimensions_are_refused_before_memory_is_taken() {
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::new(&mut bytes, 50_000, 100_000)
        .write_header()
        .unwrap();
    writer.write_chunk(png::chunk::IDAT, &[]).unwrap();
    drop(writer);
    bytes.extend(b"\0\0\0\0IEND\xAE\x42\x60\x82");
    let error = decode(&bytes, "bomb.png", None).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                height: 100_000,
                width: 50_000,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "bomb.png: announces 100000x50000 px (height x width), expected at most 134217728 px in all"
    );
}

#[test]
fn broken_content_keeps_the_decoders_reason() {
    let [(_, mut bytes), ..] = files();
    let end = bytes.windows(4).position(|kind| kind == b"IEND").unwrap();
    bytes[end - 5] ^= 0xFF; // in the checksum of the data
    let error = decode(&bytes, "flipped.png", None).unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");
    let text = text(&error);
    assert!(
        text.starts_with("flipped.png: broken PNG: CRC error: expected"),
        "{text}"
    );
    assert!(text.ends_with("while decoding chunk IDAT"), "{text}");
    assert_eq!(text.matches("CRC").count(), 1, "{text}");
}

/// Puts chunks, with their checksums, behind the header of a PNG.
fn with_chunks(chunks: &[([u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 2);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    for (kind, data) in chunks {
        writer
            .write_chunk(png::chunk::ChunkType(*kind), data)
            .unwrap();
    }
    writer.write_image_data(&[0, 85, 170, 255]).unwrap();
    drop(writer);
    bytes
}

/// What `length` zeros are packed to, behind a keyword.
fn packed(keyword: &str, length: usize) -> Vec<u8> {
    let mut data = format!("{keyword}\0\0").into_bytes();
    let mut encoder = flate2::write::ZlibEncoder::new(&mut data, flate2::Compression::fast());
    std::io::copy(&mut std::io::repeat(b'a').take(length as u64), &mut encoder).unwrap();
    encoder.finish().unwrap();
    data
}

/// The decoder panics at it.
#[test]
fn a_palette_of_broken_colors_is_named() {
    let mut bytes = with_chunks(&[(*b"PLTE", vec![1; 4])]);
    bytes[25] = 3; // the color type of the header, and its checksum
    let crc = crc(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = decode(&bytes, "palette.png", None).unwrap_err().to_string();
    assert_eq!(
        error,
        "palette.png: broken PNG: its palette has 4 bytes, expected 3 for each of 1 to 256 colors"
    );
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[test]
fn profiles_are_not_unpacked_and_texts_not_beyond_a_sum() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.png");
    // More than the decoder's own tables may take.
    fs::write(
        &path,
        with_chunks(&[(*b"iCCP", packed("profile", 100_000_000))]),
    )
    .unwrap();
    assert_eq!(read(&path, None).unwrap().data(), [0, 85, 170, 255]);
    assert_eq!(read_metadata(&path).unwrap(), []);
    // Each is small enough, all together are not.
    let texts: Vec<_> = (0..5)
        .map(|i| (*b"zTXt", packed(&format!("k{i}"), 4_000_000)))
        .collect();
    fs::write(&path, with_chunks(&texts[..4])).unwrap();
    assert_eq!(read_metadata(&path).unwrap().len(), 4);
    fs::write(&path, with_chunks(&texts)).unwrap();
    let error = read_metadata(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("its texts unpack to more than 16777216 bytes"),
        "{error}"
    );
}

#[test]
fn a_file_of_more_bytes_than_a_picture_has_is_not_read() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("film.png");
    let [(_, png), ..] = files();
    fs::write(&path, png).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 40)
        .unwrap(); // without contents on the disk
    let error = read(&path, None).unwrap_err();
    assert!(matches!(error, Error::LargeFile { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_files_are_read_or_refused_but_never_panic(
        format in 0..3_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = files()[format].1.clone();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Err(error) = decode(&bytes, "damaged", None) {
            prop_assert!(error.to_string().starts_with("damaged: "), "{error}");
        }
    }
}
