//! What decoders share: what they give, how they refuse, and memory that may not be there.

use crate::error::BoxError;
use crate::orientation::Orientation;
use crate::pixels::Channels;
use crate::room::reserve;

/// The most pixels a picture may announce: 128 Mpx, twice the largest of ImageNet. A picture takes 3 bytes of memory
/// for each, and what its decoder needs besides.
pub(crate) const LIMIT_PX: usize = 1 << 27;
/// How the samples of a pixel are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Gray,
    GreyAlpha,
    Rgb,
    Rgba,
}

/// What a file holds, before it becomes a picture.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: Channels,
    /// `[height, width, channels]`, in `[0, 255]`.
    pub(super) data: Vec<u8>,
    pub(super) orientation: Orientation,
}

/// A file that is not read.
pub(super) enum Refused {
    Broken(BoxError),
    /// A variant of the format, by its name.
    Unsupported(String),
    TooLarge {
        height: usize,
        width: usize,
    },
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Refused {
    fn from(cause: E) -> Self {
        Self::Broken(cause.into())
    }
}

/// Refuses a file for a reason of ours.
pub(super) fn broken<T>(reason: impl Into<BoxError>) -> Result<T, Refused> {
    Err(Refused::Broken(reason.into()))
}

/// Refuses a variant of the format that is not read.
pub(super) fn unsupported<T>(what: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Unsupported(what.into()))
}

/// Refuses what is too large, before memory for it is taken.
pub(super) fn size(width: usize, height: usize) -> Result<[usize; 2], Refused> {
    if width == 0 || height == 0 {
        return broken(format!("it has {height}x{width} px (height x width)"));
    }
    match height.saturating_mul(width) > LIMIT_PX {
        true => Err(Refused::TooLarge { height, width }),
        false => Ok([height, width]),
    }
}

/// Memory for `len` samples, or an error where there is none.
pub(super) fn reserved(len: usize) -> Result<Vec<u8>, Refused> {
    let mut data = Vec::new();
    reserve(&mut data, len)?;
    Ok(data)
}

/// The same, of zeros.
pub(super) fn zeros(len: usize) -> Result<Vec<u8>, Refused> {
    let mut data = reserved(len)?;
    data.resize(len, 0);
    Ok(data)
}

impl Layout {
    pub(super) fn channels(self) -> Channels {
        match self {
            Self::Gray | Self::GreyAlpha => Channels::Gray,
            Self::Rgb | Self::Rgba => Channels::Rgb,
        }
    }

    /// Samples of a pixel.
    pub(super) fn samples(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GreyAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }

    /// Appends `samples` of eight bits, composited on white.
    pub(super) fn append(self, samples: &[u8], data: &mut Vec<u8>) {
        match self {
            Self::Gray | Self::Rgb => data.extend_from_slice(samples),
            Self::GreyAlpha => {
                let composite = |[level, alpha]: &[u8; 2]| on_white(*level, *alpha);
                data.extend(samples.as_chunks().0.iter().map(composite));
            }
            Self::Rgba => {
                let composite =
                    |[r, g, b, alpha]: &[u8; 4]| [r, g, b].map(|level| on_white(*level, *alpha));
                data.extend(samples.as_chunks().0.iter().flat_map(composite));
            }
        }
    }

    /// Samples of eight bits, composited on white.
    pub(super) fn flatten(
        self,
        samples: Vec<u8>,
        [height, width]: [usize; 2],
    ) -> Result<Vec<u8>, Refused> {
        if matches!(self, Self::Gray | Self::Rgb) {
            return Ok(samples);
        }
        let mut data = reserved(height * width * self.channels().count())?;
        self.append(&samples, &mut data);
        Ok(data)
    }
}

/// A sample of opacity `alpha / 255` over white, rounded to the nearest.
fn on_white(level: u8, alpha: u8) -> u8 {
    let (level, alpha) = (u32::from(level), u32::from(alpha));
    ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// A sample of sixteen bits, big-endian, rounded to eight: 257 to a step.
pub(super) fn eight_bits(sample: &[u8; 2]) -> u8 {
    ((u32::from(u16::from_be_bytes(*sample)) + 128) / 257) as u8
}
