//! What holds for every picture.

use ndarray::Array3;
use proptest::prelude::*;
use tempfile::tempdir;
use tessera_pictures::{
    Channels, Error, Existing, Filter, GridStyle, Pixels, center_crop, difference, grid, psnr,
    psnr_array, read, read_metadata, resize, ssim, write_png,
};

use crate::support::picture;

fn channels() -> impl Strategy<Value = Channels> {
    prop_oneof![Just(Channels::Gray), Just(Channels::Rgb)]
}

fn sized(height: usize, width: usize, channels: Channels) -> impl Strategy<Value = Pixels> {
    prop::collection::vec(any::<u8>(), height * width * channels.count())
        .prop_map(move |data| Pixels::new(height, width, channels, data).unwrap())
}

fn pictures() -> impl Strategy<Value = Pixels> {
    (1..24_usize, 1..24_usize, channels())
        .prop_flat_map(|(height, width, channels)| sized(height, width, channels))
}

fn pairs() -> impl Strategy<Value = (Pixels, Pixels)> {
    (11..20_usize, 11..20_usize, channels()).prop_flat_map(|(height, width, channels)| {
        (
            sized(height, width, channels),
            sized(height, width, channels),
        )
    })
}

/// Printable Latin-1, other letters and line breaks.
const TEXT: &str = "[ -~\u{a1}-\u{ff}\u{3b1}-\u{3c9}\u{1f600}-\u{1f610}\r\n\t]{0,40}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_to_floats_and_back_is_exact(pixels in pictures()) {
        let array = pixels.to_array();
        prop_assert_eq!(array.dim(), (pixels.channels().count(), pixels.height(), pixels.width()));
        prop_assert!(array.iter().all(|value| (-1.0..=1.0).contains(value)));
        prop_assert_eq!(Pixels::from_array(array.view()).unwrap(), pixels);
    }

    #[test]
    fn a_written_picture_is_read_back_with_its_metadata(pixels in pictures(), plain in "[ -~]{0,30}", any in TEXT) {
        let folder = tempdir().unwrap();
        let path = folder.path().join("a.png");
        write_png(&path, &pixels, &[("plain", &plain), ("any", &any)], Existing::Keep).unwrap();
        prop_assert_eq!(read(&path, None).unwrap(), pixels);
        let expected = vec![("plain".to_string(), plain), ("any".to_string(), any)];
        prop_assert_eq!(read_metadata(&path).unwrap(), expected);
    }

    #[test]
    fn a_center_crop_has_the_size_asked_for(pixels in pictures(), size in 1..40_usize) {
        let crop = center_crop(&pixels, size).unwrap();
        prop_assert_eq!((crop.height(), crop.width(), crop.channels()), (size, size, pixels.channels()));
    }

    #[test]
    fn resizing_a_flat_picture_keeps_its_color(level: u8, height in 1..40_usize, width in 1..40_usize) {
        let flat = Pixels::new(7, 9, Channels::Rgb, vec![level; 7 * 9 * 3]).unwrap();
        for filter in [Filter::Box, Filter::Bicubic] {
            let resized = resize(&flat, height, width, filter).unwrap();
            prop_assert!(resized.data().iter().all(|sample| *sample == level));
        }
    }

    #[test]
    fn resizing_to_the_same_size_changes_nothing(pixels in pictures()) {
        for filter in [Filter::Box, Filter::Bicubic] {
            prop_assert_eq!(&resize(&pixels, pixels.height(), pixels.width(), filter).unwrap(), &pixels);
        }
    }

    #[test]
    fn a_crop_undoes_a_padding(pixels in pictures(), more in (0..9_usize, 0..9_usize)) {
        let padded = pixels.pad(pixels.height() + more.0, pixels.width() + more.1).unwrap();
        prop_assert_eq!(padded.crop(pixels.height(), pixels.width()).unwrap(), pixels);
    }

    #[test]
    fn grey_to_rgb_and_back_changes_nothing(pixels in pictures()) {
        let gray = pixels.to_channels(Channels::Gray);
        prop_assert_eq!(gray.to_channels(Channels::Rgb).to_channels(Channels::Gray), gray);
    }

    #[test]
    fn metrics_are_symmetric_and_perfect_on_identical_pictures((a, b) in pairs()) {
        prop_assert_eq!(psnr(&a, &b).unwrap(), psnr(&b, &a).unwrap());
        prop_assert_eq!(psnr(&a, &a).unwrap(), f64::INFINITY);
        prop_assert!((ssim(&a, &b).unwrap() - ssim(&b, &a).unwrap()).abs() < 1e-12);
        prop_assert!((ssim(&a, &a).unwrap() - 1.0).abs() < 1e-12);
        prop_assert!((-1.0..1.0).contains(&ssim(&a, &b).unwrap()));
    }

    /// Tolerance: the arrays are f32.
    #[test]
    fn psnr_of_arrays_is_that_of_bytes((a, b) in pairs()) {
        let of_arrays = psnr_array(a.to_array().view(), b.to_array().view()).unwrap();
        prop_assert!((of_arrays - psnr(&a, &b).unwrap()).abs() < 1e-4);
    }

    #[test]
    fn a_grid_holds_every_cell_at_its_place(
        count in 1..8_usize, columns in 1..5_usize, gap in 0..4_usize, min_cell in 0..20_usize, background: u8,
    ) {
        let (height, width) = (3, 5);
        let cell = |index| picture(height, width + index, Channels::Gray).crop(height, width).unwrap();
        let cells: Vec<_> = (0..count).map(cell).collect();
        let sheet = grid(&cells, columns, GridStyle { gap, min_cell, background }).unwrap();
        let factor = min_cell.div_ceil(width).max(1);
        let (columns, rows) = (columns.min(count), count.div_ceil(columns.min(count)));
        prop_assert_eq!(sheet.height(), rows * (height * factor + gap) + gap);
        prop_assert_eq!(sheet.width(), columns * (width * factor + gap) + gap);
        for (y, line) in sheet.data().chunks_exact(sheet.width()).enumerate() {
            for (x, sample) in line.iter().enumerate() {
                let (row, column) = (y / (height * factor + gap), x / (width * factor + gap));
                let (inside_y, inside_x) = (y % (height * factor + gap), x % (width * factor + gap));
                let cell = (inside_y >= gap && inside_x >= gap)
                    .then(|| cells.get(row * columns + column))
                    .flatten();
                let expected = cell.map_or(background, |cell| {
                    cell.data()[(inside_y - gap) / factor * width + (inside_x - gap) / factor]
                });
                prop_assert_eq!(*sample, expected, "row {}, column {}", y, x);
            }
        }
    }
}

