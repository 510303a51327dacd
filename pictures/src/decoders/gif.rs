//! GIF: the first frame, on white.

use super::decoded::{Decoded, Layout, Refused, broken, reserved, size, zeros};
use super::lzw::Codes;
use crate::orientation::Orientation;
use crate::pixels::Channels;

/// Decodes the first frame, where it lies on its screen; what it leaves free is white, as transparency is.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Refused> {
    let mut reader = Reader { bytes, at: 6 }; // behind the signature
    let [screen_width, screen_height] = [reader.u16()?, reader.u16()?];
    let flags = reader.byte()?;
    reader.take(2)?; // background and aspect
    let global = reader.palette(flags)?;
    let mut transparent = None;
    loop {
        match reader.byte()? {
            EXTENSION => {
                let graphic_control = reader.byte()? == 0xF9;
                let block = reader.blocks(16)?;
                if let ([flags, _, _, index], true) =
                    (&block[..block.len().min(4)], graphic_control)
                {
                    transparent = (flags & 1 == 1).then_some(*index);
                }
            }
            FRAME => break,
            _ => return broken("it holds no frame"),
        }
    }
    let [left, top] = [reader.u16()?, reader.u16()?];
    let [frame_width, frame_height] = [reader.u16()?, reader.u16()?];
    let flags = reader.byte()?;
    let palette = match reader.palette(flags)? {
        [] => global,
        own => own,
    };
    let interlaced = flags & 0x40 != 0;
    let [frame_height, frame_width] = size(frame_width, frame_height)?;
    // Some files leave their screen empty, or smaller than the frame: viewers show the frame.
    let [height, width] = size(
        screen_width.max(left + frame_width),
        screen_height.max(top + frame_height),
    )?;
    let indices = unpacked(&mut reader, frame_width * frame_height)?;
    let mut data = zeros(height * width * 3)?;
    data.fill(u8::MAX);
    let mut row = Vec::with_capacity(frame_width * 3);
    let lines = lines(frame_height, interlaced);
    for (y, indices) in lines.zip(indices.chunks_exact(frame_width)) {
        row.clear();
        for &index in indices {
            let color = palette.get(usize::from(index)).copied().unwrap_or_default();
            let alpha = if transparent == Some(index) {
                0
            } else {
                u8::MAX
            };
            let [r, g, b] = color;
            Layout::Rgba.append(&[r, g, b, alpha], &mut row);
        }
        data[((top + y) * width + left) * 3..][..row.len()].copy_from_slice(&row);
    }
    Ok(Decoded {
        height,
        width,
        channels: Channels::Rgb,
        data,
        orientation: Orientation::default(),
    })
}

const EXTENSION: u8 = 0x21;
const FRAME: u8 = 0x2C;

/// Where the rows of the data belong: in order, or every eighth, then those between.
fn lines(height: usize, interlaced: bool) -> impl Iterator<Item = usize> {
    let passes: &[(usize, usize)] = match interlaced {
        true => &[(0, 8), (4, 8), (2, 4), (1, 2)],
        false => &[(0, 1)],
    };
    passes
        .iter()
        .flat_map(move |&(first, step)| (first..height).step_by(step))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Refused> {
        match self.bytes.get(self.at..self.at + count) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => broken("the file ends before its first frame does"),
        }
    }

    fn byte(&mut self) -> Result<u8, Refused> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<usize, Refused> {
        let bytes = self.take(2)?;
        Ok(usize::from(bytes[0]) | usize::from(bytes[1]) << 8)
    }

    /// The palette that the flags announce; none if they announce none.
    fn palette(&mut self, flags: u8) -> Result<&'a [[u8; 3]], Refused> {
        match flags & 0x80 {
            0 => Ok(&[]),
            _ => Ok(self.take(3 << ((flags & 7) + 1))?.as_chunks().0),
        }
    }

    /// A chain of blocks to its end, of whose content as much as `most` is kept.
    fn blocks(&mut self, most: usize) -> Result<Vec<u8>, Refused> {
        let mut content = Vec::new();
        loop {
            let length = usize::from(self.byte()?);
            if length == 0 {
                return Ok(content);
            }
            let block = self.take(length)?;
            content.extend_from_slice(&block[..length.min(most - content.len())]);
        }
    }
}

/// The `count` indices of a frame.
fn unpacked(reader: &mut Reader<'_>, count: usize) -> Result<Vec<u8>, Refused> {
    let root_bits = u32::from(reader.byte()?);
    if !(1..=8).contains(&root_bits) {
        return broken(format!("its colors have {root_bits} bits, expected 1 to 8"));
    }
    let codes = reader.blocks(usize::MAX)?;
    let mut indices = reserved(count)?;
    Codes::of_gif(&codes, root_bits).unpack(count, &mut indices)?;
    Ok(indices)
}
