//! TIFF, as scanners and image editors write it: the first picture of a file, in strips or tiles.
//!
//! Gray, RGB and palettes of 1 to 16 bits, with or without alpha; uncompressed or with PackBits, LZW or deflate. JPEG,
//! fax codes, CMYK and floats are refused by name.

use std::io::Read;

use super::decoded::{Decoded, Layout, Refused, broken, reserved, size, unsupported, zeros};
use super::lzw::Codes;
use crate::orientation::Orientation;

/// Numbers that a tag may have: one for each strip or tile, and three for each color.
const MOST_VALUES: usize = 1 << 20;

/// What a strip or tile unpacks to at most: the largest picture that is read, of four samples of two bytes.
const MOST_BYTES: usize = super::decoded::LIMIT_PX * 8;

const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const STRIP_OFFSETS: u16 = 273;
const ORIENTATION: u16 = 274;
const SAMPLES: u16 = 277;
const ROWS_PER_STRIP: u16 = 278;
const STRIP_LENGTHS: u16 = 279;
const PLANAR: u16 = 284;
const PREDICTOR: u16 = 317;
const COLORS: u16 = 320;
const TILE_WIDTH: u16 = 322;
const TILE_HEIGHT: u16 = 323;
const TILE_OFFSETS: u16 = 324;
const TILE_LENGTHS: u16 = 325;
const EXTRA: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Refused> {
    let file = File::open(bytes)?;
    let header = Header::read(&file)?;
    let Header {
        height,
        width,
        samples,
        layout,
        ..
    } = header;
    let pixel = layout.samples();
    // Samples of the picture as eight bits each, those beyond the layout left out.
    let mut whole = zeros(height * width * pixel)?;
    let across = width.div_ceil(header.chunk[1]);
    let mut row = vec![0; header.chunk[1] * samples];
    for (index, (&start, &length)) in header.offsets.iter().zip(&header.lengths).enumerate() {
        let [top, left] = [
            index / across * header.chunk[0],
            index % across * header.chunk[1],
        ];
        if top >= height {
            break;
        }
        // Strips end with the picture; tiles are whole.
        let rows = match header.tiled {
            true => header.chunk[0],
            false => header.chunk[0].min(height - top),
        };
        let packed = start
            .checked_add(length)
            .and_then(|end| bytes.get(start..end));
        let Some(packed) = packed else {
            return broken("a strip or tile lies beyond the end of the file");
        };
        let unpacked = header.unpack(packed, rows * header.row_bytes())?;
        let lines = unpacked.chunks_exact(header.row_bytes()).take(height - top);
        for (y, line) in lines.enumerate() {
            header.eight_bits(line, file.big_endian, &mut row);
            let shown = header.chunk[1].min(width - left);
            let target = &mut whole[((top + y) * width + left) * pixel..][..shown * pixel];
            let pixels = row.chunks_exact(samples);
            for (target, found) in target.chunks_exact_mut(pixel).zip(pixels) {
                header.color(found, target);
            }
        }
    }
    Ok(Decoded {
        height,
        width,
        channels: layout.channels(),
        data: layout.flatten(whole, [height, width])?,
        orientation: header.orientation,
    })
}

/// The first directory of a file.
struct File<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    /// Entries of 12 bytes.
    entries: &'a [[u8; 12]],
}

impl<'a> File<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, Refused> {
        let mut file = Self {
            bytes,
            big_endian: bytes.starts_with(b"MM"),
            entries: &[],
        };
        let directory = file.number(bytes.get(4..8).unwrap_or_default());
        let short = || Refused::Broken("its directory lies beyond the end of the file".into());
        let directory = bytes.get(directory..).ok_or_else(short)?;
        let (count, entries) = directory.split_first_chunk::<2>().ok_or_else(short)?;
        let count = file.number(count);
        file.entries = entries.as_chunks().0.get(..count).ok_or_else(short)?;
        Ok(file)
    }

    /// A number of as many bytes as are given.
    fn number(&self, bytes: &[u8]) -> usize {
        let append = |value: usize, byte: &u8| value << 8 | usize::from(*byte);
        match self.big_endian {
            true => bytes.iter().fold(0, append),
            false => bytes.iter().rev().fold(0, append),
        }
    }

    /// The values of a tag; none if it is not there.
    fn values(&self, tag: u16) -> Result<Vec<usize>, Refused> {
        let of_tag = |entry: &&[u8; 12]| self.number(&entry[..2]) == usize::from(tag);
        let Some(entry) = self.entries.iter().find(of_tag) else {
            return Ok(Vec::new());
        };
        let bytes = match self.number(&entry[2..4]) {
            1 => 1,
            3 => 2,
            4 => 4,
            _ => return broken(format!("tag {tag} is no whole number")),
        };
        let count = self.number(&entry[4..8]);
        let values = match count * bytes {
            0..=4 => &entry[8..8 + count * bytes],
            length if count <= MOST_VALUES => {
                let start = self.number(&entry[8..12]);
                match start
                    .checked_add(length)
                    .and_then(|end| self.bytes.get(start..end))
                {
                    Some(values) => values,
                    None => return broken(format!("tag {tag} lies beyond the end of the file")),
                }
            }
            _ => return broken(format!("tag {tag} has {count} values")),
        };
        Ok(values
            .chunks_exact(bytes)
            .map(|value| self.number(value))
            .collect())
    }

    fn value(&self, tag: u16, default: usize) -> Result<usize, Refused> {
        Ok(self.values(tag)?.first().copied().unwrap_or(default))
    }
}

