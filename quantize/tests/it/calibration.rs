//! Two passes over latents, and the file that keeps what they found.

use ndarray::{Array4, Axis, concatenate, s};
use serde_json::{Value, json};
use tessera_quantize::{
    Calibration, CalibrationBuilder, Error, Moments, MomentsBuilder, Quantizer, ScaleBy,
};

use crate::noise::normal;

pub fn moments(latents: &Array4<f32>) -> Moments {
    let mut builder = MomentsBuilder::new();
    builder.add(latents.view()).unwrap();
    builder.finish().unwrap()
}

pub fn calibrate(latents: &Array4<f32>, bits: u8, scale_by: ScaleBy) -> Calibration {
    let moments = moments(latents);
    let quantizer = Quantizer::new(moments.quantizer_config(bits, 5.0, scale_by)).unwrap();
    let mut builder = CalibrationBuilder::new(&moments, &quantizer).unwrap();
    builder.add(latents.view()).unwrap();
    builder.finish().unwrap()
}

fn close(found: f32, expected: f32, tolerance: f32) -> bool {
    (found - expected).abs() <= tolerance * expected.abs()
}

/// Entropies and errors of the reference's tables on N(0, 1), by integration.
#[test]
fn gaussian_latents_cost_the_bits_and_the_error_that_the_tables_predict() {
    let latents = normal(1, (256, 16, 16, 16));
    for (bits, entropy, mse) in [
        (3, 2.702, 4.04e-2),
        (4, 3.717, 1.028e-2),
        (5, 4.722, 2.603e-3),
        (6, 5.724, 6.56e-4),
    ] {
        let calibration = calibrate(&latents, bits, ScaleBy::Global);
        let Calibration {
            entropy_bits,
            mse: found,
            clip_rate,
            ..
        } = calibration;
        println!("{bits} bits: entropy {entropy_bits}, mse {found:e}, clip rate {clip_rate:e}");
        assert!(
            close(entropy_bits, entropy, 0.001),
            "{bits} bits: {entropy_bits}"
        );
        assert!(close(found, mse, 0.01), "{bits} bits: {found}");
        assert!(clip_rate < 5e-6); // two-sided tail beyond 5 σ: 5.7e-7
        assert!(
            calibration
                .dimensions
                .iter()
                .all(|dimension| dimension.code_usage == 1.0)
        );
    }
}

#[test]
fn moments_survive_an_offset_that_dwarfs_the_spread() {
    let mut latents = normal(2, (64, 2, 8, 8));
    latents
        .slice_mut(s![.., 0, .., ..])
        .mapv_inplace(|x| 1000.0 + 0.25 * x);
    latents
        .slice_mut(s![.., 1, .., ..])
        .mapv_inplace(|x| -8.9 + 8.8 * x);
    let Moments {
        images,
        mean,
        std,
        latent_mean,
        latent_std,
        ..
    } = moments(&latents);
    assert_eq!(images, 64);
    assert!(
        close(mean[0], 1000.0, 1e-4) && close(std[0], 0.25, 0.03),
        "{} {}",
        mean[0],
        std[0]
    );
    assert!(
        close(mean[1], -8.9, 0.05) && close(std[1], 8.8, 0.03),
        "{} {}",
        mean[1],
        std[1]
    );
    assert!(close(latent_mean, 0.5 * (mean[0] + mean[1]), 1e-5));
    assert!(close(latent_std, 0.5 * (mean[0] - mean[1]), 1e-3)); // the offsets are nearly all of it
}

#[test]
fn a_calibrated_quantizer_normalizes_per_channel_or_as_the_paper_does() {
    let mut latents = normal(3, (32, 2, 8, 8));
    latents
        .slice_mut(s![.., 1, .., ..])
        .mapv_inplace(|x| 3.0 + 4.0 * x);
    let calibration = calibrate(&latents, 6, ScaleBy::Channel);
    let global = calibration.quantizer_config(5, 4.0, ScaleBy::Global);
    assert_eq!(
        (global.bits, global.range, global.mean, global.scale),
        (5, 4.0, vec![], vec![calibration.latent_scale])
    );
    let per_channel = calibration.quantizer_config(6, 5.0, ScaleBy::Channel);
    assert_eq!(per_channel, calibration.quantizer);
    assert_eq!(
        per_channel.mean,
        [
            calibration.dimensions[0].mean,
            calibration.dimensions[1].mean
        ]
    );
    // Unit variance in both channels: the error of N(0, 1), where the global scale would waste levels.
    for dimension in &calibration.dimensions {
        assert!(
            close(dimension.mse, 6.56e-4, 0.1) && dimension.clip_rate == 0.0,
            "{dimension:?}"
        );
    }
}

