//! BMP, as Windows writes it: 1, 4, 8, 16, 24 and 32 bits, with bit fields and run lengths.
//!
//! Headers of 12 bytes (OS/2) and of 40 to 124 (Windows) are read; what the longer ones say of color is ignored, as
//! profiles are everywhere. Four channels are taken as they are shown by Windows: opaque, unless bit fields name alpha.

use super::decoded::{Decoded, Layout, Refused, broken, reserved, size, unsupported, zeros};
use crate::orientation::Orientation;
use crate::pixels::Channels;

/// The length of the header in front of the picture's own.
const FILE_HEADER: usize = 14;
/// A header without compression, as OS/2 has it.
const CORE: usize = 12;
/// The first header of Windows, and the first that holds masks.
const INFO: usize = 40;
const WITH_MASKS: usize = 52;
const WITH_ALPHA_MASK: usize = 56;

/// What a header says of a picture.
struct Header {
    height: usize,
    width: usize,
    /// Whether the first row is the lowest, as is usual.
    bottom_up: bool,
    bits: usize,
    compression: u32,
    /// Of red, green, blue and alpha.
    masks: [u32; 4],
    palette: Vec<[u8; 3]>,
    /// Where the samples begin.
    data: usize,
}

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Refused> {
    let header = Header::read(bytes)?;
    let samples = bytes.get(header.data..).unwrap_or_default();
    let mut data = match header.compression {
        1 | 2 => header.run_lengths(samples)?,
        _ => header.rows(samples)?,
    };
    if header.bottom_up {
        let stride = header.width * 3;
        let (mut top, mut bottom) = (0, header.height - 1);
        while top < bottom {
            let (first, second) = data.split_at_mut(bottom * stride);
            first[top * stride..][..stride].swap_with_slice(&mut second[..stride]);
            (top, bottom) = (top + 1, bottom - 1);
        }
    }
    let (channels, data) = match header.is_gray() {
        true => (Channels::Gray, data.iter().step_by(3).copied().collect()),
        false => (Channels::Rgb, data),
    };
    Ok(Decoded {
        height: header.height,
        width: header.width,
        channels,
        data,
        orientation: Orientation::default(),
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Refused> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(found) => Ok(u16::from_le_bytes(*found)),
        None => broken("its header is cut short"),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Refused> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(found) => Ok(u32::from_le_bytes(*found)),
        None => broken("its header is cut short"),
    }
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, Refused> {
        let data = u32_at(bytes, 10)? as usize;
        let header = &bytes[FILE_HEADER..];
        let length = u32_at(header, 0)? as usize;
        let (width, height, bits, compression, colors) = match length {
            CORE => {
                let (width, height) = (u16_at(header, 4)?, u16_at(header, 6)?);
                (width.into(), height.into(), u16_at(header, 10)?, 0, 0)
            }
            INFO.. => (
                u32_at(header, 4)? as i32,
                u32_at(header, 8)? as i32,
                u16_at(header, 14)?,
                u32_at(header, 16)?,
                u32_at(header, 32)? as usize,
            ),
            _ => {
                return broken(format!(
                    "its header has {length} bytes, expected 12 or 40 and more"
                ));
            }
        };
        let bits = usize::from(bits);
        let [height_px, width_px] = size(
            width.unsigned_abs() as usize,
            height.unsigned_abs() as usize,
        )?;
        if width < 0 {
            return broken("its width is negative");
        }
        match (compression, bits) {
            (0, 1 | 4 | 8 | 16 | 24 | 32) | (1, 8) | (2, 4) | (3 | 6, 16 | 32) => {}
            (4 | 5, _) => return unsupported("a JPEG or PNG in it"),
            _ => {
                return unsupported(format!("{bits} bits and compression {compression}"));
            }
        }
        let masks = match (compression, bits) {
            (3 | 6, _) => {
                let alpha = length >= WITH_ALPHA_MASK || compression == 6;
                [
                    u32_at(header, INFO)?,
                    u32_at(header, INFO + 4)?,
                    u32_at(header, INFO + 8)?,
                    if alpha { u32_at(header, INFO + 12)? } else { 0 },
                ]
            }
            (_, 16) => [0x7C00, 0x03E0, 0x001F, 0],
            _ => [0xFF_0000, 0xFF00, 0xFF, 0],
        };
        let masks_behind = match (compression, length < WITH_MASKS) {
            (3, true) => 12,
            (6, true) => 16,
            _ => 0,
        };
        let palette = header
            .get(length.saturating_add(masks_behind)..)
            .unwrap_or_default();
        let palette = match (bits, length) {
            (1 | 4 | 8, CORE) => palette
                .as_chunks::<3>()
                .0
                .iter()
                .map(rgb)
                .take(1 << bits)
                .collect(),
            (1 | 4 | 8, _) => {
                let colors = match colors {
                    0 => 1 << bits,
                    colors => colors.min(1 << bits),
                };
                let color = |[b, g, r, _]: &[u8; 4]| [*r, *g, *b];
                palette
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(color)
                    .take(colors)
                    .collect()
            }
            _ => Vec::new(),
        };
        Ok(Self {
            height: height_px,
            width: width_px,
            bottom_up: height > 0,
            bits,
            compression,
            masks,
            palette,
            data,
        })
    }

    /// Whether all colors are gray.
    fn is_gray(&self) -> bool {
        let gray = |[r, g, b]: &[u8; 3]| r == g && g == b;
        self.bits <= 8 && !self.palette.is_empty() && self.palette.iter().all(gray)
    }

    /// The color at `index`; black beyond the palette, as it is shown.
    fn color(&self, index: u8) -> [u8; 3] {
        self.palette
            .get(usize::from(index))
            .copied()
            .unwrap_or_default()
    }

    /// Rows of whole 32-bit words, in the file's order: `[height, width, 3]`.
    fn rows(&self, samples: &[u8]) -> Result<Vec<u8>, Refused> {
        let stride = (self.width * self.bits).div_ceil(32) * 4;
        let needed = self.height * stride;
        // The last row need not be filled up.
        if samples.len() < needed - stride + (self.width * self.bits).div_ceil(8) {
            return broken(format!(
                "expected {needed} bytes of samples, found {}",
                samples.len()
            ));
        }
        let mut data = reserved(self.height * self.width * 3)?;
        for row in samples.chunks(stride).take(self.height) {
            match self.bits {
                24 => data.extend(row.as_chunks::<3>().0.iter().take(self.width).flat_map(rgb)),
                16 | 32 => self.fields(row, &mut data),
                bits => {
                    let index = |x: usize| {
                        let (byte, within) = (x * bits / 8, x * bits % 8);
                        row[byte] >> (8 - bits - within) & (u8::MAX >> (8 - bits))
                    };
                    data.extend((0..self.width).flat_map(|x| self.color(index(x))));
                }
            }
        }
        Ok(data)
    }

    /// Pixels of 16 or 32 bits, cut by the masks.
    fn fields(&self, row: &[u8], data: &mut Vec<u8>) {
        let pixel = |bytes: &[u8]| {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            let word = u32::from_le_bytes(word);
            let alpha = match self.masks[3] {
                0 => u8::MAX,
                mask => field(word, mask),
            };
            let [r, g, b] = [0, 1, 2].map(|channel| field(word, self.masks[channel]));
            [r, g, b, alpha]
        };
        for bytes in row.chunks_exact(self.bits / 8).take(self.width) {
            Layout::Rgba.append(&pixel(bytes), data);
        }
    }

    /// Runs of one color, pixels as they are, and jumps, in the file's order; what is jumped over has the first color.
    fn run_lengths(&self, samples: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut data = zeros(self.height * self.width * 3)?;
        data.as_chunks_mut().0.fill(self.color(0));
        let (mut x, mut y, mut at) = (0_usize, 0_usize, 0);
        let next = |at: &mut usize| {
            *at += 1;
            match samples.get(*at - 1) {
                Some(byte) => Ok(*byte),
                None => broken("its data end before the picture does"),
            }
        };
        let mut put = |x: usize, y: usize, index: u8| {
            if x < self.width && y < self.height {
                data[(y * self.width + x) * 3..][..3].copy_from_slice(&self.color(index));
            }
        };
        // The color at place `i` of a run: with 4 bits two take turns.
        let of_run = |byte: u8, i: usize| match self.bits {
            8 => byte,
            _ if i.is_multiple_of(2) => byte >> 4,
            _ => byte & 15,
        };
        while y < self.height {
            let (count, code) = (next(&mut at)?, next(&mut at)?);
            match (count, code) {
                (0, 0) => (x, y) = (0, y + 1),
                (0, 1) => break,
                (0, 2) => {
                    x += usize::from(next(&mut at)?);
                    y += usize::from(next(&mut at)?);
                }
                (0, count) => {
                    let count = usize::from(count);
                    let bytes = (count * self.bits).div_ceil(8);
                    let Some(run) = samples.get(at..at + bytes) else {
                        return broken("its data end before the picture does");
                    };
                    for i in 0..count {
                        put(x + i, y, of_run(run[i * self.bits / 8], i));
                    }
                    x += count;
                    at += bytes.next_multiple_of(2);
                }
                (count, byte) => {
                    let count = usize::from(count);
                    (0..count).for_each(|i| put(x + i, y, of_run(byte, i)));
                    x += count;
                }
            }
        }
        Ok(data)
    }
}

/// A pixel or a color of the palette, which are stored blue first.
fn rgb([b, g, r]: &[u8; 3]) -> [u8; 3] {
    [*r, *g, *b]
}

/// The bits of `mask`, spread to eight.
fn field(word: u32, mask: u32) -> u8 {
    if mask == 0 {
        return 0;
    }
    let (value, most) = (
        u64::from((word & mask) >> mask.trailing_zeros()),
        u64::from(mask >> mask.trailing_zeros()),
    );
    ((value * 255 + most / 2) / most) as u8
}
