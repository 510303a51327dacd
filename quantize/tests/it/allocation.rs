//! A width for each dimension: what it is chosen by, and a quantizer that has it.

use ndarray::{Array4, Axis, s};
use proptest::prelude::*;
use tessera_quantize::{
    Bits, Calibration, CalibrationBuilder, Error, MOST_MEASURED_BITS, Quantizer, QuantizerConfig,
    ScaleBy,
};

use crate::calibration::{calibrate, moments};
use crate::noise::normal;

/// A calibration of Gaussian dimensions whose decoder tolerates so much noise in each.
fn tolerating(noise: &[f32]) -> Calibration {
    let latents = normal(3, (8, noise.len(), 16, 16));
    let mut calibration = calibrate(&latents, 6, ScaleBy::Channel);
    for (dimension, &noise) in calibration.dimensions.iter_mut().zip(noise) {
        dimension.decoder_noise = Some(noise);
    }
    calibration
}

/// What the decoder makes of the errors of these widths.
fn error(calibration: &Calibration, bits: &[u8]) -> f64 {
    let each = calibration.dimensions.iter().zip(bits).enumerate();
    let each = each.map(|(channel, (dimension, &bits))| {
        let width = dimension
            .widths
            .iter()
            .find(|width| width.bits == bits)
            .unwrap();
        let scale = calibration.quantizer.unit_of(channel) / dimension.decoder_noise.unwrap();
        f64::from(width.mse) * f64::from(scale).powi(2)
    });
    each.sum()
}

