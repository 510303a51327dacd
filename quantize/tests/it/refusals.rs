//! Input that is refused, with errors that name the place.

use ndarray::{Array3, Array4};
use tessera_quantize::{Error, Quantizer, QuantizerConfig, Table};

fn message<T>(result: Result<T, Error>) -> String {
    result.err().expect("must be refused").to_string()
}

#[test]
fn latents_that_are_no_numbers_are_refused_by_place() {
    let quantizer = Quantizer::new(QuantizerConfig::default()).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut latents = Array4::zeros((2, 3, 4, 5));
        latents[[1, 2, 0, 4]] = bad;
        assert_eq!(
            message(quantizer.quantize(latents.view())),
            format!(
                "latent at batch 1, channel 2, row 0, column 4: expected a finite number, found {bad}"
            )
        );
    }
}

#[test]
fn indices_without_a_level_are_refused_by_place() {
    let quantizer = Quantizer::new(QuantizerConfig::default()).unwrap();
    let mut indices = Array3::zeros((1, 6, 2));
    assert!(quantizer.dequantize(indices.view(), 2, 3).is_ok());
    assert_eq!(
        message(quantizer.dequantize(indices.view(), 2, 2)),
        "tokens per image: expected [4], found [6]"
    );
    indices[[0, 5, 1]] = 64;
    assert_eq!(
        message(quantizer.dequantize(indices.view(), 2, 3)),
        "index at batch 0, token 5, channel 1: expected less than 64, found 64"
    );
}

#[test]
fn settings_out_of_their_domain_are_refused() {
    let default = QuantizerConfig::default;
    for bits in [0, 17, 255] {
        assert!(
            matches!(Quantizer::new(QuantizerConfig { bits, ..default() }), Err(Error::Bits { found }) if found == bits)
        );
    }
    for (field, config) in [
        (
            "range",
            QuantizerConfig {
                range: 0.0,
                ..default()
            },
        ),
        (
            "std_range",
            QuantizerConfig {
                std_range: f32::NAN,
                ..default()
            },
        ),
        (
            "scale[1]",
            QuantizerConfig {
                scale: vec![1.0, -1.0],
                ..default()
            },
        ),
        (
            "scale[0]",
            QuantizerConfig {
                scale: vec![1e-7],
                ..default()
            },
        ),
        (
            "mean[0]",
            QuantizerConfig {
                mean: vec![f32::INFINITY],
                ..default()
            },
        ),
        (
            "mean[1]",
            QuantizerConfig {
                mean: vec![1e6, -1.1e6],
                ..default()
            },
        ),
    ] {
        let message = message(Quantizer::new(config));
        assert!(message.contains(&format!("`{field}`")), "{message}");
    }
}

#[test]
fn settings_for_other_channels_are_refused() {
    let config = QuantizerConfig {
        scale: vec![1.0; 4],
        ..QuantizerConfig::default()
    };
    let latents = Array4::zeros((1, 3, 2, 2));
    assert_eq!(
        message(Quantizer::new(config).unwrap().quantize(latents.view())),
        "channels of `scale` and of the latents: expected [4], found [3]"
    );
}

#[test]
fn tables_that_are_not_sorted_powers_of_two_are_refused() {
    for count in [0, 1, 3, 100] {
        let values = (0..count).map(|level| level as f32).collect();
        assert!(
            matches!(Table::from_values(values), Err(Error::TableLength { found }) if found == count)
        );
    }
    // The reference's defect at ten bits and more: γ_0 = 0.
    assert_eq!(
        message(Table::from_values(vec![0.0, -2.9, -2.8, 0.0])),
        "reconstruction_values[1]: expected a finite value above the one before it (0), found -2.9"
    );
    assert!(matches!(
        Table::from_values(vec![0.0, f32::NAN]),
        Err(Error::TableOrder { index: 1, .. })
    ));
    let table = Table::from_values(vec![-1.0, 1.0]).unwrap();
    assert!(matches!(
        Quantizer::with_table(QuantizerConfig::default(), table),
        Err(Error::TableBits { bits: 6, found: 2 })
    ));
}

#[test]
fn a_gaussian_table_of_any_range_is_usable_or_refused() {
    for bits in 1..=12 {
        for std_range in [0.1, 0.5, 1.0, 2.886, 4.0, 6.0, 12.0, 100.0] {
            let table = Table::gaussian(bits, std_range).unwrap();
            assert_eq!(table.bits(), bits);
            assert!(
                table.values().iter().all(|value| value.abs() < std_range),
                "{bits} bits, {std_range}"
            );
        }
    }
    assert!(matches!(
        Table::gaussian(16, 1e-30),
        Err(Error::TableOrder { .. })
    ));
}
