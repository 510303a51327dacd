//! Reading pictures: PNG, JPEG and WebP into 8-bit gray or RGB.

use std::path::Path;

use crate::container::Format;
use crate::decoders::{self, Decoded, Layout};
use crate::error::{Error, Result};
use crate::pixels::{Channels, Pixels};

/// Reads a PNG, JPEG or WebP picture; the format is told by the content, not by the name.
///
/// Transparency is composited on white, 16-bit samples are rounded to 8 bits, palettes are looked up, the first frame
/// of an animation is taken, an EXIF orientation is applied, and color profiles are ignored (the samples are taken as
/// sRGB). `channels` of `None` keeps gray pictures gray and all others RGB; `Some` converts as [`Pixels::to_channels`]
/// does.
///
/// Errors name the file and the fault: missing, a folder, no picture, truncated (what was expected and where the file
/// ends), broken, or larger than is read (refused before memory for it is taken).
pub fn read(path: impl AsRef<Path>, channels: Option<Channels>) -> Result<Pixels> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| Error::reading(path, source))?;
    decode(&bytes, path, channels)
}

/// [`read`] for a file that is already in memory, such as a member of an archive; `path` is its name in errors.
pub fn decode(bytes: &[u8], path: impl AsRef<Path>, channels: Option<Channels>) -> Result<Pixels> {
    let path = path.as_ref();
    let format = Format::identify(bytes, path)?;
    format.expect_complete(bytes, path)?;
    let decoded = decoders::decode(bytes, format, path)?;
    let orientation = decoded.orientation;
    let pixels = orientation.apply(flatten(decoded)?);
    Ok(match channels {
        Some(channels) if channels != pixels.channels() => pixels.to_channels(channels),
        _ => pixels,
    })
}

/// No transparency.
fn flatten(decoded: Decoded) -> Result<Pixels> {
    let Decoded {
        height,
        width,
        layout,
        data,
        ..
    } = decoded;
    let (channels, data) = match layout {
        Layout::Gray => (Channels::Gray, data),
        Layout::Rgb => (Channels::Rgb, data),
        Layout::GreyAlpha => {
            let composite = |[level, alpha]: &[u8; 2]| on_white(*level, *alpha);
            let data = data.as_chunks::<2>().0.iter().map(composite).collect();
            (Channels::Gray, data)
        }
        Layout::Rgba => {
            let composite =
                |[r, g, b, alpha]: &[u8; 4]| [r, g, b].map(|level| on_white(*level, *alpha));
            let data = data.as_chunks::<4>().0.iter().flat_map(composite).collect();
            (Channels::Rgb, data)
        }
    };
    Pixels::new(height, width, channels, data)
}

/// A sample of opacity `alpha / 255` over white, rounded to the nearest.
fn on_white(level: u8, alpha: u8) -> u8 {
    let (level, alpha) = (u32::from(level), u32::from(alpha));
    ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}
