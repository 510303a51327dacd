//! Writing pictures: PNG with text metadata, whole or not at all.

use std::io::{ErrorKind, Write};
use std::path::Path;

use tessera_files::{Existing, write_atomically};

use crate::error::{Error, Result};
use crate::metadata::{Text, checked};
use crate::pixels::{Channels, Pixels};

/// Writes an 8-bit PNG with `metadata` as keyword and text, in that order: as `tEXt` where the text is printable
/// Latin-1, else as `iTXt` (UTF-8). [`read_metadata`](crate::read_metadata) gives them back.
///
/// The file appears whole under its name or not at all. The check for one that is already there holds also against
/// another process that puts it there in the meantime. The folder must exist.
///
/// # Errors
/// A file that is in the way, text that PNG has no place for, a folder that cannot be written into.
pub fn write_png(
    path: impl AsRef<Path>,
    picture: &Pixels,
    metadata: &[(&str, &str)],
    existing: Existing,
) -> Result<()> {
    let path = path.as_ref();
    if existing == Existing::Keep && path.exists() {
        return Err(Error::Exists {
            path: path.to_path_buf(),
        });
    }
    let chunks = metadata
        .iter()
        .map(|(keyword, text)| checked(keyword, text))
        .collect::<Result<Vec<_>>>()?;
    let bytes = encode(picture, chunks).map_err(|source| Error::Encode {
        path: path.to_path_buf(),
        source,
    })?;
    write_atomically(path, existing, |file| file.write_all(&bytes)).map_err(|error| {
        match (error.source.kind(), error.path) {
            (ErrorKind::AlreadyExists, path) => Error::Exists { path },
            (_, path) => Error::WriteFile {
                path,
                source: error.source,
            },
        }
    })
}

fn encode(
    picture: &Pixels,
    chunks: Vec<Text<'_>>,
) -> std::result::Result<Vec<u8>, png::EncodingError> {
    // A side over u32 cannot be held in memory with its other side; the encoder refuses the saturated value's data
    // length.
    let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(picture.width()), side(picture.height()));
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_color(match picture.channels() {
        Channels::Gray => png::ColorType::Grayscale,
        Channels::Rgb => png::ColorType::Rgb,
    });
    for chunk in chunks {
        match chunk {
            Text::Latin1(keyword, text) => encoder.add_text_chunk(keyword.into(), text.into())?,
            Text::Utf8(keyword, text) => encoder.add_itxt_chunk(keyword.into(), text.into())?,
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.data())?;
    writer.finish()?;
    Ok(bytes)
}
