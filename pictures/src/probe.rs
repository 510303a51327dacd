//! What reading a picture will take, told from its header.

use crate::container::Format;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Memory in bytes that reading `path` takes at most, its file included; of a file that is no picture, its length.
///
/// By this, pictures are read as many at a time as memory allows, whatever the number of threads.
pub(crate) fn reading_bytes(path: &Path) -> u64 {
    let Ok(mut file) = File::open(path) else {
        return 0;
    };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut start = Vec::new();
    if file.by_ref().take(64).read_to_end(&mut start).is_err() {
        return length;
    }
    let pixels = match Format::of(&start) {
        Some(Format::Png) => png(&start),
        Some(Format::Jpeg) => jpeg(&mut file),
        Some(Format::WebP) => webp(&start),
        Some(Format::Bmp) => bmp(&start),
        Some(Format::Gif) => gif(&start),
        Some(Format::Tiff) => tiff(&mut file),
        None => None,
    };
    pixels.map_or(length, |bytes| length.saturating_add(bytes))
}

fn big<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk::<N>()?;
    Some(
        bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    )
}

fn little<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk::<N>()?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    )
}

/// A picture of three samples, and as much again while it is scaled.
const PIXEL_BYTES: u64 = 3 + 3;

/// Rows are decoded one by one, but interlaced pictures whole, with up to four samples of two bytes.
fn png(start: &[u8]) -> Option<u64> {
    let pixels = big::<4>(start, 16)?.saturating_mul(big::<4>(start, 20)?);
    let interlaced = *start.get(28)? != 0;
    Some(pixels.saturating_mul(if interlaced {
        PIXEL_BYTES + 8
    } else {
        PIXEL_BYTES
    }))
}

/// Progressive pictures keep coefficients of two bytes beside the samples.
fn jpeg(file: &mut File) -> Option<u64> {
    let mut at = 2;
    loop {
        let mut segment = [0; 9];
        file.seek(SeekFrom::Start(at)).ok()?;
        file.read_exact(&mut segment).ok()?;
        let [0xFF, kind, ..] = segment else {
            return None;
        };
        match kind {
            0xFF => at += 1,
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                let pixels = big::<2>(&segment, 5)? * big::<2>(&segment, 7)?;
                let progressive = !matches!(kind, 0xC0 | 0xC1);
                return Some(pixels.saturating_mul(if progressive {
                    PIXEL_BYTES + 6
                } else {
                    PIXEL_BYTES
                }));
            }
            0xDA | 0xD9 => return None,
            _ => at += 2 + big::<2>(&segment, 2)?,
        }
    }
}

/// Samples with transparency, and without.
fn webp(start: &[u8]) -> Option<u64> {
    let (width, height) = match start.get(12..16)? {
        b"VP8X" => (little::<3>(start, 24)? + 1, little::<3>(start, 27)? + 1),
        b"VP8L" => {
            let bits = little::<4>(start, 21)?;
            ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        }
        _ => (
            little::<2>(start, 26)? & 0x3FFF,
            little::<2>(start, 28)? & 0x3FFF,
        ),
    };
    Some(
        width
            .saturating_mul(height)
            .saturating_mul(PIXEL_BYTES + 4 + 4),
    )
}

fn bmp(start: &[u8]) -> Option<u64> {
    let (width, height) = match little::<4>(start, 14)? {
        12 => (little::<2>(start, 18)?, little::<2>(start, 20)?),
        _ => {
            let side = |at| {
                Some(u64::from(
                    (little::<4>(start, at)? as u32 as i32).unsigned_abs(),
                ))
            };
            (side(18)?, side(22)?)
        }
    };
    Some(width.saturating_mul(height).saturating_mul(PIXEL_BYTES))
}

/// The screen, with a frame of indices and of colors; a frame is rarely larger, and then read all the same.
fn gif(start: &[u8]) -> Option<u64> {
    Some(little::<2>(start, 6)? * little::<2>(start, 8)? * (PIXEL_BYTES + 5))
}

/// Two tags of the first directory; what a strip unpacks to may take as much as the picture.
fn tiff(file: &mut File) -> Option<u64> {
    let mut header = [0; 8];
    file.rewind().ok()?;
    file.read_exact(&mut header).ok()?;
    let number = match header.starts_with(b"MM") {
        true => |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |value: u64, byte| value << 8 | u64::from(*byte))
        },
        false => |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |value: u64, byte| value << 8 | u64::from(*byte))
        },
    };
    file.seek(SeekFrom::Start(number(&header[4..]))).ok()?;
    let mut count = [0; 2];
    file.read_exact(&mut count).ok()?;
    let (mut width, mut height) = (0, 0);
    for _ in 0..number(&count) {
        let mut entry = [0; 12];
        file.read_exact(&mut entry).ok()?;
        let value = match number(&entry[2..4]) {
            3 => number(&entry[8..10]),
            _ => number(&entry[8..]),
        };
        match number(&entry[..2]) {
            256 => width = value,
            257 => height = value,
            _ => {}
        }
    }
    // A strip may be the whole picture, with four samples of two bytes.
    Some(
        width
            .saturating_mul(height)
            .saturating_mul(PIXEL_BYTES + 4 + 8),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        std::fs::write(&path, bytes).expect("a file is written");
        reading_bytes(&path) - bytes.len() as u64
    }

    #[test]
    fn every_format_says_how_large_it_is() {
        let mut png = Vec::new();
        let writer = png::Encoder::new(&mut png, 300, 200).write_header();
        drop(writer);
        assert_eq!(of(&png), 300 * 200 * PIXEL_BYTES);
        let jpeg = include_bytes!("../tests/fixtures/smooth.jpg"); // 40x56
        assert_eq!(of(jpeg), 40 * 56 * PIXEL_BYTES);
        let mut webp = Vec::new();
        let encoder = image_webp::WebPEncoder::new(&mut webp);
        let encoded = encoder.encode(&[0; 7 * 5 * 3], 7, 5, image_webp::ColorType::Rgb8);
        encoded.expect("a picture is encoded");
        assert_eq!(of(&webp), 7 * 5 * (PIXEL_BYTES + 8));
        let mut bmp = b"BM\0\0\0\0\0\0\0\0\0\0\0\0\x28\0\0\0\x07\0\0\0".to_vec();
        bmp.extend((-5_i32).to_le_bytes());
        assert_eq!(of(&bmp), 7 * 5 * PIXEL_BYTES);
        assert_eq!(of(b"GIF89a\x07\0\x05\0"), 7 * 5 * (PIXEL_BYTES + 5));
        assert_eq!(of(b"no picture"), 0);
    }
}