/// What a directory says of its picture.
struct Header {
    height: usize,
    width: usize,
    /// Of a sample.
    bits: usize,
    /// Of a pixel, as they are stored.
    samples: usize,
    layout: Layout,
    /// Whether 0 is white.
    inverted: bool,
    /// Whether colors are multiplied with alpha already.
    premultiplied: bool,
    palette: Vec<[u8; 3]>,
    compression: usize,
    /// Whether each sample is stored as its difference to the one before.
    differences: bool,
    tiled: bool,
    /// Rows and columns of a strip or tile.
    chunk: [usize; 2],
    offsets: Vec<usize>,
    lengths: Vec<usize>,
    orientation: Orientation,
}

impl Header {
    fn read(file: &File<'_>) -> Result<Self, Refused> {
        let [height, width] = size(file.value(WIDTH, 0)?, file.value(HEIGHT, 0)?)?;
        let samples = file.value(SAMPLES, 1)?;
        let all_bits = file.values(BITS)?;
        let bits = all_bits.first().copied().unwrap_or(1);
        let photometric = file.value(PHOTOMETRIC, 1)?;
        let compression = file.value(COMPRESSION, 1)?;
        if !matches!(compression, 1 | 5 | 8 | 32773 | 32946) {
            let name = match compression {
                2..=4 => "fax compression",
                6 | 7 => "JPEG compression",
                50000 => "Zstandard compression",
                50001 => "WebP compression",
                _ => "compression",
            };
            return unsupported(format!("{name} ({compression})"));
        }
        if !matches!((bits, photometric), (1 | 2 | 4 | 8, _) | (16, 0..=2))
            || all_bits.iter().any(|other| *other != bits)
        {
            return unsupported(format!("{all_bits:?} bits"));
        }
        if !matches!(file.value(SAMPLE_FORMAT, 1)?, 1 | 4) {
            return unsupported("signed numbers or floats");
        }
        let predictor = file.value(PREDICTOR, 1)?;
        if !matches!((predictor, bits), (1, _) | (2, 8 | 16)) || file.value(FILL_ORDER, 1)? != 1 {
            return unsupported(format!("predictor {predictor} or another order of bits"));
        }
        let extra = file.values(EXTRA)?;
        let alpha = matches!(extra.first(), Some(1 | 2));
        let (colors, layout) = match (photometric, alpha) {
            (0 | 1, false) => (1, Layout::Gray),
            (0 | 1, true) => (1, Layout::GreyAlpha),
            (2, false) => (3, Layout::Rgb),
            (2, true) => (3, Layout::Rgba),
            (3, _) => (1, Layout::Rgb),
            (5, _) => return unsupported("CMYK"),
            (6, _) => return unsupported("YCbCr"),
            (8..=10, _) => return unsupported("L*a*b*"),
            _ => return unsupported(format!("color space {photometric}")),
        };
        if !(colors + usize::from(alpha)..=16).contains(&samples) {
            return broken(format!("it has {samples} samples in a pixel"));
        }
        if file.value(PLANAR, 1)? != 1 && samples > 1 {
            return unsupported("separate planes");
        }
        let palette = match photometric {
            3 => palette(&file.values(COLORS)?)?,
            _ => Vec::new(),
        };
        let tiled = !file.values(TILE_OFFSETS)?.is_empty();
        let (chunk, offsets, lengths) = match tiled {
            true => (
                [file.value(TILE_HEIGHT, 0)?, file.value(TILE_WIDTH, 0)?],
                file.values(TILE_OFFSETS)?,
                file.values(TILE_LENGTHS)?,
            ),
            false => (
                [file.value(ROWS_PER_STRIP, height)?.min(height), width],
                file.values(STRIP_OFFSETS)?,
                file.values(STRIP_LENGTHS)?,
            ),
        };
        size(chunk[1], chunk[0])?;
        if chunk[0] * (chunk[1] * samples * bits).div_ceil(8) > MOST_BYTES {
            return broken(format!(
                "a strip or tile has {chunk:?} px of {samples} samples"
            ));
        }
        let needed = height.div_ceil(chunk[0]) * width.div_ceil(chunk[1]);
        if offsets.len().min(lengths.len()) < needed {
            return broken(format!(
                "expected {needed} strips or tiles, found {}",
                offsets.len()
            ));
        }
        Ok(Self {
            height,
            width,
            bits,
            samples,
            layout,
            inverted: photometric == 0,
            premultiplied: extra.first() == Some(&1),
            palette,
            compression,
            differences: predictor == 2,
            tiled,
            chunk,
            offsets,
            lengths,
            orientation: Orientation::of_tag(file.value(ORIENTATION, 1)? as u16),
        })
    }

