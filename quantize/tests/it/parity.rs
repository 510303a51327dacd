//! The quantizer against the authors' own, run in f32.

use ndarray::{Array3, Array4, ArrayView3};
use safetensors::SafeTensors;
use tessera_quantize::{Quantizer, QuantizerConfig, STD_RANGE, Table, boundaries};

use crate::fixtures::{floats, indices, read};

const BITS: [u8; 6] = [2, 3, 4, 5, 6, 8];
/// The evenly spaced head of the fixture's `x`, -6 to 6.
const GRID: usize = 4001;

fn config(bits: u8) -> QuantizerConfig {
    QuantizerConfig {
        bits,
        ..QuantizerConfig::default()
    }
}

fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// Equal to the last bit where measured, but at 8 bits: there one φ or Φ of the reference is an f32 ulp off the
/// correctly rounded one, and two of 256 values move by 1.1e-5.
#[test]
fn parity_of_the_computed_reconstruction_values() {
    let Some(bytes) = read("quantizer_io.safetensors") else {
        return;
    };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for bits in BITS {
        let expected = floats(&file, &format!("bits{bits}.reconstruction_values"));
        let table = Table::gaussian(bits, 3.0).unwrap();
        let differing = table
            .values()
            .iter()
            .zip(&expected)
            .filter(|(found, expected)| found != expected)
            .count();
        let worst = worst(table.values(), &expected);
        println!(
            "{bits} bits: {differing} of {} values differ, by {worst:e} at most",
            table.levels()
        );
        let (most, tolerance) = if bits == 8 { (2, 1.2e-5) } else { (0, 0.0) };
        assert!(
            differing <= most && worst <= tolerance,
            "{bits} bits: {differing} differ, by {worst:e}"
        );
    }
}

/// The 4096 random numbers behind the grid were drawn anew for each width and only the last width's were kept, so they
/// belong to the indices of 8 bits; for the others the random half checks the way back from indices to values.
#[test]
fn parity_of_indices_and_values() {
    let Some(bytes) = read("quantizer_io.safetensors") else {
        return;
    };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let x = floats(&file, "x");
    for bits in BITS {
        let expected = indices(&file, &format!("bits{bits}.indices"));
        let values = floats(&file, &format!("bits{bits}.values"));
        let stored =
            Table::from_values(floats(&file, &format!("bits{bits}.reconstruction_values")))
                .unwrap();
        let checkpoint = Quantizer::with_table(config(bits), stored).unwrap();
        for (quantizer, tolerance) in [
            (&checkpoint, 1e-6),
            (
                &Quantizer::new(config(bits)).unwrap(),
                if bits == 8 { 2e-5 } else { 1e-6 },
            ),
        ] {
            let known = if bits == 8 { x.len() } else { GRID };
            let latents = Array4::from_shape_vec((1, 1, 1, known), x[..known].to_vec()).unwrap();
            let found = quantizer.quantize(latents.view()).unwrap();
            assert_eq!(found.as_slice().unwrap(), &expected[..known], "{bits} bits");

            let all = ArrayView3::from_shape((1, x.len(), 1), &expected).unwrap();
            let restored = quantizer.dequantize(all, 1, x.len()).unwrap();
            let worst = worst(restored.as_slice().unwrap(), &values);
            println!(
                "{bits} bits: {known} indices equal, {} values within {worst:e}",
                values.len()
            );
            assert!(worst <= tolerance, "{bits} bits: {worst:e}");
        }
    }
}

#[test]
fn parity_of_tokens_and_their_layout_in_the_generator() {
    let Some(bytes) = read("tokenbridge_a_io.safetensors") else {
        return;
    };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let latents = Array4::from_shape_vec((3, 16, 4, 4), floats(&file, "latents")).unwrap();
    let expected = Array3::from_shape_vec((3, 16, 16), indices(&file, "indices")).unwrap();
    let quantizer = Quantizer::new(QuantizerConfig::default()).unwrap();
    let found = quantizer.quantize(latents.view()).unwrap();
    assert_eq!(found, expected);

    let values: Vec<f32> = found
        .iter()
        .map(|&index| quantizer.values()[usize::from(index)])
        .collect();
    assert!(worst(&values, &floats(&file, "values")) <= 1e-6);
}

/// Equal to the last bit.
#[test]
fn parity_of_the_boundaries() {
    let Some(bytes) = read("quantizer_io.safetensors") else {
        return;
    };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for bits in BITS {
        let expected = floats(&file, &format!("bits{bits}.boundaries"));
        let worst = worst(&boundaries(1 << bits, STD_RANGE), &expected);
        println!("{bits} bits: boundaries within {worst:e}");
        assert!(worst == 0.0, "{bits} bits: {worst:e}");
    }
}
