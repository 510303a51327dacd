//! LZW: codes of growing length, each a code before it and one byte more, as GIF and TIFF have them.

use super::decoded::{Refused, broken};

/// The most bits of a code.
const LONGEST_CODE: u32 = 12;

/// A stream of codes.
pub(super) struct Codes<'a> {
    packed: &'a [u8],
    /// Bits of a byte that is packed.
    root_bits: u32,
    flavor: Flavor,
}

/// What differs between the formats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavor {
    /// Codes begin with their lowest bit, and grow when they have to.
    Gif,
    /// Codes begin with their highest bit, and grow one code early.
    Tiff,
}

impl<'a> Codes<'a> {
    /// Of a frame whose colors have `root_bits`, 1 to 8.
    pub(super) fn of_gif(packed: &'a [u8], root_bits: u32) -> Self {
        Self {
            packed,
            root_bits,
            flavor: Flavor::Gif,
        }
    }

    /// Of a strip or tile.
    pub(super) fn of_tiff(packed: &'a [u8]) -> Self {
        Self {
            packed,
            root_bits: 8,
            flavor: Flavor::Tiff,
        }
    }

    /// Appends `count` bytes to `bytes`. Fails if there are fewer.
    pub(super) fn unpack(self, count: usize, bytes: &mut Vec<u8>) -> Result<(), Refused> {
        let early = usize::from(self.flavor == Flavor::Tiff);
        let (clear, end) = (1_usize << self.root_bits, (1 << self.root_bits) + 1);
        // Of each code: the one it extends, and the byte it appends.
        let mut table: Vec<(u16, u8)> = Vec::with_capacity(1 << LONGEST_CODE);
        table.extend((0..=end).map(|root| (0, root as u8)));
        let (mut bits, mut previous) = (self.root_bits + 1, None::<usize>);
        let (mut window, mut filled, mut packed) = (0_u32, 0, self.packed.iter());
        let mut run = Vec::new();
        let wanted = bytes.len() + count;
        while bytes.len() < wanted {
            while filled < bits {
                let Some(&byte) = packed.next() else {
                    return broken("its data end before the picture does");
                };
                match self.flavor {
                    Flavor::Gif => window |= u32::from(byte) << filled,
                    Flavor::Tiff => window = window << 8 | u32::from(byte),
                }
                filled += 8;
            }
            filled -= bits;
            let mask = (1 << bits) - 1;
            let code = match self.flavor {
                Flavor::Gif => {
                    let code = window & mask;
                    window >>= bits;
                    code
                }
                Flavor::Tiff => window >> filled & mask,
            } as usize;
            if code == clear {
                table.truncate(end + 1);
                (bits, previous) = (self.root_bits + 1, None);
                continue;
            }
            if code == end {
                return broken("its data end before the picture does");
            }
            // The code that is defined right now repeats the first byte of the one before.
            let known = match previous {
                _ if code < table.len() => code,
                Some(previous) if code == table.len() => previous,
                _ => return broken("its data use a code that is not defined yet"),
            };
            run.clear();
            let mut at = known;
            loop {
                let (extends, byte) = table[at];
                run.push(byte);
                if at <= end {
                    break;
                }
                at = extends.into();
            }
            let first = run[run.len() - 1];
            bytes.extend(run.iter().rev().take(wanted - bytes.len()));
            if code == table.len() && bytes.len() < wanted {
                bytes.push(first);
            }
            if let Some(previous) = previous
                && table.len() < 1 << LONGEST_CODE
            {
                table.push((previous as u16, first));
                if table.len() + early >= 1 << bits && bits < LONGEST_CODE {
                    bits += 1;
                }
            }
            previous = Some(code);
        }
        Ok(())
    }
}
