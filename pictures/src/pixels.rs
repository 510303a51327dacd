//! A picture of 8-bit samples, and the one rule by which numbers become bytes.

use ndarray::{Array3, ArrayView3, Axis, Zip};

use crate::error::{Error, Result};

/// How many samples a pixel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channels {
    /// One: luminance.
    Gray = 1,
    /// Three: red, green, blue.
    Rgb = 3,
}

impl Channels {
    /// The number itself, 1 or 3.
    pub const fn count(self) -> usize {
        self as usize
    }
}

impl TryFrom<usize> for Channels {
    type Error = Error;

    fn try_from(count: usize) -> Result<Self> {
        match count {
            1 => Ok(Self::Gray),
            3 => Ok(Self::Rgb),
            _ => Err(Error::Shape {
                what: "channels",
                expected: "1 (gray) or 3 (RGB)".into(),
                found: count.to_string(),
            }),
        }
    }
}

/// A picture in memory: rows from the top, pixels from the left, channels innermost, samples in `[0, 255]`.
///
/// ```
/// use tessera_pictures::{Channels, Pixels};
///
/// let picture = Pixels::new(1, 2, Channels::Rgb, vec![0, 127, 255, 10, 20, 30])?;
/// let array = picture.to_array(); // [3, 1, 2], in [-1, 1]
/// assert_eq!(array[[0, 0, 0]], -1.0);
/// assert_eq!(Pixels::from_array(array.view())?, picture);
/// # Ok::<(), tessera_pictures::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels {
    height: usize,
    width: usize,
    channels: Channels,
    data: Vec<u8>,
}

impl std::fmt::Debug for Pixels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pixels({})", self.shape_text())
    }
}

impl Pixels {
    /// Takes `data` as `[height, width, channels]`; no side may be zero and the length must fit.
    pub fn new(height: usize, width: usize, channels: Channels, data: Vec<u8>) -> Result<Self> {
        let samples = height
            .checked_mul(width)
            .and_then(|pixels| pixels.checked_mul(channels.count()));
        if samples != Some(data.len()) || data.is_empty() {
            return Err(Error::Shape {
                what: "samples of a picture",
                expected: format!(
                    "height * width * channels = {height} * {width} * {}, not zero",
                    channels.count()
                ),
                found: data.len().to_string(),
            });
        }
        Ok(Self {
            height,
            width,
            channels,
            data,
        })
    }

    /// For callers inside the crate whose sizes are right by construction.
    pub(crate) fn from_parts(
        height: usize,
        width: usize,
        channels: Channels,
        data: Vec<u8>,
    ) -> Self {
        debug_assert_eq!(data.len(), height * width * channels.count());
        Self {
            height,
            width,
            channels,
            data,
        }
    }

