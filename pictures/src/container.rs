//! What a picture file says of itself before any pixel is decoded: its format, and whether it is all there.
//!
//! Decoders differ in what they make of a file that stops early (some return gray for the missing part), so
//! completeness is checked on the container, where a truncation is plain to see and can be said in bytes.

use std::path::Path;

use crate::error::{Error, Result};

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Png,
    Jpeg,
    WebP,
    Bmp,
    Gif,
    Tiff,
}

/// The formats that are read, as messages list them.
pub(crate) const FORMATS: &str = "a PNG, JPEG, WebP, BMP, GIF or TIFF picture";

/// How many bytes tell a format.
pub(crate) const MAGIC_BYTES: usize = 64;

/// Formats that are not read but can be named: where their first bytes are, and which.
const OTHERS: [(usize, &[u8], &str); 25] = [
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftyphevc", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftypcrx ", "Canon raw"),
    (0, b"\xFF\x0A", "JPEG XL"),
    (0, b"\0\0\0\x0CJXL ", "JPEG XL"),
    (0, b"\0\0\0\x0CjP  ", "JPEG 2000"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"8BPS", "PSD"),
    (0, b"%PDF", "PDF"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"farbfeld", "farbfeld"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"<svg", "SVG"),
    (0, b"gimp xcf", "XCF"),
    (0, b"P5", "PGM"),
    (0, b"P6", "PPM"),
];

impl Format {
    /// The format's name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
        }
    }

    /// The format of a file, by its first bytes; names and extensions do not count.
    pub(crate) fn identify(bytes: &[u8], path: &Path) -> Result<Self> {
        if let Some(format) = Self::of(bytes) {
            return Ok(format);
        }
        let other = OTHERS
            .iter()
            .find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
        let start = &bytes[..bytes.len().min(12)];
        let found = match other {
            Some((_, _, name)) => {
                return Err(Error::Unsupported {
                    path: path.to_path_buf(),
                    format: (*name).into(),
                });
            }
            None if bytes.is_empty() => "an empty file".into(),
            None if is_web_page(bytes) => "a web page".into(),
            None if start.iter().all(|byte| *byte == 0) => "zeros".into(),
            None => format!("a file starting with \"{}\"", start.escape_ascii()),
        };
        Err(Error::NotAPicture {
            path: path.to_path_buf(),
            expected: FORMATS,
            found,
        })
    }

    /// The format that the first bytes tell, if it is one that is read.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let starts = |magic: &[u8]| bytes.starts_with(magic);
        if starts(b"\x89PNG\r\n\x1A\n") {
            Some(Self::Png)
        } else if starts(b"\xFF\xD8\xFF") {
            Some(Self::Jpeg)
        } else if starts(b"RIFF") && bytes.get(8..).is_some_and(|rest| rest.starts_with(b"WEBP")) {
            Some(Self::WebP)
        } else if starts(b"GIF87a") || starts(b"GIF89a") {
            Some(Self::Gif)
        } else if starts(b"II*\0") || starts(b"MM\0*") {
            Some(Self::Tiff)
        } else if starts(b"BM") && matches!(bytes.get(14..18), Some([12 | 40..=124, 0, 0, 0])) {
            Some(Self::Bmp)
        } else {
            None
        }
    }

    /// Fails if the file ends before its format says it should.
    pub(crate) fn expect_complete(self, bytes: &[u8], path: &Path) -> Result<()> {
        let complete = match self {
            Self::Png => png_is_complete(bytes),
            Self::Jpeg => jpeg_is_complete(bytes),
            Self::WebP => webp_is_complete(bytes),
            // Their decoders tell: none goes on without its data.
            Self::Bmp | Self::Gif | Self::Tiff => Ok(()),
        };
        complete.map_err(|expected| Error::Truncated {
            path: path.to_path_buf(),
            format: self.name(),
            expected,
            found: format!("the end of the file after {} bytes", bytes.len()),
        })
    }
}

/// Whether a download failed and left the server's answer under a picture's name.
fn is_web_page(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii_start();
    [&b"<!doctype"[..], b"<html", b"<?xml"]
        .iter()
        .any(|start| text.len() >= start.len() && text[..start.len()].eq_ignore_ascii_case(start))
}

/// Chunk after chunk, each with its length, until `IEND`. The error says what is missing.
fn png_is_complete(bytes: &[u8]) -> std::result::Result<(), String> {
    let mut start = 8; // the signature
    loop {
        let Some((length, rest)) = bytes
            .get(start..)
            .and_then(|chunk| chunk.split_first_chunk::<4>())
        else {
            return Err(format!("another chunk at byte {start}"));
        };
        let Some((kind, _)) = rest.split_first_chunk::<4>() else {
            return Err(format!("another chunk at byte {start}"));
        };
        let length = u32::from_be_bytes(*length) as usize;
        let end = start + 12 + length; // with length, kind and checksum
        if end > bytes.len() {
            return Err(format!(
                "chunk {} from byte {start} to {end}",
                kind.escape_ascii()
            ));
        }
        if kind == b"IEND" {
            return Ok(());
        }
        start = end;
    }
}

/// Segment after segment, and the entropy-coded data between them, until the end-of-image marker.
fn jpeg_is_complete(bytes: &[u8]) -> std::result::Result<(), String> {
    const START_OF_SCAN: u8 = 0xDA;
    let missing = || "an end-of-image marker".to_string();
    let mut position = 2; // the start-of-image marker
    loop {
        // A marker is 0xFF and a byte that is not 0 (a stuffed 0xFF of the data) nor 0xFF (padding).
        let marker = bytes.get(position..).and_then(|rest| {
            rest.windows(2)
                .position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0x00 | 0xFF))
        });
        let start = position + marker.ok_or_else(missing)?;
        let kind = bytes[start + 1];
        position = start + 2;
        match kind {
            0xD9 => return Ok(()),
            0x01 | 0xD0..=0xD8 => {} // without content, restart markers among the data included
            _ => {
                let length = bytes
                    .get(position..)
                    .and_then(|rest| rest.first_chunk::<2>())
                    .ok_or_else(missing)?;
                position += usize::from(u16::from_be_bytes(*length));
                if position > bytes.len() {
                    let name = if kind == START_OF_SCAN {
                        "the header of a scan"
                    } else {
                        "a segment"
                    };
                    return Err(format!("{name} from byte {start} to {position}"));
                }
            }
        }
    }
}

/// What is wrong with a PNG that its decoder takes for granted (png 0.18 panics at a palette of broken colors).
pub(crate) fn png_fault(bytes: &[u8]) -> Option<String> {
    let mut rest = bytes.get(8..)?; // the signature
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        match kind {
            b"PLTE" if !length.is_multiple_of(3) || !(1..=256).contains(&(length / 3)) => {
                return Some(format!(
                    "its palette has {length} bytes, expected 3 for each of 1 to 256 colors"
                ));
            }
            b"IDAT" => return None,
            _ => rest = after.get(length + 4..)?,
        }
    }
}

/// One RIFF chunk that announces its own length.
fn webp_is_complete(bytes: &[u8]) -> std::result::Result<(), String> {
    let Some(length) = bytes.get(4..).and_then(|rest| rest.first_chunk::<4>()) else {
        return Err("a RIFF header of 12 bytes".into());
    };
    let end = 8 + u32::from_le_bytes(*length) as usize;
    if end > bytes.len() {
        Err(format!("{end} bytes"))
    } else {
        Ok(())
    }
}
