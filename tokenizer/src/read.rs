//! Reading pictures: PNG, JPEG and WebP into 8-bit grey or RGB.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::container::Format;
use crate::error::{Error, Result};
use crate::pixels::{Channels, Pixels};

/// The most pixels a picture may announce: 128 Mpx, twice the largest of ImageNet. It bounds the memory a hostile header can
/// claim to 1 GiB (16-bit RGBA).
const LIMIT_PX: usize = 1 << 27;
/// Memory the decoders may take besides, for their own tables and rows.
const LIMIT_BYTES: u64 = 1 << 31;

/// Reads a PNG, JPEG or WebP picture; the format is told by the content, not by the name.
///
/// Transparency is composited on white, 16-bit samples are rounded to 8 bits, palettes are looked up, the first frame of an
/// animation is taken, an EXIF orientation is applied, and colour profiles are ignored (the samples are taken as sRGB).
/// `channels` of `None` keeps grey pictures grey and all others RGB; `Some` converts as [`Pixels::to_channels`] does.
///
/// Errors name the file and the fault: missing, a folder, no picture, truncated (what was expected and where the file ends),
/// broken, or larger than is read (refused before memory for it is taken).
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
    let broken = |source| Error::Decode {
        path: path.to_path_buf(),
        format: format.name(),
        source,
    };

    let mut reader = ImageReader::with_format(Cursor::new(bytes), image_format(format));
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(LIMIT_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let (height, width) = (height as usize, width as usize);
    if height.saturating_mul(width) > LIMIT_PX {
        return Err(Error::TooLarge {
            path: path.to_path_buf(),
            height,
            width,
            limit_px: LIMIT_PX,
        });
    }
    let orientation = decoder.orientation().map_err(broken)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);

    let pixels = flatten(picture)?;
    Ok(match channels {
        Some(channels) if channels != pixels.channels() => pixels.to_channels(channels),
        _ => pixels,
    })
}

fn image_format(format: Format) -> ImageFormat {
    match format {
        Format::Png => ImageFormat::Png,
        Format::Jpeg => ImageFormat::Jpeg,
        Format::WebP => ImageFormat::WebP,
    }
}

/// Eight bits, no transparency.
fn flatten(picture: DynamicImage) -> Result<Pixels> {
    let (height, width) = (picture.height() as usize, picture.width() as usize);
    let color = picture.color();
    match (color.has_color(), color.has_alpha()) {
        (false, false) => Pixels::new(
            height,
            width,
            Channels::Grey,
            picture.into_luma8().into_raw(),
        ),
        (true, false) => Pixels::new(height, width, Channels::Rgb, picture.into_rgb8().into_raw()),
        (false, true) => {
            let samples = picture.into_luma_alpha8().into_raw();
            let data = samples
                .as_chunks::<2>()
                .0
                .iter()
                .map(|[level, alpha]| on_white(*level, *alpha))
                .collect();
            Pixels::new(height, width, Channels::Grey, data)
        }
        (true, true) => {
            let samples = picture.into_rgba8().into_raw();
            let composite =
                |[r, g, b, alpha]: &[u8; 4]| [r, g, b].map(|level| on_white(*level, *alpha));
            let data = samples
                .as_chunks::<4>()
                .0
                .iter()
                .flat_map(composite)
                .collect();
            Pixels::new(height, width, Channels::Rgb, data)
        }
    }
}

/// A sample of opacity `alpha / 255` over white, rounded to the nearest.
fn on_white(level: u8, alpha: u8) -> u8 {
    let (level, alpha) = (u32::from(level), u32::from(alpha));
    ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}