    /// Bytes of a row of a strip or tile.
    fn row_bytes(&self) -> usize {
        (self.chunk[1] * self.samples * self.bits).div_ceil(8)
    }

    /// Exactly `length` bytes of a strip or tile, whatever it would unpack to.
    fn unpack(&self, packed: &[u8], length: usize) -> Result<Vec<u8>, Refused> {
        let mut unpacked = reserved(length)?;
        match self.compression {
            1 => unpacked.extend_from_slice(&packed[..packed.len().min(length)]),
            5 => Codes::of_tiff(packed).unpack(length, &mut unpacked)?,
            32773 => pack_bits(packed, length, &mut unpacked),
            _ => {
                let decoder = flate2::read::ZlibDecoder::new(packed);
                decoder.take(length as u64).read_to_end(&mut unpacked)?;
            }
        }
        if unpacked.len() < length {
            return broken("its data end before the picture does");
        }
        Ok(unpacked)
    }

    /// The samples of a row, each as eight bits; indices of a palette as they are.
    fn eight_bits(&self, line: &[u8], big_endian: bool, row: &mut [u8]) {
        let samples = self.samples;
        match self.bits {
            16 => {
                let mut before = vec![0_u16; samples];
                for (i, (target, bytes)) in row.iter_mut().zip(line.as_chunks::<2>().0).enumerate()
                {
                    let mut value = match big_endian {
                        true => u16::from_be_bytes(*bytes),
                        false => u16::from_le_bytes(*bytes),
                    };
                    if self.differences {
                        value = value.wrapping_add(before[i % samples]);
                        before[i % samples] = value;
                    }
                    *target = super::decoded::eight_bits(&value.to_be_bytes());
                }
            }
            8 => {
                row.copy_from_slice(&line[..row.len()]);
                if self.differences {
                    for i in samples..row.len() {
                        row[i] = row[i].wrapping_add(row[i - samples]);
                    }
                }
            }
            bits => {
                let most = u8::MAX >> (8 - bits);
                let scale = if self.palette.is_empty() {
                    u8::MAX / most
                } else {
                    1
                };
                for (i, target) in row.iter_mut().enumerate() {
                    let (byte, within) = (i * bits / 8, i * bits % 8);
                    *target = (line[byte] >> (8 - bits - within) & most) * scale;
                }
            }
        }
    }

    /// The samples of a pixel in the layout, of those that are stored.
    fn color(&self, found: &[u8], target: &mut [u8]) {
        if !self.palette.is_empty() {
            let color = self
                .palette
                .get(usize::from(found[0]))
                .copied()
                .unwrap_or_default();
            target.copy_from_slice(&color);
            return;
        }
        target.copy_from_slice(&found[..target.len()]);
        let (colors, alpha) = target.split_at_mut(self.layout.channels().count());
        if self.inverted {
            colors[0] = u8::MAX - colors[0];
        }
        if let ([alpha], true) = (alpha, self.premultiplied) {
            // On white already: what is left of it is added.
            colors
                .iter_mut()
                .for_each(|color| *color = color.saturating_add(u8::MAX - *alpha));
            *alpha = u8::MAX;
        }
    }
}

/// The colors of a palette, which stores all red first, in sixteen bits.
fn palette(values: &[usize]) -> Result<Vec<[u8; 3]>, Refused> {
    let count = values.len() / 3;
    if count == 0 {
        return broken("it has no palette");
    }
    // Some programs write eight bits.
    let shift = if values.iter().all(|value| *value < 256) {
        0
    } else {
        8
    };
    let color = |i: usize| [0, 1, 2].map(|channel| (values[channel * count + i] >> shift) as u8);
    Ok((0..count).map(color).collect())
}

/// Runs of one byte, and bytes as they are.
fn pack_bits(packed: &[u8], length: usize, unpacked: &mut Vec<u8>) {
    let mut rest = packed;
    while let ([count, after @ ..], true) = (rest, unpacked.len() < length) {
        let room = length - unpacked.len();
        rest = match (count, after) {
            (0..=127, _) => {
                let literal = &after[..after.len().min(usize::from(*count) + 1)];
                unpacked.extend_from_slice(&literal[..literal.len().min(room)]);
                &after[literal.len()..]
            }
            (129.., [byte, after @ ..]) => {
                let run = 257 - usize::from(*count);
                unpacked.resize(unpacked.len() + run.min(room), *byte);
                after
            }
            _ => after,
        };
    }
}
