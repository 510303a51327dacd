//! The decoders behind [`crate::read`]: each format's own crate, without color management, in front of one type.

use std::io::Cursor;
use std::path::Path;

use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::container::Format;
use crate::error::{Error, Result};
use crate::orientation::Orientation;

/// The most pixels a picture may announce: 128 Mpx, twice the largest of ImageNet. It bounds the memory a hostile
/// header can claim to 1 GiB (16-bit RGBA).
const LIMIT_PX: usize = 1 << 27;
/// Memory the decoders may take besides, for their own tables and rows.
const LIMIT_BYTES: usize = 1 << 31;

/// How the samples of a pixel are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Gray,
    GreyAlpha,
    Rgb,
    Rgba,
}

/// What a file holds, before it becomes a picture.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) layout: Layout,
    /// `[height, width, samples of a pixel]`, in `[0, 255]`.
    pub(crate) data: Vec<u8>,
    pub(crate) orientation: Orientation,
}

/// What a decoder says of a file that it cannot read.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A file that is not read.
enum Refused {
    Broken(Cause),
    TooLarge { height: usize, width: usize },
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Refused {
    fn from(cause: E) -> Self {
        Self::Broken(cause.into())
    }
}

/// Decodes `bytes`; `path` is their name in errors.
pub(crate) fn decode(bytes: &[u8], format: Format, path: &Path) -> Result<Decoded> {
    let decoded = match format {
        Format::Png => png(bytes),
        Format::Jpeg => jpeg(bytes),
        Format::WebP => webp(bytes),
    };
    decoded.map_err(|refused| match refused {
        Refused::Broken(source) => Error::Decode {
            path: path.to_path_buf(),
            format: format.name(),
            source,
        },
        Refused::TooLarge { height, width } => Error::TooLarge {
            path: path.to_path_buf(),
            height,
            width,
            limit_px: LIMIT_PX,
        },
    })
}

/// Refuses what is too large, before memory for it is taken.
fn size(width: u32, height: u32) -> std::result::Result<[usize; 2], Refused> {
    let (height, width) = (height as usize, width as usize);
    match height.saturating_mul(width) > LIMIT_PX {
        true => Err(Refused::TooLarge { height, width }),
        false => Ok([height, width]),
    }
}

/// Palettes are looked up, few bits spread to eight, and sixteen rounded to eight; the first frame of an animation.
fn png(bytes: &[u8]) -> std::result::Result<Decoded, Refused> {
    let limits = png::Limits { bytes: LIMIT_BYTES };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::EXPAND);
    let info = decoder.read_header_info()?;
    let [height, width] = size(info.width, info.height)?;
    let mut reader = decoder.read_info()?;
    let (color, depth) = reader.output_color_type();
    let layout = match color {
        png::ColorType::Grayscale => Layout::Gray,
        png::ColorType::GrayscaleAlpha => Layout::GreyAlpha,
        png::ColorType::Rgba => Layout::Rgba,
        // A palette has been looked up.
        png::ColorType::Rgb | png::ColorType::Indexed => Layout::Rgb,
    };
    let mut data = vec![0; reader.output_buffer_size().unwrap_or(0)];
    reader.next_frame(&mut data)?;
    if depth == png::BitDepth::Sixteen {
        data = data.as_chunks().0.iter().map(eight_bits).collect();
    }
    let exif = reader.info().exif_metadata.as_deref();
    Ok(Decoded {
        height,
        width,
        layout,
        data,
        orientation: Orientation::of_exif(exif),
    })
}

/// A sample of sixteen bits, big-endian, rounded to eight: 257 to a step.
fn eight_bits(sample: &[u8; 2]) -> u8 {
    ((u32::from(u16::from_be_bytes(*sample)) + 128) / 257) as u8
}

/// Gray stays gray; YCbCr, CMYK and YCCK become RGB.
fn jpeg(bytes: &[u8]) -> std::result::Result<Decoded, Refused> {
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
        layout,
        data,
        orientation,
    })
}

/// The first frame of an animation.
fn webp(bytes: &[u8]) -> std::result::Result<Decoded, Refused> {
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes))?;
    decoder.set_memory_limit(LIMIT_BYTES);
    let (width, height) = decoder.dimensions();
    let [height, width] = size(width, height)?;
    let layout = match decoder.has_alpha() {
        true => Layout::Rgba,
        false => Layout::Rgb,
    };
    let mut data = vec![0; decoder.output_buffer_size().unwrap_or(0)];
    decoder.read_image(&mut data)?;
    let exif = decoder.exif_metadata()?;
    Ok(Decoded {
        height,
        width,
        layout,
        data,
        orientation: Orientation::of_exif(exif.as_deref()),
    })
}