#[test]
fn halves_round_to_the_even_byte_and_what_is_outside_is_clamped() {
    let scaled = |x: f32| 255.0 * ((x + 1.0) / 2.0);
    assert_eq!(
        (scaled(0.0), scaled(-0.4)),
        (127.5, 76.5),
        "halves, exactly"
    );
    let values = vec![0.0, -0.4, -1.0, 1.0, -1.01, 1.01, -7.0, 7.0];
    let array = Array3::from_shape_vec((1, 2, 4), values).unwrap();
    let pixels = Pixels::from_array(array.view()).unwrap();
    assert_eq!(pixels.data(), [128, 76, 0, 255, 0, 255, 0, 255]);
}

#[test]
fn a_value_that_is_not_finite_is_an_error_and_not_a_black_pixel() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut array = Array3::zeros((3, 2, 2));
        array[[1, 0, 1]] = bad;
        let error = Pixels::from_array(array.view()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::NotFinite {
                    index: [1, 0, 1],
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(psnr_array(array.view(), Array3::zeros((3, 2, 2)).view()).is_err());
    }
}

#[test]
fn digits_are_padded_two_black_pixels_on_each_side() {
    let digit = Pixels::new(28, 28, Channels::Gray, vec![9; 28 * 28]).unwrap();
    let padded = digit.pad(32, 32).unwrap();
    let inside = |y: usize, x: usize| (2..30).contains(&y) && (2..30).contains(&x);
    for (index, sample) in padded.data().iter().enumerate() {
        assert_eq!(*sample, if inside(index / 32, index % 32) { 9 } else { 0 });
    }
}

