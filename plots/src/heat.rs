//! Sheets of heat maps over pictures, with lettering.

use crate::colors::color;
use crate::error::Result;
use tessera_pictures::{Canvas, Pixels};

/// Side in px of a cell at least.
const CELL: usize = 160;
/// Px around everything, and between cells.
const GAP: usize = 12;
/// A line of text with the space below it, in px.
const LINE: usize = Canvas::LETTER_HEIGHT + 8;
/// Share of a map's color where it lies over its picture.
const OPACITY: f64 = 0.62;

/// A picture, and values of its tokens in each column but the first.
#[derive(Debug, Clone)]
pub struct Row {
    /// A square, the same side in all rows.
    pub picture: Pixels,
    /// Below the picture.
    pub caption: String,
    /// Row by row of the picture's tokens.
    pub maps: Vec<Vec<f64>>,
}

/// Rows of pictures with their maps, all in one scale of colors, which is below them.
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
        let colors = row.picture.data();
        let channels = row.picture.channels().count();
        let pixel = |at: usize| -> [u8; 3] {
            std::array::from_fn(|i| colors[at * channels + i % channels])
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
                let heat = color((value - least) / (most - least));
                let [red, green, blue] = pixel(at).map(f64::from);
                let gray = 0.299 * red + 0.587 * green + 0.114 * blue;
                let mixed =
                    heat.map(|heat| (OPACITY * f64::from(heat) + (1.0 - OPACITY) * gray) as u8);
                canvas.fill([top + y * factor, left + x * factor], [factor; 2], mixed);
            }
            let mean = map.iter().sum::<f64>() / map.len() as f64;
            canvas.text([top + cell + 5, left], &format!("mean {mean:.2}"), cell);
        }
    }
    let top = GAP + LINE + body;
    canvas.text([top, GAP], scale, width - 2 * GAP);
    let numbers = [least, most].map(|number| format!("{number:.2}"));
    let room = [0, 1].map(|i| Canvas::text_width(&numbers[i]) + GAP);
    let bar = width - 2 * GAP - room[0] - room[1];
    canvas.text([top + LINE, GAP], &numbers[0], width);
    for x in 0..bar {
        let heat = color(x as f64 / bar as f64);
        canvas.fill(
            [top + LINE, GAP + room[0] + x],
            [Canvas::LETTER_HEIGHT, 1],
            heat,
        );
    }
    canvas.text([top + LINE, 2 * GAP + room[0] + bar], &numbers[1], width);
    Ok(canvas.finish()?)
}

/// Where the colors begin and end: the middle 98 % of the values, so that one odd token does not pale the others.
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
