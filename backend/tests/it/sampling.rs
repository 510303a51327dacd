//! Categorical sampling: the distribution, its truncations, and the portable body.

use super::devices::devices;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use tessera_backend::Rng;
use tessera_backend::ops::{Sampling, categorical};

fn draw(logits: &[f32], rows: usize, sampling: Sampling, dtype: FloatDType) -> Vec<i64> {
    draw_on(&Device::flex(), logits, rows, sampling, dtype)
}

fn draw_on(
    device: &Device,
    logits: &[f32],
    rows: usize,
    sampling: Sampling,
    dtype: FloatDType,
) -> Vec<i64> {
    let repeated = TensorData::new(logits.repeat(rows), [rows, logits.len()]);
    let logits = Tensor::<2>::from_data(repeated, device).cast(dtype);
    let uniforms = Rng::new(9, 0).uniform_tensor([rows], device).cast(dtype);
    categorical(logits, uniforms, sampling)
        .into_data()
        .convert::<i64>()
        .try_to_vec()
        .expect("i64")
}

const LOGITS: [f32; 5] = [0.5, 2.0, -1.0, 1.0, 0.0];

#[test]
fn shares_of_draws_are_the_softmax() {
    let rows = 40_000;
    let drawn = draw(
        &LOGITS,
        rows,
        Sampling {
            temperature: 0.7,
            ..Default::default()
        },
        FloatDType::F32,
    );
    let weights: Vec<f64> = LOGITS.iter().map(|&x| (f64::from(x) / 0.7).exp()).collect();
    let total: f64 = weights.iter().sum();
    for (class, weight) in weights.iter().enumerate() {
        let share = drawn.iter().filter(|&&c| c == class as i64).count() as f64 / rows as f64;
        assert!(
            (share - weight / total).abs() < 0.01,
            "class {class}: {share}"
        );
    }
}

#[test]
fn parity_of_the_classes_that_are_drawn() {
    for (top_k, top_p, temperature) in [
        (0, 1.0, 1.0),
        (3, 1.0, 0.9),
        (0, 0.8, 1.0),
        (4, 0.6, 1.3),
        (2, 0.99, 0.5),
    ] {
        let sampling = Sampling {
            temperature,
            top_k,
            top_p,
        };
        let portable = draw(&LOGITS, 2000, sampling, FloatDType::F64);
        for device in devices() {
            let fused = draw_on(&device, &LOGITS, 2000, sampling, FloatDType::F32);
            let differing = fused.iter().zip(&portable).filter(|(a, b)| a != b).count();
            assert!(
                differing <= 2,
                "{sampling:?} on {device:?}: {differing} of 2000 differ"
            );
        }
    }
}

#[test]
fn parity_of_cold_temperatures_with_greedy() {
    // Large logits, whose products with 1/T round by more than they differ.
    for logits in [LOGITS, [712.25, 930.5, -88.0, 930.0, 0.125]] {
        for temperature in [1e-4, 1e-9, 1e-20, 1e-30, 1e-38, 1e-45] {
            for (top_k, top_p) in [(0, 1.0), (3, 1.0), (0, 0.5)] {
                let sampling = Sampling {
                    temperature,
                    top_k,
                    top_p,
                };
                let portable = draw(&logits, 50, sampling, FloatDType::F64);
                assert_eq!(portable, [1; 50], "{sampling:?}");
                for device in devices() {
                    let fused = draw_on(&device, &logits, 50, sampling, FloatDType::F32);
                    assert_eq!(fused, portable, "{sampling:?} on {device:?}");
                }
            }
        }
    }
}

#[test]
fn top_k_1_and_temperature_0_are_greedy() {
    for dtype in [FloatDType::F32, FloatDType::F64] {
        let greedy = Sampling {
            temperature: 0.0,
            ..Default::default()
        };
        assert_eq!(draw(&LOGITS, 50, greedy, dtype), [1; 50]);
        assert_eq!(
            draw(
                &LOGITS,
                50,
                Sampling {
                    top_k: 1,
                    ..Default::default()
                },
                dtype
            ),
            [1; 50]
        );
        assert_eq!(
            draw(
                &LOGITS,
                50,
                Sampling {
                    top_p: 0.01,
                    ..Default::default()
                },
                dtype
            ),
            [1; 50]
        );
        assert_eq!(
            draw(&[3.0, 3.0, 1.0], 9, greedy, dtype),
            [0; 9],
            "ties go to the first"
        );
    }
}

#[test]
fn classes_outside_the_kept_ones_are_never_drawn() {
    for dtype in [FloatDType::F32, FloatDType::F64] {
        let drawn = draw(
            &LOGITS,
            5000,
            Sampling {
                top_k: 2,
                ..Default::default()
            },
            dtype,
        );
        assert!(drawn.iter().all(|c| [1, 3].contains(c)));
        assert!(drawn.contains(&1) && drawn.contains(&3));
    }
}
