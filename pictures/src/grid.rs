//! Contact sheets: pictures side by side, and the difference of two.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::pixels::{Channels, Pixels, byte};

/// How a grid looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridStyle {
    /// Pixels between cells and around them.
    pub gap: usize,
    /// Pixels that the longer side of a cell has at least: smaller pictures are enlarged by a whole factor, each pixel
    /// becoming a square, so that a person sees something. 0 or 1 enlarges nothing.
    pub min_cell: usize,
    /// The gray level, in `[0, 255]`, of gaps and of cells left over in the last row.
    pub background: u8,
}

impl Default for GridStyle {
    fn default() -> Self {
        Self {
            gap: 2,
            min_cell: 128,
            background: 255,
        }
    }
}

/// The pictures in rows of `columns`, from the top left; fewer pictures than columns make a narrower grid.
///
/// The grid is RGB if any picture is. No pictures, no columns, or pictures of unequal sizes are errors.
pub fn grid(cells: &[Pixels], columns: usize, style: GridStyle) -> Result<Pixels> {
    let Some(first) = cells.first() else {
        return Err(Error::Shape {
            what: "pictures of a grid",
            expected: "at least 1".into(),
            found: "0".into(),
        });
    };
    if columns == 0 {
        return Err(Error::Shape {
            what: "columns of a grid",
            expected: "at least 1".into(),
            found: "0".into(),
        });
    }
    let (height, width) = (first.height(), first.width());
    if let Some((index, odd)) = cells
        .iter()
        .enumerate()
        .find(|(_, cell)| (cell.height(), cell.width()) != (height, width))
    {
        return Err(Error::Shape {
            what: "pictures of a grid",
            expected: format!("all {height}x{width} as the first"),
            found: format!("{}x{} at index {index}", odd.height(), odd.width()),
        });
    }

    let factor = style.min_cell.div_ceil(height.max(width)).max(1);
    let (cell_height, cell_width) = (height * factor, width * factor);
    let columns = columns.min(cells.len());
    let rows = cells.len().div_ceil(columns);
    let channels = cells
        .iter()
        .map(Pixels::channels)
        .max()
        .unwrap_or(Channels::Gray);
    let side = |count: usize, cell: usize| count * (cell + style.gap) + style.gap;
    let mut sheet = Pixels::filled(
        side(rows, cell_height),
        side(columns, cell_width),
        channels,
        style.background,
    );
    for (index, cell) in cells.iter().enumerate() {
        let (row, column) = (index / columns, index % columns);
        let cell = enlarged(cell, channels, factor);
        sheet.paste(
            &cell,
            style.gap + row * (cell_height + style.gap),
            style.gap + column * (cell_width + style.gap),
        );
    }
    Ok(sheet)
}

/// Each pixel a square of `factor` x `factor` pixels.
fn enlarged(picture: &Pixels, channels: Channels, factor: usize) -> Cow<'_, Pixels> {
    if picture.channels() != channels {
        return Cow::Owned(enlarged(&picture.to_channels(channels), channels, factor).into_owned());
    }
    if factor == 1 {
        return Cow::Borrowed(picture);
    }
    let (height, width, pixel) = (
        picture.height() * factor,
        picture.width() * factor,
        channels.count(),
    );
    let mut data = Vec::with_capacity(height * width * pixel);
    for y in 0..picture.height() {
        let start = data.len();
        for sample in picture.row(y).chunks_exact(pixel) {
            (0..factor).for_each(|_| data.extend_from_slice(sample));
        }
        let row = start..data.len();
        (1..factor).for_each(|_| data.extend_from_within(row.clone()));
    }
    Cow::Owned(Pixels::from_parts(height, width, channels, data))
}

/// `gain * |a - b|` sample by sample, rounded by the rule of [`Pixels::from_array`]: black where the pictures agree.
/// Unequal shapes are an error.
pub fn difference(a: &Pixels, b: &Pixels, gain: f32) -> Result<Pixels> {
    a.expect_same_shape(b, "second picture of a difference")?;
    let distances = a
        .data()
        .iter()
        .zip(b.data())
        .map(|(a, b)| byte(gain * f32::from(a.abs_diff(*b))));
    Ok(Pixels::from_parts(
        a.height(),
        a.width(),
        a.channels(),
        distances.collect(),
    ))
}