#[test]
fn clipped_latents_are_counted_by_channel() {
    let mut latents = normal(4, (4, 2, 8, 8)).mapv(|x| x.clamp(-2.0, 2.0));
    let moments = moments(&latents);
    let quantizer = Quantizer::new(moments.quantizer_config(6, 5.0, ScaleBy::Channel)).unwrap();
    latents.slice_mut(s![0, 1, .., ..]).fill(-100.0);
    let mut builder = CalibrationBuilder::new(&moments, &quantizer).unwrap();
    builder.add(latents.view()).unwrap();
    let calibration = builder.finish().unwrap();
    assert_eq!(calibration.dimensions[0].clip_rate, 0.0);
    assert_eq!(calibration.dimensions[1].clip_rate, 0.25);
    assert_eq!(calibration.clip_rate, 0.125);
}

#[test]
fn smooth_channels_come_before_noisy_ones() {
    let noise = normal(5, (32, 4, 16, 16));
    let wave = |(_, _, row, column): (usize, usize, usize, usize)| {
        (0.4 * row as f32).sin() + (0.3 * column as f32).cos()
    };
    let smooth = Array4::from_shape_fn((32, 4, 16, 16), wave);
    let mut latents = Array4::zeros((32, 4, 16, 16));
    for (channel, share) in [(0, 0.0), (1, 0.9), (2, 0.3), (3, 1.0)] {
        let mix = &smooth * share + &noise * (1.0 - share) + 50.0 * (4 - channel) as f32;
        latents
            .slice_mut(s![.., channel, .., ..])
            .assign(&mix.slice(s![.., channel, .., ..]));
    }
    let calibration = calibrate(&latents, 6, ScaleBy::Global);
    assert_eq!(calibration.order, [3, 1, 2, 0]);
    // White noise fills the disc in proportion to its area: 48 of the 255 bins of 16 × 16.
    let white = calibration.dimensions[0].low_frequency;
    assert!(close(white, 48.0 / 255.0, 0.1), "{white}");
}

#[test]
fn merged_builders_equal_one_builder() {
    let latents = normal(6, (30, 3, 5, 6)).mapv(|x| 2.0 * x - 7.0);
    let parts = [
        s![..1, .., .., ..],
        s![1..12, .., .., ..],
        s![12.., .., .., ..],
    ]
    .map(|part| latents.slice(part));
    let mut merged = MomentsBuilder::new();
    for part in parts {
        let mut builder = MomentsBuilder::new();
        builder.add(part).unwrap();
        merged.merge(&builder).unwrap();
    }
    merged.merge(&MomentsBuilder::new()).unwrap();
    let (found, expected) = (merged.finish().unwrap(), moments(&latents));
    assert_eq!(
        (found.images, found.channels, found.height, found.width),
        (30, 3, 5, 6)
    );
    for (found, expected) in found
        .mean
        .iter()
        .zip(&expected.mean)
        .chain(found.std.iter().zip(&expected.std))
    {
        assert!(close(*found, *expected, 1e-7), "{found} {expected}");
    }

    let quantizer = Quantizer::new(expected.quantizer_config(6, 5.0, ScaleBy::Channel)).unwrap();
    let mut merged = CalibrationBuilder::new(&expected, &quantizer).unwrap();
    for part in parts {
        let mut builder = CalibrationBuilder::new(&expected, &quantizer).unwrap();
        builder.add(part).unwrap();
        merged.merge(&builder).unwrap();
    }
    let (found, expected) = (
        merged.finish().unwrap(),
        calibrate(&latents, 6, ScaleBy::Channel),
    );
    assert_eq!(found.order, expected.order);
    for (found, expected) in found.dimensions.iter().zip(&expected.dimensions) {
        // Counts add up exactly, energies and errors to the rounding of f64.
        assert_eq!(
            (found.entropy_bits, found.code_usage),
            (expected.entropy_bits, expected.code_usage)
        );
        assert!(
            close(found.mse, expected.mse, 1e-6)
                && close(found.low_frequency, expected.low_frequency, 1e-6)
        );
    }
}