    /// A picture of one color: every sample is `level`.
    pub(crate) fn filled(height: usize, width: usize, channels: Channels, level: u8) -> Self {
        let data = vec![level; height * width * channels.count()];
        Self {
            height,
            width,
            channels,
            data,
        }
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Gray or RGB.
    pub fn channels(&self) -> Channels {
        self.channels
    }

    /// The samples, `[height, width, channels]` in row-major order.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Gives the samples away, `[height, width, channels]` in row-major order.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// Samples in one row.
    pub(crate) fn stride(&self) -> usize {
        self.width * self.channels.count()
    }

    /// Row `y`, `[width, channels]`.
    pub(crate) fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.stride()..][..self.stride()]
    }

    /// For messages: height x width x channels.
    pub(crate) fn shape_text(&self) -> String {
        format!("{}x{}x{}", self.height, self.width, self.channels.count())
    }

    /// Fails unless `other` has the same height, width and channels.
    pub(crate) fn expect_same_shape(&self, other: &Self, what: &'static str) -> Result<()> {
        if (self.height, self.width, self.channels) == (other.height, other.width, other.channels) {
            return Ok(());
        }
        Err(Error::Shape {
            what,
            expected: self.shape_text(),
            found: other.shape_text(),
        })
    }

    /// The picture as the models take it: `(byte / 255 - 0.5) / 0.5` in f32, the operations and their order being those
    /// of the reference's loader (to unit range, then normalize with mean and deviation one half).
    ///
    /// # Shapes
    /// - returns: `[channels, height, width]`, in `[-1, 1]`
    pub fn to_array(&self) -> Array3<f32> {
        let unit: [f32; 256] = std::array::from_fn(|byte| (byte as f32 / 255.0 - 0.5) / 0.5);
        let shape = (self.height, self.width, self.channels.count());
        let samples = ArrayView3::from_shape(shape, &self.data)
            .expect("the constructor checked the length")
            .permuted_axes([2, 0, 1]);
        let mut array = Array3::zeros(samples.raw_dim());
        Zip::from(&mut array)
            .and(samples)
            .for_each(|value, byte| *value = unit[usize::from(*byte)]);
        array
    }

    /// The picture a model made. THE rounding rule of this workspace: `255 * (x + 1) / 2` in f32, rounded to the
    /// nearest integer, halves to the even one (as NumPy and PyTorch round), clamped to `[0, 255]`. rFID and PSNR
    /// depend on it.
    ///
    /// A NaN or an infinity is an error: a broken model must not pass for a black picture.
    ///
    /// # Shapes
    /// - `array`: `[channels, height, width]`, in `[-1, 1]`, channels 1 or 3
    pub fn from_array(array: ArrayView3<'_, f32>) -> Result<Self> {
        let (channels, height, width) = array.dim();
        let channels = Channels::try_from(channels)?;
        if let Some(((c, y, x), value)) = array.indexed_iter().find(|(_, value)| !value.is_finite())
        {
            return Err(Error::NotFinite {
                what: "picture",
                value: *value,
                index: [c, y, x],
            });
        }
        let samples = array.permuted_axes([1, 2, 0]);
        Self::new(
            height,
            width,
            channels,
            samples
                .iter()
                .map(|x| byte(255.0 * ((x + 1.0) / 2.0)))
                .collect(),
        )
    }

    /// The picture with the wanted channels: RGB to gray by Rec. 601 luma in the 16-bit fixed point of Pillow's mode
    /// `L`, gray to RGB by repetition.
    pub fn to_channels(&self, channels: Channels) -> Self {
        let data = match (self.channels, channels) {
            (Channels::Rgb, Channels::Gray) => {
                self.data.as_chunks::<3>().0.iter().map(luma).collect()
            }
            (Channels::Gray, Channels::Rgb) => {
                self.data.iter().flat_map(|level| [*level; 3]).collect()
            }
            _ => self.data.clone(),
        };
        Self::from_parts(self.height, self.width, channels, data)
    }

    /// Cuts `height` x `width` pixels from the middle; an odd remainder leaves the extra pixel below and on the right.
    /// Undoes [`Pixels::pad`].
    pub fn crop(&self, height: usize, width: usize) -> Result<Self> {
        if height == 0 || width == 0 || height > self.height || width > self.width {
            return Err(Error::Shape {
                what: "size of a crop",
                expected: format!("1x1 to {}x{}", self.height, self.width),
                found: format!("{height}x{width}"),
            });
        }
        let (top, left) = ((self.height - height) / 2, (self.width - width) / 2);
        let pixel = self.channels.count();
        let rows = (top..top + height).flat_map(|y| &self.row(y)[left * pixel..][..width * pixel]);
        Ok(Self::from_parts(
            height,
            width,
            self.channels,
            rows.copied().collect(),
        ))
    }

    /// Puts the picture in the middle of a black one, as 28x28 digits are put into 32x32 for a model that halves five
    /// times. An odd remainder leaves the extra pixel below and on the right.
    pub fn pad(&self, height: usize, width: usize) -> Result<Self> {
        if height < self.height || width < self.width {
            return Err(Error::Shape {
                what: "size of a padded picture",
                expected: format!("at least {}x{}", self.height, self.width),
                found: format!("{height}x{width}"),
            });
        }
        let mut padded = Self::filled(height, width, self.channels, 0);
        padded.paste(self, (height - self.height) / 2, (width - self.width) / 2);
        Ok(padded)
    }

    /// Copies `picture`, which must fit, so that its first pixel lands on row `top`, column `left`.
    pub(crate) fn paste(&mut self, picture: &Self, top: usize, left: usize) {
        let (stride, pixel) = (self.stride(), self.channels.count());
        for y in 0..picture.height {
            self.data[(top + y) * stride + left * pixel..][..picture.stride()]
                .copy_from_slice(picture.row(y));
        }
    }
}

/// Nearest integer, halves to even, clamped to a byte: the rounding of [`Pixels::from_array`].
pub(crate) fn byte(value: f32) -> u8 {
    value.round_ties_even().clamp(0.0, 255.0) as u8
}

/// Rec. 601 luma, weights 0.299, 0.587, 0.114 in units of 2^-16.
fn luma([red, green, blue]: &[u8; 3]) -> u8 {
    ((19595 * u32::from(*red) + 38470 * u32::from(*green) + 7471 * u32::from(*blue) + 0x8000) >> 16)
        as u8
}

/// One channel of a picture as f64, for the metrics.
///
/// # Shapes
/// - returns: `[height, width]`, in `[0, 255]`
pub(crate) fn plane(picture: &Pixels, channel: usize) -> ndarray::Array2<f64> {
    let shape = (picture.height, picture.width, picture.channels.count());
    let samples =
        ArrayView3::from_shape(shape, &picture.data).expect("the constructor checked the length");
    samples.index_axis(Axis(2), channel).mapv(f64::from)
}