#[test]
fn a_difference_is_black_where_the_pictures_agree() {
    let a = Pixels::new(1, 4, Channels::Gray, vec![10, 10, 0, 255]).unwrap();
    let b = Pixels::new(1, 4, Channels::Gray, vec![10, 13, 200, 0]).unwrap();
    assert_eq!(difference(&a, &b, 1.0).unwrap().data(), [0, 3, 200, 255]);
    assert_eq!(difference(&b, &a, 2.5).unwrap().data(), [0, 8, 255, 255]);
}

#[test]
fn a_grid_with_one_color_picture_is_rgb() {
    let cells = [picture(2, 2, Channels::Gray), picture(2, 2, Channels::Rgb)];
    let sheet = grid(
        &cells,
        2,
        GridStyle {
            gap: 0,
            min_cell: 0,
            background: 0,
        },
    )
    .unwrap();
    assert_eq!(sheet.channels(), Channels::Rgb);
    let gray = picture(2, 2, Channels::Gray).to_channels(Channels::Rgb);
    assert_eq!(sheet.crop(2, 4).unwrap().data()[..6], gray.data()[..6]);
}

#[test]
fn shapes_that_do_not_fit_are_errors_that_say_both() {
    let (a, b) = (picture(4, 5, Channels::Rgb), picture(5, 4, Channels::Rgb));
    let style = GridStyle::default();
    let big = picture(20, 20, Channels::Gray);
    for (message, found) in [
        (
            psnr(&a, &b).unwrap_err().to_string(),
            "expected 4x5x3, found 5x4x3",
        ),
        (
            difference(&a, &b, 1.0).unwrap_err().to_string(),
            "expected 4x5x3, found 5x4x3",
        ),
        (
            ssim(&a, &a).unwrap_err().to_string(),
            "expected at least 11x11, found 4x5",
        ),
        (
            ssim(&big, &a).unwrap_err().to_string(),
            "expected 20x20x1, found 4x5x3",
        ),
        (
            grid(&[a.clone(), b], 2, style).unwrap_err().to_string(),
            "all 4x5 as the first, found 5x4 at index 1",
        ),
        (
            grid(&[], 2, style).unwrap_err().to_string(),
            "expected at least 1, found 0",
        ),
        (
            grid(std::slice::from_ref(&a), 0, style)
                .unwrap_err()
                .to_string(),
            "expected at least 1, found 0",
        ),
        (
            a.pad(3, 9).unwrap_err().to_string(),
            "expected at least 4x5, found 3x9",
        ),
        (
            a.crop(3, 9).unwrap_err().to_string(),
            "expected 1x1 to 4x5, found 3x9",
        ),
        (
            center_crop(&a, 0).unwrap_err().to_string(),
            "expected at least 1, found 0",
        ),
        (
            Pixels::new(2, 2, Channels::Rgb, vec![0; 11])
                .unwrap_err()
                .to_string(),
            "= 2 * 2 * 3, not zero, found 11",
        ),
        (
            Pixels::new(0, 2, Channels::Rgb, vec![])
                .unwrap_err()
                .to_string(),
            "not zero, found 0",
        ),
        (
            Channels::try_from(4).unwrap_err().to_string(),
            "expected 1 (gray) or 3 (RGB), found 4",
        ),
    ] {
        assert!(
            message.contains(found),
            "{message:?} should contain {found:?}"
        );
    }
}
