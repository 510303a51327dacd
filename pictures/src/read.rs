//! Reading pictures: PNG, JPEG, WebP, BMP, GIF and TIFF into 8-bit gray or RGB.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::container::{Format, MAGIC_BYTES};
use crate::decoders;
use crate::error::{Error, Result};
use crate::pixels::{Channels, Pixels};
use crate::room::reserve;

/// Reads a PNG, JPEG, WebP, BMP, GIF or TIFF picture; the format is told by the content, not by the name.
///
/// Transparency is composited on white, 16-bit samples are rounded to 8 bits, palettes are looked up, the first frame
/// of an animation is taken, an EXIF orientation is applied, and color profiles are ignored (the samples are taken as
/// sRGB). `channels` of `None` keeps gray pictures gray and all others RGB; `Some` converts as [`Pixels::to_channels`]
/// does.
///
/// Errors name the file and the fault: missing, a folder, a pipe, no picture, a format that is not supported, truncated
/// (what was expected and where the file ends), broken, or larger than is read: 128 Mpx, refused before memory for it
/// is taken. A file that is truncated or has a wrong checksum is refused whole, though viewers may show a part of it. A
/// decoder's panic is an error like the others; [`is_decoding`](crate::is_decoding) tells a panic hook of it.
pub fn read(path: impl AsRef<Path>, channels: Option<Channels>) -> Result<Pixels> {
    let path = path.as_ref();
    decode(&content(path)?, path, channels)
}

/// The most bytes of a picture's file: what the largest picture takes without compression, 16-bit RGBA.
const LIMIT_FILE_BYTES: u64 = (decoders::LIMIT_PX as u64 * 8) + (1 << 20);

/// A picture's file, whose first bytes are looked at before the rest is read: a device never ends, and a film of some
/// gigabytes is no picture whatever its name.
pub(crate) fn content(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| Error::reading(path, source);
    // Looked at before it is opened, which waits at a pipe for someone to write.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    let path_buf = || path.to_path_buf();
    if metadata.is_dir() {
        return Err(Error::IsFolder { path: path_buf() });
    }
    if !metadata.is_file() {
        return Err(Error::Special { path: path_buf() });
    }
    let mut file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::with_capacity(MAGIC_BYTES);
    let mut start = file.by_ref().take(MAGIC_BYTES as u64);
    start.read_to_end(&mut bytes).map_err(failed)?;
    Format::identify(&bytes, path)?;
    if metadata.len() > LIMIT_FILE_BYTES {
        return Err(Error::LargeFile {
            path: path_buf(),
            bytes: metadata.len(),
            limit_bytes: LIMIT_FILE_BYTES,
        });
    }
    let rest = metadata.len() as usize;
    reserve(&mut bytes, rest).map_err(|_| failed(ErrorKind::OutOfMemory.into()))?;
    let mut rest = file.take(LIMIT_FILE_BYTES);
    rest.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// [`read`] for a file that is already in memory, such as a member of an archive; `path` is its name in errors.
pub fn decode(bytes: &[u8], path: impl AsRef<Path>, channels: Option<Channels>) -> Result<Pixels> {
    let path = path.as_ref();
    let format = Format::identify(bytes, path)?;
    format.expect_complete(bytes, path)?;
    let pixels = decoders::decode(bytes, format, path)?;
    Ok(match channels {
        Some(channels) if channels != pixels.channels() => pixels.to_channels(channels),
        _ => pixels,
    })
}
