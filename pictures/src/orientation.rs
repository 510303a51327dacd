//! How a camera was held: the orientation that EXIF gives, and turning a picture by it.

use crate::pixels::Pixels;

/// Where the first row and the first column of a file's samples belong (EXIF 2.32, tag 0x0112).
///
/// A picture is upright after its axes were exchanged, if they were, and each was then reversed, if it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orientation {
    transposed: bool,
    rows_reversed: bool,
    columns_reversed: bool,
}

impl Orientation {
    /// Of an EXIF block, which begins with a TIFF header. Upright if there is none, or it does not say, or is broken.
    pub(crate) fn of_exif(exif: Option<&[u8]>) -> Self {
        exif.and_then(tag).map_or_else(Self::default, Self::of_tag)
    }

    /// Of the tag's value; upright if that is none of the eight.
    pub(crate) fn of_tag(tag: u16) -> Self {
        let [transposed, rows_reversed, columns_reversed] = match tag {
            2 => [false, false, true],
            3 => [false, true, true],
            4 => [false, true, false],
            5 => [true, false, false],
            6 => [true, false, true],
            7 => [true, true, true],
            8 => [true, true, false],
            _ => [false; 3],
        };
        Self {
            transposed,
            rows_reversed,
            columns_reversed,
        }
    }

    /// The picture upright.
    pub(crate) fn apply(self, picture: Pixels) -> Pixels {
        if self == Self::default() {
            return picture;
        }
        let (height, width) = match self.transposed {
            true => (picture.width(), picture.height()),
            false => (picture.height(), picture.width()),
        };
        let pixel = picture.channels().count();
        let mut data = Vec::with_capacity(picture.data().len());
        for y in 0..height {
            for x in 0..width {
                let y = if self.rows_reversed {
                    height - 1 - y
                } else {
                    y
                };
                let x = if self.columns_reversed {
                    width - 1 - x
                } else {
                    x
                };
                let (y, x) = if self.transposed { (x, y) } else { (y, x) };
                data.extend_from_slice(&picture.row(y)[x * pixel..][..pixel]);
            }
        }
        Pixels::from_parts(height, width, picture.channels(), data)
    }
}

/// The value of the tag "orientation" in the first directory of a TIFF header.
fn tag(exif: &[u8]) -> Option<u16> {
    const ORIENTATION: u16 = 0x0112;
    const SHORT: u16 = 3;
    let big_endian = match exif.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes = *exif.get(at..)?.first_chunk::<2>()?;
        Some(match big_endian {
            true => u16::from_be_bytes(bytes),
            false => u16::from_le_bytes(bytes),
        })
    };
    let u32_at = |at: usize| {
        let bytes = *exif.get(at..)?.first_chunk::<4>()?;
        Some(match big_endian {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        })
    };
    let directory = u32_at(4)? as usize;
    let entries = usize::from(u16_at(directory)?);
    (0..entries)
        .map(|entry| directory + 2 + 12 * entry)
        .take_while(|at| at + 12 <= exif.len())
        .find(|&at| u16_at(at) == Some(ORIENTATION) && u16_at(at + 2) == Some(SHORT))
        .and_then(|at| u16_at(at + 8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::Channels;

    /// A directory of two entries, the second of which is the orientation.
    fn exif(big_endian: bool, orientation: u16) -> Vec<u8> {
        let short = |value: u16| match big_endian {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        };
        let mut bytes = if big_endian { *b"MM\0*" } else { *b"II*\0" }.to_vec();
        bytes.extend(match big_endian {
            true => 8_u32.to_be_bytes(),
            false => 8_u32.to_le_bytes(),
        });
        bytes.extend(short(2));
        for (tag, value) in [(0x0100, 640), (0x0112, orientation)] {
            bytes.extend([short(tag), short(3)].concat());
            bytes.extend(match big_endian {
                true => 1_u32.to_be_bytes(),
                false => 1_u32.to_le_bytes(),
            });
            bytes.extend([short(value), short(0)].concat());
        }
        bytes.extend([0; 4]);
        bytes
    }

    /// What viewers show for a picture whose upright form is `abc / def`, from the table of EXIF 2.32.
    #[test]
    fn every_orientation_gives_the_upright_picture() {
        let stored: [(u16, usize, &[u8]); 8] = [
            (1, 2, b"abcdef"),
            (2, 2, b"cbafed"),
            (3, 2, b"fedcba"),
            (4, 2, b"defabc"),
            (5, 3, b"adbecf"),
            (6, 3, b"cfbead"),
            (7, 3, b"fcebda"),
            (8, 3, b"daebfc"),
        ];
        for (orientation, height, data) in stored {
            for big_endian in [true, false] {
                let exif = exif(big_endian, orientation);
                let picture = Pixels::from_parts(height, 6 / height, Channels::Gray, data.into());
                let upright = Orientation::of_exif(Some(&exif)).apply(picture);
                assert_eq!(
                    (upright.height(), upright.data()),
                    (2, &b"abcdef"[..]),
                    "orientation {orientation}"
                );
            }
        }
    }

    #[test]
    fn what_says_nothing_is_upright() {
        let whole = exif(true, 6);
        let upright = Orientation::default();
        assert_eq!(Orientation::of_exif(None), upright);
        assert_eq!(Orientation::of_exif(Some(&exif(false, 9))), upright);
        for length in 0..whole.len() - 5 {
            let cut = Orientation::of_exif(Some(&whole[..length]));
            assert!(cut == upright || length >= whole.len() - 8, "{length}");
        }
        let mut far = whole.clone();
        far[4..8].fill(0xFF);
        assert_eq!(Orientation::of_exif(Some(&far)), upright);
    }
}
