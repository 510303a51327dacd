//! The decoders behind [`crate::read`]: each format's own crate, without color management, in front of one type.

mod bmp;
mod decoded;
mod gif;
mod guard;
mod lzw;
mod tiff;

use std::io::Cursor;
use std::path::Path;

use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::container::{Format, png_fault};
use crate::error::{Error, Result, once};
use crate::orientation::Orientation;
use crate::pixels::Pixels;
pub(crate) use decoded::LIMIT_PX;
use decoded::{Decoded, Layout, Refused, broken, eight_bits, reserved, size, zeros};
pub use guard::is_decoding;
pub(crate) use guard::{Panicked, guarded};

/// Memory the decoders may take besides, for their own tables and rows.
const LIMIT_BYTES: usize = 1 << 31;
/// A PNG's own tables: a palette, and the rows that are being decoded.
const LIMIT_PNG_BYTES: usize = 1 << 26;

/// Decodes `bytes`, upright and without transparency; `path` is their name in errors.
pub(crate) fn decode(bytes: &[u8], format: Format, path: &Path) -> Result<Pixels> {
    let decoder = match format {
        Format::Png => png,
        Format::Jpeg => jpeg,
        Format::WebP => webp,
        Format::Bmp => bmp::decode,
        Format::Gif => gif::decode,
        Format::Tiff => tiff::decode,
    };
    let decoded = guarded(|| decoder(bytes))
        .unwrap_or_else(|Panicked| broken("its decoder gave up on it; the file is damaged"));
    let decoded = decoded.map_err(|refused| match refused {
        Refused::Broken(reason) => Error::Decode {
            path: path.to_path_buf(),
            format: format.name(),
            reason: plain(once(&*reason)),
        },
        Refused::Unsupported(what) => Error::Unsupported {
            path: path.to_path_buf(),
            format: format!("{} with {what}", format.name()),
        },
        Refused::TooLarge { height, width } => Error::TooLarge {
            path: path.to_path_buf(),
            height,
            width,
            limit_px: LIMIT_PX,
        },
    })?;
    let Decoded {
        height,
        width,
        channels,
        data,
        orientation,
    } = decoded;
    Ok(orientation.apply(Pixels::new(height, width, channels, data)?))
}

/// A decoder's reason without what only its authors understand: `ChunkType { type: IDAT, critical: true, … } chunk.`
pub(crate) fn plain(reason: String) -> String {
    let chunk = |reason: &str| {
        let (before, rest) = reason.split_once("ChunkType { type: ")?;
        let (name, rest) = rest.split_once(',')?;
        let (_, after) = rest.split_once('}')?;
        let after = after.trim_start_matches(" chunk");
        Some(
            format!("{before}chunk {name}{after}")
                .trim_end_matches('.')
                .to_owned(),
        )
    };
    chunk(&reason).unwrap_or(reason)
}

/// Palettes are looked up, few bits spread to eight, and sixteen rounded to eight; the first frame of an animation.
/// Profiles and texts are passed over packed.
fn png(bytes: &[u8]) -> Result<Decoded, Refused> {
    if let Some(fault) = png_fault(bytes) {
        return broken(fault);
    }
    let limits = png::Limits {
        bytes: LIMIT_PNG_BYTES,
    };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::EXPAND);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_ignore_text_chunk(true);
    let info = decoder.read_header_info()?;
    let [height, width] = size(info.width as usize, info.height as usize)?;
    let interlaced = info.interlaced;
    let mut reader = decoder.read_info()?;
    let (color, depth) = reader.output_color_type();
    let layout = match color {
        png::ColorType::Grayscale => Layout::Gray,
        png::ColorType::GrayscaleAlpha => Layout::GreyAlpha,
        png::ColorType::Rgba => Layout::Rgba,
        // A palette has been looked up.
        png::ColorType::Rgb | png::ColorType::Indexed => Layout::Rgb,
    };
    let channels = layout.channels();
    let samples = height * width * channels.count();
    let mut data = reserved(samples)?;
    let mut append = |row: &[u8]| match depth {
        png::BitDepth::Sixteen => {
            let row: Vec<u8> = row.as_chunks().0.iter().map(eight_bits).collect();
            layout.append(&row, &mut data);
        }
        _ => layout.append(row, &mut data),
    };
    if interlaced {
        let mut whole = zeros(reader.output_buffer_size().unwrap_or(0))?;
        let frame = reader.next_frame(&mut whole)?;
        whole.chunks_exact(frame.line_size.max(1)).for_each(append);
    } else {
        // Row by row: sixteen bits and transparency then take no memory of their own.
        for _ in 0..height {
            let Some(row) = reader.next_row()? else {
                break;
            };
            append(row.data());
        }
        // The checksum of the last row's data.
        reader.next_row()?;
    }
    if data.len() != samples {
        return broken("its data end before the picture does");
    }
    let exif = reader.info().exif_metadata.as_deref();
    Ok(Decoded {
        height,
        width,
        channels,
        data,
        orientation: Orientation::of_exif(exif),
    })
}

/// Gray stays gray; YCbCr, CMYK and YCCK become RGB.
fn jpeg(bytes: &[u8]) -> Result<Decoded, Refused> {
    // The size is held against this crate's own limit; damage that decoders commonly pass over is not refused.
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers()?;
    let missing = || Refused::Broken("the header says nothing of the picture".into());
    let info = decoder.info().ok_or_else(missing)?;
    let [height, width] = size(info.width.into(), info.height.into())?;
    let (color, layout) = match decoder.input_colorspace().ok_or_else(missing)? {
        ColorSpace::Luma => (ColorSpace::Luma, Layout::Gray),
        _ => (ColorSpace::RGB, Layout::Rgb),
    };
    let orientation = Orientation::of_exif(decoder.exif().map(Vec::as_slice));
    decoder.set_options(options.jpeg_set_out_colorspace(color));
    let data = decoder.decode()?;
    Ok(Decoded {
        height,
        width,
        channels: layout.channels(),
        data,
        orientation,
    })
}

/// The first frame of an animation.
fn webp(bytes: &[u8]) -> Result<Decoded, Refused> {
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes))?;
    decoder.set_memory_limit(LIMIT_BYTES);
    let (width, height) = decoder.dimensions();
    let [height, width] = size(width as usize, height as usize)?;
    let layout = match decoder.has_alpha() {
        true => Layout::Rgba,
        false => Layout::Rgb,
    };
    let mut data = zeros(decoder.output_buffer_size().unwrap_or(0))?;
    decoder.read_image(&mut data)?;
    let exif = decoder.exif_metadata()?;
    Ok(Decoded {
        height,
        width,
        channels: layout.channels(),
        data: layout.flatten(data, [height, width])?,
        orientation: Orientation::of_exif(exif.as_deref()),
    })
}
