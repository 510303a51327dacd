//! A data set in MNIST's format: made up when Fashion-MNIST is not there, or the beginning of one that is.

use anyhow::{Result, bail};

/// The classes of [`images`]: two shapes in five sizes.
pub const CLASSES: [&str; 10] = [
    "disc 1", "disc 2", "disc 3", "disc 4", "disc 5", "square 1", "square 2", "square 3",
    "square 4", "square 5",
];

/// Side of an image in px.
pub const SIDE: usize = 28;

/// An IDX file of bytes: two zeros, the type, the number of axes, their lengths, the values.
pub fn idx(shape: &[usize], values: &[u8]) -> Vec<u8> {
    const UNSIGNED_BYTE: u8 = 0x08;
    let mut file = vec![0, 0, UNSIGNED_BYTE, shape.len() as u8];
    file.extend(
        shape
            .iter()
            .flat_map(|&length| (length as u32).to_be_bytes()),
    );
    file.extend_from_slice(values);
    file
}

/// The first `count` items of an IDX file of bytes, or all if there are fewer.
///
/// # Errors
/// If it is no such file, or shorter than its head says.
pub fn first(file: &[u8], count: usize) -> Result<Vec<u8>> {
    let [0, 0, 0x08, axes, rest @ ..] = file else {
        bail!(
            "expected an IDX file of bytes, found {:?}…",
            &file[..file.len().min(4)]
        );
    };
    let Some((lengths, values)) = rest.split_at_checked(4 * usize::from(*axes)) else {
        bail!("the file ends within its head");
    };
    let lengths = lengths.chunks_exact(4);
    let mut shape: Vec<usize> = lengths
        .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
        .collect();
    let Some(items) = shape.first_mut() else {
        bail!("an IDX file without axes");
    };
    *items = count.min(*items);
    let size = shape.iter().product();
    match values.get(..size) {
        Some(values) => Ok(idx(&shape, values)),
        None => bail!("expected {size} values, found {}", values.len()),
    }
}

/// Images `[count, 28, 28]` and labels `[count]` as IDX files: shapes of random place and brightness, decided by the
/// seed alone.
pub fn images(count: usize, seed: u64) -> (Vec<u8>, Vec<u8>) {
    let mut noise = SplitMix(seed);
    // Shifted by one every round: whoever takes every tenth image still gets every class.
    let label = |i: usize| ((i + i / CLASSES.len()) % CLASSES.len()) as u8;
    let labels: Vec<u8> = (0..count).map(label).collect();
    let pixels: Vec<u8> = labels
        .iter()
        .flat_map(|&label| draw(label, &mut noise))
        .collect();
    (idx(&[count, SIDE, SIDE], &pixels), idx(&[count], &labels))
}

fn draw(class: u8, noise: &mut SplitMix) -> Vec<u8> {
    let radius = 3.0 + 2.0 * f64::from(class % 5);
    let mut center = || 13.5 + 3.0 * (noise.uniform() - 0.5);
    let (x0, y0) = (center(), center());
    let brightness = 128.0 + 127.0 * noise.uniform();
    let pixel = |i: usize| {
        let (dx, dy) = ((i % SIDE) as f64 - x0, (i / SIDE) as f64 - y0);
        let distance = match class < 5 {
            true => dx.hypot(dy),
            false => dx.abs().max(dy.abs()),
        };
        // Half a pixel on either side of the edge is gray, as in a photograph.
        (brightness * (radius + 0.5 - distance).clamp(0.0, 1.0)) as u8
    };
    (0..SIDE * SIDE).map(pixel).collect()
}

/// Steele, Lea and Flood's generator (2014), because xtask links no crate of ours.
struct SplitMix(u64);

impl SplitMix {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idx_file_begins_with_its_type_and_its_shape() {
        let file = idx(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(file, [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn the_first_items_are_a_file_of_their_own() {
        let file = idx(&[3, 2], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(first(&file, 2).unwrap(), idx(&[2, 2], &[1, 2, 3, 4]));
        assert_eq!(first(&file, 9).unwrap(), file);
    }

    #[test]
    fn a_file_that_is_no_idx_or_too_short_is_refused() {
        let file = idx(&[3, 2], &[1, 2, 3, 4, 5, 6]);
        for broken in [
            &b"\x1f\x8b\x08\x00"[..],
            b"",
            &file[..7],
            &file[..15],
            b"\0\0\x08\0",
        ] {
            assert!(first(broken, 3).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn images_are_decided_by_the_seed_and_every_class_is_there() {
        let (pixels, labels) = images(20, 7);
        assert_eq!((pixels.len(), labels.len()), (16 + 20 * 784, 8 + 20));
        assert_eq!(labels[8..18], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let tenth =
            |(_, labels): (_, Vec<u8>)| labels[8..].iter().copied().step_by(10).collect::<Vec<_>>();
        assert_eq!(tenth(images(100, 7)), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(images(20, 7).0, pixels);
        assert_ne!(images(20, 8).0, pixels);
    }

    #[test]
    fn a_larger_class_covers_more_and_a_square_more_than_a_disc() {
        let ink = |class| {
            draw(class, &mut SplitMix(1))
                .iter()
                .filter(|&&p| p > 0)
                .count()
        };
        for class in [0, 1, 2, 3, 5, 6, 7, 8] {
            assert!(ink(class) < ink(class + 1), "{class}");
        }
        for class in 1..5 {
            assert!(ink(class) < ink(class + 5), "{class}");
        }
    }
}
