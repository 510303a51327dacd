//! Sheets of heat maps over pictures, with lettering.

use crate::plot::colour;
use anyhow::Result;
use tessera::pictures::{Channels, Pixels};

/// Side in px of a cell at least.
const CELL: usize = 160;
/// Px around everything, and between cells.
const GAP: usize = 12;
/// Px of a dot of a letter.
const DOT: usize = 2;
/// A line of text with the space below it, in px.
const LINE: usize = 7 * DOT + 8;
/// Share of a map's colour where it lies over its picture.
const OPACITY: f64 = 0.62;
const INK: [u8; 3] = [40, 40, 40];

/// A picture, and values of its tokens in each column but the first.
#[derive(Debug, Clone)]
pub struct Row {
    pub picture: Pixels,
    pub caption: String,
    /// Row by row of the picture's tokens.
    pub maps: Vec<Vec<f64>>,
}

/// Rows of pictures with their maps, all in one scale of colours, which is below them.
///
/// # Errors
/// Never, if there is a row, every row has its maps, and every map is a square that divides its picture.
pub fn sheet(titles: &[String], rows: &[Row], scale: &str) -> Result<Pixels> {
    let side = rows.first().map_or(1, |row| row.picture.width());
    let factor = CELL.div_ceil(side);
    let cell = side * factor;
    let columns = titles.len();
    let [least, most] = range(
        rows.iter()
            .flat_map(|row| row.maps.iter().flatten().copied()),
    );
    let body = rows.len() * (cell + LINE + GAP);
    let width = GAP + columns * (cell + GAP);
    let mut canvas = Canvas::new(GAP + LINE + body + 2 * LINE + GAP, width);
    for (column, title) in titles.iter().enumerate() {
        canvas.text([GAP, GAP + column * (cell + GAP)], title, cell);
    }
    for (index, row) in rows.iter().enumerate() {
        let top = GAP + LINE + index * (cell + LINE + GAP);
        let colours = row.picture.data();
        let channels = row.picture.channels().count();
        let pixel = |at: usize| -> [u8; 3] {
            std::array::from_fn(|i| colours[at * channels + i % channels])
        };
        for at in 0..side * side {
            let corner = [top + at / side * factor, GAP + at % side * factor];
            canvas.fill(corner, [factor; 2], pixel(at));
        }
        canvas.text([top + cell + 5, GAP], &row.caption, cell);
        for (map, column) in row.maps.iter().zip(1..) {
            let left = GAP + column * (cell + GAP);
            let grid = map.len().isqrt();
            let token = side / grid.max(1);
            for at in 0..side * side {
                let (y, x) = (at / side, at % side);
                let value = map[y / token * grid + x / token];
                let heat = colour((value - least) / (most - least));
                let [red, green, blue] = pixel(at).map(f64::from);
                let grey = 0.299 * red + 0.587 * green + 0.114 * blue;
                let mixed =
                    heat.map(|heat| (OPACITY * f64::from(heat) + (1.0 - OPACITY) * grey) as u8);
                canvas.fill([top + y * factor, left + x * factor], [factor; 2], mixed);
            }
            let mean = map.iter().sum::<f64>() / map.len() as f64;
            canvas.text([top + cell + 5, left], &format!("mean {mean:.2}"), cell);
        }
    }
    let top = GAP + LINE + body;
    canvas.text([top, GAP], scale, width - 2 * GAP);
    let numbers = [least, most].map(|number| format!("{number:.2}"));
    let room = [0, 1].map(|i| letters(&numbers[i]) + GAP);
    let bar = width - 2 * GAP - room[0] - room[1];
    canvas.text([top + LINE, GAP], &numbers[0], width);
    for x in 0..bar {
        let heat = colour(x as f64 / bar as f64);
        canvas.fill([top + LINE, GAP + room[0] + x], [7 * DOT, 1], heat);
    }
    canvas.text([top + LINE, 2 * GAP + room[0] + bar], &numbers[1], width);
    canvas.finish()
}

/// Where the colours begin and end: the middle 98 % of the values, so that one odd token does not pale the others.
fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values.get((share * values.len() as f64) as usize);
    let least = at(0.01).copied().unwrap_or(0.0);
    let most = at(0.99).copied().unwrap_or(1.0);
    match most - least > 1e-9 {
        true => [least, most],
        false => [least, least + 1.0],
    }
}

/// Px that a text takes.
fn letters(text: &str) -> usize {
    text.chars().count() * 6 * DOT
}

/// White to draw on.
struct Canvas {
    height: usize,
    width: usize,
    data: Vec<u8>,
}

impl Canvas {
    fn new(height: usize, width: usize) -> Self {
        Self {
            height,
            width,
            data: vec![255; 3 * height * width],
        }
    }

    /// What lies outside is cut off.
    fn fill(&mut self, [top, left]: [usize; 2], [height, width]: [usize; 2], colour: [u8; 3]) {
        for y in top..(top + height).min(self.height) {
            for x in left..(left + width).min(self.width) {
                let at = 3 * (y * self.width + x);
                self.data[at..at + 3].copy_from_slice(&colour);
            }
        }
    }

