//! White to draw on: rectangles, and lettering of 5 x 7 dots.

use crate::{Channels, Pixels, Result};

/// Px of a dot of a letter.
const DOT: usize = 2;
/// The color of letters.
const INK: [u8; 3] = [40, 40, 40];

/// A picture that is drawn on, white at first. What lies outside is cut off.
///
/// ```
/// use tessera_pictures::Canvas;
///
/// let mut canvas = Canvas::new(20, 60);
/// canvas.fill([0, 0], [3, 60], [0, 90, 160]); // a bar at the top, of 3 x 60 px
/// canvas.text([5, 2], "bag", 58);
/// assert_eq!(canvas.finish()?.data()[..3], [0, 90, 160]);
/// # Ok::<(), tessera_pictures::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Canvas {
    height: usize,
    width: usize,
    data: Vec<u8>,
}

impl Canvas {
    /// Height of a letter in px.
    pub const LETTER_HEIGHT: usize = 7 * DOT;

    /// A white one; sides in px.
    pub fn new(height: usize, width: usize) -> Self {
        Self {
            height,
            width,
            data: vec![255; 3 * height * width],
        }
    }

    /// Px that a text takes in a line.
    pub fn text_width(text: &str) -> usize {
        text.chars().count() * 6 * DOT
    }

    /// Fills a rectangle with a color; all in px.
    pub fn fill(&mut self, [top, left]: [usize; 2], [height, width]: [usize; 2], color: [u8; 3]) {
        for y in top..(top + height).min(self.height) {
            for x in left..(left + width).min(self.width) {
                let at = 3 * (y * self.width + x);
                self.data[at..at + 3].copy_from_slice(&color);
            }
        }
    }

    /// Writes as much of a text as fits into `room` px.
    pub fn text(&mut self, [top, left]: [usize; 2], text: &str, room: usize) {
        let fits = (room + DOT) / Self::text_width("x");
        for (letter, place) in text.chars().take(fits).zip(0..) {
            for (bits, y) in glyph(letter).into_iter().zip(0..) {
                for x in (0..5).filter(|x| bits >> (4 - x) & 1 == 1) {
                    let corner = [top + y * DOT, left + (6 * place + x) * DOT];
                    self.fill(corner, [DOT; 2], INK);
                }
            }
        }
    }

    /// The picture, in color.
    ///
    /// # Errors
    /// When a side is zero.
    pub fn finish(self) -> Result<Pixels> {
        Pixels::new(self.height, self.width, Channels::Rgb, self.data)
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

    /// How many px have the color of letters.
    fn inked(canvas: Canvas) -> usize {
        let picture = canvas.finish().unwrap();
        picture
            .data()
            .chunks(3)
            .filter(|&color| color == INK)
            .count()
    }

    #[test]
    fn a_text_is_cut_at_its_room_and_at_the_edge() {
        let mut canvas = Canvas::new(Canvas::LETTER_HEIGHT, 100);
        canvas.text([0, 0], "--", Canvas::text_width("-"));
        assert_eq!(inked(canvas), 5 * DOT * DOT);
        let mut canvas = Canvas::new(Canvas::LETTER_HEIGHT, 3 * DOT);
        canvas.text([0, 0], "--", 100);
        assert_eq!(inked(canvas), 3 * DOT * DOT);
    }

    #[test]
    fn a_letter_without_a_shape_is_a_box_and_small_ones_are_capitals() {
        let ink = |text: &str| {
            let mut canvas = Canvas::new(20, 40);
            canvas.text([0, 0], text, 40);
            inked(canvas)
        };
        assert_eq!(ink("\u{c5}"), 20 * DOT * DOT);
        assert_eq!(ink("ag"), ink("AG"));
        assert_eq!(ink(" "), 0);
    }
}
