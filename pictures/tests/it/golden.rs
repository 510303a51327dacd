//! Against Pillow and scikit-image; the files are made by `tests/fixtures/gen/*.py`.

use std::path::Path;

use safetensors::{SafeTensors, tensor::TensorView};
use tessera_pictures::{Channels, Filter, Pixels, center_crop, psnr, resize, ssim};

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name),
    )
    .unwrap()
}

fn pixels(tensor: &TensorView) -> Pixels {
    let [height, width, channels] = *tensor.shape() else {
        panic!("not a picture")
    };
    Pixels::new(
        height,
        width,
        Channels::try_from(channels).unwrap(),
        tensor.data().to_vec(),
    )
    .unwrap()
}

fn number(tensor: &TensorView) -> f64 {
    f64::from_le_bytes(tensor.data().try_into().unwrap())
}

#[track_caller]
fn assert_equal(name: &str, ours: &Pixels, golden: &Pixels) {
    assert_eq!(
        (ours.height(), ours.width()),
        (golden.height(), golden.width()),
        "{name}"
    );
    let differing = ours
        .data()
        .iter()
        .zip(golden.data())
        .filter(|(a, b)| a != b)
        .count();
    assert_eq!(
        differing,
        0,
        "{name}: samples that differ of {}",
        golden.data().len()
    );
}

/// Runs `make` on each `<kind>.<shape>.<target>.input` and asserts that it gives `.output`, exactly.
fn assert_all_equal(kind: &str, expected_cases: usize, make: impl Fn(&Pixels, &str) -> Pixels) {
    let bytes = fixture("crop.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut cases = 0;
    for name in file.names() {
        let Some(case) = name
            .strip_suffix(".input")
            .filter(|case| case.starts_with(kind))
        else {
            continue;
        };
        let target = case.rsplit('.').next().unwrap();
        let input = pixels(&file.tensor(name).unwrap());
        let golden = pixels(&file.tensor(&format!("{case}.output")).unwrap());
        assert_equal(case, &make(&input, target), &golden);
        cases += 1;
    }
    assert_eq!(cases, expected_cases, "cases named {kind}");
}

fn resized(filter: Filter) -> impl Fn(&Pixels, &str) -> Pixels {
    move |input, target| {
        let (height, width) = target.split_once('x').unwrap();
        resize(
            input,
            height.parse().unwrap(),
            width.parse().unwrap(),
            filter,
        )
        .unwrap()
    }
}

#[test]
fn center_crop_equals_the_reference_with_pillow_exactly() {
    assert_all_equal("crop.", 13, |input, size| {
        center_crop(input, size.parse().unwrap()).unwrap()
    });
}

#[test]
fn the_bicubic_filter_equals_pillow_exactly() {
    assert_all_equal("bicubic.", 4, resized(Filter::Bicubic));
}

#[test]
fn the_box_filter_equals_pillow_exactly() {
    assert_all_equal("box.", 3, resized(Filter::Box));
}

#[test]
fn grey_of_rgb_equals_pillows_luma_exactly() {
    let bytes = fixture("metrics.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["noise", "blur", "one_window"] {
        let input = pixels(&file.tensor(&format!("{name}.a")).unwrap());
        let golden = pixels(&file.tensor(&format!("{name}.luma")).unwrap());
        assert_equal(name, &input.to_channels(Channels::Gray), &golden);
    }
}

/// Tolerance: both compute in f64 and differ in the order of the sums only.
#[test]
fn psnr_and_ssim_equal_scikit_image_to_1e_10() {
    let bytes = fixture("metrics.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["noise", "blur", "grey", "one_window"] {
        let tensor = |part: &str| file.tensor(&format!("{name}.{part}")).unwrap();
        let (a, b) = (pixels(&tensor("a")), pixels(&tensor("b")));
        for (metric, ours, golden) in [
            ("psnr", psnr(&a, &b).unwrap(), number(&tensor("psnr"))),
            ("ssim", ssim(&a, &b).unwrap(), number(&tensor("ssim"))),
        ] {
            assert!(
                (ours - golden).abs() < 1e-10,
                "{name} {metric}: {ours}, expected {golden}"
            );
        }
    }
}