#[test]
fn data_that_cannot_be_calibrated_are_refused_by_name() {
    assert!(matches!(MomentsBuilder::new().finish(), Err(Error::Empty)));
    let mut latents = normal(7, (2, 3, 4, 4));
    latents.slice_mut(s![.., 1, .., ..]).fill(0.1);
    let mut builder = MomentsBuilder::new();
    builder.add(latents.view()).unwrap();
    let why = builder.finish().unwrap_err().to_string();
    assert!(
        why.starts_with("channel 1: expected latents that vary, found 0.1"),
        "{why}"
    );

    let larger = Array4::zeros((1, 3, 4, 5));
    let why = builder.add(larger.view()).unwrap_err().to_string();
    assert_eq!(
        why,
        "[channels, height, width] of latents: expected [3, 4, 4], found [3, 4, 5]"
    );
    latents[[1, 0, 3, 2]] = f32::NAN;
    assert!(matches!(
        builder.add(latents.view()),
        Err(Error::NonFinite {
            batch: 1,
            channel: 0,
            row: 3,
            column: 2,
            ..
        })
    ));
}

#[test]
fn a_saved_calibration_loads_whole_and_saves_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (
        folder.path().join("first.json"),
        folder.path().join("second.json"),
    );
    let wide = normal(8, (16, 3, 8, 8)).mapv(|x| 4.3 * x + 0.7);
    let calibration = calibrate(
        &concatenate![Axis(1), wide, normal(9, (16, 2, 8, 8))],
        6,
        ScaleBy::Channel,
    );
    calibration.save(&first).unwrap();
    let loaded = Calibration::load(&first).unwrap();
    assert_eq!(loaded, calibration);
    loaded.save(&second).unwrap();
    assert_eq!(
        std::fs::read(first).unwrap(),
        std::fs::read(second).unwrap()
    );
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        2,
        "no temporary file is left"
    );
}

#[test]
fn a_damaged_calibration_is_refused_by_file_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calibration.json");
    let load = |text: String| {
        std::fs::write(&path, text).unwrap();
        let why = Calibration::load(&path).unwrap_err();
        assert!(
            why.to_string().starts_with(&path.display().to_string()),
            "{why}"
        );
        let source = std::error::Error::source(&why).map(ToString::to_string);
        format!("{why}: {}", source.unwrap_or_default())
    };
    let good =
        serde_json::to_value(calibrate(&normal(10, (2, 2, 4, 4)), 6, ScaleBy::Channel)).unwrap();
    for (field, value, expected) in [
        ("schema", json!(2), "field `schema`: expected 1, found 2"),
        (
            "mse",
            json!("small"),
            "field `mse` is missing or malformed: invalid type: string \"small\", expected f32",
        ),
        (
            "height",
            Value::Null,
            "field `height` is missing or malformed: invalid type: null, expected usize",
        ),
        (
            "latent_scale",
            json!(-1.0),
            "field `latent_scale`: expected a positive number, found -1",
        ),
        (
            "order",
            json!([0, 0]),
            "field `order`: expected every channel below 2 once, found [0, 0]",
        ),
        (
            "dimensions",
            json!([]),
            "field `dimensions`: expected 2 of them, found 0",
        ),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let why = load(bad.to_string());
        assert!(why.contains(expected), "{why}");
    }
    let mut bad = good.clone();
    bad["quantizer"]["range"] = json!(-5.0);
    assert!(
        load(bad.to_string()).contains(
            "field `quantizer`: expected valid settings, found quantizer setting `range`"
        )
    );
    assert!(load(good.to_string()[..40].into()).contains("expected a JSON object"));
    assert!(matches!(
        Calibration::load(folder.path().join("absent.json")),
        Err(Error::Read { .. })
    ));
    assert!(matches!(
        calibrate(&normal(10, (2, 2, 4, 4)), 6, ScaleBy::Channel)
            .save(folder.path().join("no/folder")),
        Err(Error::Write { .. })
    ));
}