#[test]
fn a_dimension_of_twice_the_tolerance_needs_a_bit_less() {
    let calibration = tolerating(&[0.4, 0.2, 0.1, 0.05]);
    assert_eq!(calibration.allocate(4.5).unwrap(), [3, 4, 5, 6]);
    assert_eq!(calibration.allocate(6.5).unwrap(), [5, 6, 7, 8]);
    let rates: Vec<f32> = calibration
        .dimensions
        .iter()
        .filter_map(|dimension| dimension.decoder_bits())
        .collect();
    for (rate, expected) in rates.iter().zip([1.32, 2.32, 3.32, 4.32]) {
        assert!((rate - expected).abs() < 0.05, "{rates:?}"); // log2(1 / 0.4) = 1.32, up to the measured std
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// No widths of the same sum leave less error.
    #[test]
    fn no_other_widths_of_the_mean_leave_less_error(noise in prop::collection::vec(0.01_f32..2.0, 3), sum in 3_u8..20) {
        let calibration = tolerating(&noise);
        let found = calibration.allocate(f32::from(sum) / 3.0).unwrap();
        prop_assert_eq!(found.iter().sum::<u8>(), sum);
        let least = error(&calibration, &found);
        for (a, b) in (1..=12).flat_map(|a| (1..=12).map(move |b| (a, b))) {
            let Some(c) = sum.checked_sub(a + b).filter(|c| (1..=12).contains(c)) else { continue };
            prop_assert!(least <= error(&calibration, &[a, b, c]) * (1.0 + 1e-9), "{:?} {:?}", found, [a, b, c]);
        }
    }

    /// Against the definition, level by level.
    #[test]
    fn the_level_of_a_distribution_is_the_one_that_accounts_for_it_best(
        mean in -4.0_f64..4.0, std in 0.01_f64..2.0, bits in 1_u8..7,
    ) {
        let (scale, shift) = (0.5_f32, 0.25_f32);
        let config = QuantizerConfig { mean: vec![shift], scale: vec![scale], ..QuantizerConfig::default() };
        let quantizer = Quantizer::new(config.with_bits(bits)).unwrap();
        let of = |x: f64| Array4::from_elem((1, 1, 1, 1), x as f32);
        let latents = (of(mean / f64::from(scale) + f64::from(shift)), of(std / f64::from(scale)));
        let found = quantizer.quantize_posterior(latents.0.view(), latents.1.view()).unwrap()[[0, 0, 0]];
        let account = |level: &f32| {
            let level = f64::from(*level);
            level.powi(2) / 2.0 - (level - mean).powi(2) / (2.0 * std.powi(2))
        };
        let values = quantizer.values_of(0);
        let best = values.iter().map(account).fold(f64::NEG_INFINITY, f64::max);
        let loss = best - account(&values[usize::from(found)]);
        // A tie up to the rounding of means and values to f32.
        prop_assert!(loss <= 1e-4 * (1.0 + best.abs()) / std.powi(2), "{} of {}", loss, best);
    }

    /// Each dimension is quantized as by a quantizer of its width alone, there and back.
    #[test]
    fn each_dimension_has_the_table_of_its_width(bits in prop::collection::vec(1_u8..=12, 1..5), seed in 0_u64..100) {
        let latents = normal(seed, (2, bits.len(), 3, 4)) * 1.5;
        let base = QuantizerConfig { mean: vec![0.1], scale: vec![0.9], ..QuantizerConfig::default() };
        let quantizer = Quantizer::new(base.clone().with_channel_bits(bits.clone())).unwrap();
        let indices = quantizer.quantize(latents.view()).unwrap();
        let restored = quantizer.dequantize(indices.view(), 3, 4).unwrap();
        prop_assert_eq!(quantizer.quantize(restored.view()).unwrap(), indices.clone());
        prop_assert_eq!(quantizer.levels(), 1 << bits.iter().max().unwrap());
        for (channel, &bits) in bits.iter().enumerate() {
            let alone = Quantizer::new(base.clone().with_bits(bits)).unwrap();
            let part = latents.slice(s![.., channel..=channel, .., ..]);
            let of_part = alone.quantize(part).unwrap();
            prop_assert_eq!(of_part.index_axis(Axis(2), 0), indices.index_axis(Axis(2), channel));
            let of_part: Array4<f32> = alone.dequantize(of_part.view(), 3, 4).unwrap();
            prop_assert_eq!(of_part.index_axis(Axis(1), 0), restored.index_axis(Axis(1), channel));
            prop_assert_eq!(quantizer.levels_of(channel), 1 << bits);
        }
    }
}

/// The figures of other widths are those that a pass with them measures.
#[test]
fn a_calibration_of_other_widths_is_what_measuring_them_gives() {
    let latents = normal(4, (8, 3, 8, 8)) * 2.0;
    let bits = vec![2, 7, 12];
    let found = calibrate(&latents, 6, ScaleBy::Channel)
        .with_channel_bits(bits.clone())
        .unwrap();
    let moments = moments(&latents);
    let config = moments
        .quantizer_config(6, 5.0, ScaleBy::Channel)
        .with_channel_bits(bits);
    let quantizer = Quantizer::new(config).unwrap();
    let mut builder = CalibrationBuilder::new(&moments, &quantizer).unwrap();
    builder.add(latents.view()).unwrap();
    assert_eq!(found, builder.finish().unwrap());
    // 8 bits leave a sixteenth of the error of 6, and measured widths say so.
    let mse = |bits: usize| found.dimensions[0].widths[bits - 1].mse;
    assert!(
        (mse(6) / mse(8) - 16.0).abs() < 2.0,
        "{} {}",
        mse(6),
        mse(8)
    );
}

#[test]
fn equal_widths_are_one_width() {
    let config = QuantizerConfig::default().with_channel_bits(vec![5; 4]);
    assert_eq!(config, QuantizerConfig::default().with_bits(5));
    assert_eq!(config.mean_bits(), 5.0);
    let mixed = config.with_channel_bits(vec![3, 6]);
    assert_eq!(
        (mixed.bits, mixed.mean_bits(), mixed.bits_of(0)),
        (6, 4.5, 3)
    );
    let json = serde_json::to_value(QuantizerConfig::default()).unwrap();
    assert!(
        json.get("channel_bits").is_none(),
        "files of one width stay as they were: {json}"
    );
}

#[test]
fn widths_that_cannot_be_are_refused() {
    let calibration = tolerating(&[0.4, 0.2]);
    for mean in [0.5, 12.5, f32::NAN] {
        let error = calibration.allocate(mean).unwrap_err();
        assert!(
            matches!(
                error,
                Error::MeanBits {
                    least: 1,
                    most: MOST_MEASURED_BITS,
                    ..
                }
            ),
            "{error}"
        );
    }
    assert_eq!(calibration.allocate(12.0).unwrap(), [12, 12]);
    let unknown = calibrate(&normal(3, (2, 2, 4, 4)), 6, ScaleBy::Channel);
    assert!(matches!(
        unknown.allocate(4.0),
        Err(Error::NotMeasured { .. })
    ));
    let mut old = calibration.clone();
    old.dimensions[1].widths.clear();
    assert!(matches!(old.allocate(4.0), Err(Error::NotMeasured { .. })));
    assert!(matches!(
        calibration.clone().with_channel_bits(vec![3]),
        Err(Error::Shape { .. })
    ));

    let config = QuantizerConfig {
        channel_bits: vec![3, 4],
        ..QuantizerConfig::default()
    };
    let error = config.validate().unwrap_err();
    assert!(
        matches!(error, Error::ChannelBits { bits: 6, widest: 4 }),
        "{error}"
    );
    let config = QuantizerConfig::default().with_channel_bits(vec![17, 4]);
    assert!(matches!(config.validate(), Err(Error::Bits { found: 17 })));
    let quantizer =
        Quantizer::new(QuantizerConfig::default().with_channel_bits(vec![3, 4])).unwrap();
    let error = quantizer
        .quantize(normal(1, (1, 3, 2, 2)).view())
        .unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    let mut indices = quantizer.quantize(normal(1, (1, 2, 2, 2)).view()).unwrap();
    indices[[0, 3, 1]] = 15;
    assert!(quantizer.dequantize(indices.view(), 2, 2).is_ok());
    indices[[0, 3, 0]] = 8;
    let error = quantizer.dequantize(indices.view(), 2, 2).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Index {
                channel: 0,
                token: 3,
                levels: 8,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn bits_are_a_number_or_a_mean() {
    assert_eq!("6".parse(), Ok(Bits::Uniform(6)));
    assert_eq!("auto:4.5".parse(), Ok(Bits::Auto { mean: 4.5 }));
    for text in ["6", "auto:4.5", "auto:12"] {
        assert_eq!(text.parse::<Bits>().unwrap().to_string(), text);
    }
    for text in [
        "", "0", "17", "4.5", "auto", "auto:", "auto:0.5", "auto:13", "auto:nan", "auto:inf",
    ] {
        let error = text.parse::<Bits>().unwrap_err();
        assert!(
            error.starts_with("expected a whole number of 1 to 16, or auto:MEAN"),
            "{error}"
        );
    }
}