    /// Writes what fits into `room` px.
    fn text(&mut self, [top, left]: [usize; 2], text: &str, room: usize) {
        let fits = (room + DOT) / letters("x");
        for (letter, place) in text.chars().take(fits).zip(0..) {
            for (bits, y) in glyph(letter).into_iter().zip(0..) {
                for x in (0..5).filter(|x| bits >> (4 - x) & 1 == 1) {
                    let corner = [top + y * DOT, left + (6 * place + x) * DOT];
                    self.fill(corner, [DOT; 2], INK);
                }
            }
        }
    }

    fn finish(self) -> Result<Pixels> {
        Ok(Pixels::new(
            self.height,
            self.width,
            Channels::Rgb,
            self.data,
        )?)
    }
}

/// Seven rows of five dots. Letters are capitals; what there is no shape for is a box.
fn glyph(letter: char) -> [u8; 7] {
    match letter.to_ascii_uppercase() {
        ' ' => [0; 7],
        'A' => [0x0e, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11],
        'B' => [0x1e, 0x11, 0x11, 0x1e, 0x11, 0x11, 0x1e],
        'C' => [0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e],
        'D' => [0x1e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1e],
        'E' => [0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x1f],
        'F' => [0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x10],
        'G' => [0x0e, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0e],
        'H' => [0x11, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11],
        'I' => [0x0e, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0e],
        'J' => [0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0c],
        'K' => [0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11],
        'L' => [0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1f],
        'M' => [0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11],
        'N' => [0x11, 0x11, 0x19, 0x15, 0x13, 0x11, 0x11],
        'O' => [0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e],
        'P' => [0x1e, 0x11, 0x11, 0x1e, 0x10, 0x10, 0x10],
        'Q' => [0x0e, 0x11, 0x11, 0x11, 0x15, 0x12, 0x0d],
        'R' => [0x1e, 0x11, 0x11, 0x1e, 0x14, 0x12, 0x11],
        'S' => [0x0f, 0x10, 0x10, 0x0e, 0x01, 0x01, 0x1e],
        'T' => [0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04],
        'U' => [0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e],
        'V' => [0x11, 0x11, 0x11, 0x11, 0x11, 0x0a, 0x04],
        'W' => [0x11, 0x11, 0x11, 0x15, 0x15, 0x15, 0x0a],
        'X' => [0x11, 0x11, 0x0a, 0x04, 0x0a, 0x11, 0x11],
        'Y' => [0x11, 0x11, 0x11, 0x0a, 0x04, 0x04, 0x04],
        'Z' => [0x1f, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1f],
        '0' => [0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e],
        '1' => [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e],
        '2' => [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f],
        '3' => [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e],
        '4' => [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02],
        '5' => [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e],
        '6' => [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e],
        '7' => [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08],
        '8' => [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e],
        '9' => [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c],
        '-' => [0x00, 0x00, 0x00, 0x1f, 0x00, 0x00, 0x00],
        '_' => [0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x1f],
        '.' => [0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x0c],
        ',' => [0x00, 0x00, 0x00, 0x00, 0x0c, 0x04, 0x08],
        '(' => [0x02, 0x04, 0x08, 0x08, 0x08, 0x04, 0x02],
        ')' => [0x08, 0x04, 0x02, 0x02, 0x02, 0x04, 0x08],
        ':' => [0x00, 0x0c, 0x0c, 0x00, 0x0c, 0x0c, 0x00],
        '/' => [0x00, 0x01, 0x02, 0x04, 0x08, 0x10, 0x00],
        _ => [0x1f, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1f],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_has_its_cells_and_the_hot_token_is_the_lightest() {
        let row = Row {
            picture: Pixels::new(4, 4, Channels::Gray, vec![0; 16]).unwrap(),
            caption: "Ålesund 1".into(),
            maps: vec![vec![0.0, 1.0, 2.0, 3.0]],
        };
        let titles = ["picture", "map"].map(String::from);
        let sheet = sheet(&titles, &[row], "experts of a token").unwrap();
        assert_eq!(sheet.width(), 3 * GAP + 2 * CELL);
        let at = |y: usize, x: usize| {
            let (y, x) = (GAP + LINE + y, 2 * GAP + CELL + x);
            let sum = |i: usize| usize::from(sheet.data()[3 * (y * sheet.width() + x) + i]);
            sum(0) + sum(1) + sum(2)
        };
        let corners = [at(1, 1), at(1, 150), at(150, 1), at(150, 150)];
        assert!(
            corners.is_sorted() && corners[0] < corners[3],
            "{corners:?}"
        );
    }

    #[test]
    fn values_that_are_all_the_same_have_a_range() {
        assert_eq!(range([2.0, 2.0].into_iter()), [2.0, 3.0]);
        assert_eq!(range([].into_iter()), [0.0, 1.0]);
    }
}
