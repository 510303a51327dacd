//! Named weights: whole or refused, and the same bytes every time.

use crate::toy::Toy;
use burn::module::Module;
use burn::tensor::Device;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use tessera_weights::{Error, Mismatch, Weight, WeightDtype, Weights};

fn metadata() -> BTreeMap<String, String> {
    let pairs = [("schema", "x/v1"), ("a", "\"quoted\"\n"), ("empty", "")];
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn mismatch(error: Error) -> Mismatch {
    match error {
        Error::Mismatch(mismatch) => *mismatch,
        other => panic!("expected a mismatch, got {other}"),
    }
}

#[test]
fn saving_loading_and_saving_again_gives_the_same_bytes_in_every_dtype() {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy::new(&Device::flex());
    for dtype in [
        WeightDtype::F32,
        WeightDtype::F16,
        WeightDtype::BF16,
        WeightDtype::Int8,
    ] {
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        Weights::of(&toy).write(&first, metadata(), dtype).unwrap();
        let read = Weights::read(&first).unwrap();
        assert_eq!(read.metadata(), &metadata());
        let loaded = read.apply(Toy::empty(&Device::flex().autodiff())).unwrap();
        Weights::of(&loaded)
            .write(&second, metadata(), dtype)
            .unwrap();
        assert_eq!(
            fs::read(&first).unwrap(),
            fs::read(&second).unwrap(),
            "{dtype:?}"
        );
        let header = fs::read(&first).unwrap();
        let length = u64::from_le_bytes(header[..8].try_into().unwrap());
        assert_eq!(length % 8, 0);
    }
}

proptest! {
    /// A weight of 8 bits is at most half a step from what it was; steps are a 127th of a row's largest, to within the
    /// 2^-9 that a scale of bf16 is rounded by.
    #[test]
    fn weights_of_8_bits_are_within_half_a_step_per_row(
        (rows, columns) in (2_usize..6, 1_usize..40),
        leading in any::<bool>(),
        exponent in -20_i32..20,
        drawn in prop::collection::vec(-1.0..1.0_f32, 240),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("w");
        let drawn = drawn[..rows * columns].iter();
        let values: Vec<f32> = drawn.map(|value| value * 2_f32.powi(exponent)).collect();
        let shape = if leading { vec![1, rows, columns] } else { vec![rows, columns] };
        let mut weights = Weights::default();
        weights.insert("w", Weight::new(shape.clone(), values.clone()));
        weights.insert("v", Weight::new([columns], values[..columns].to_vec()));
        weights.write(&file, metadata(), WeightDtype::Int8).unwrap();

        let read = Weights::read(&file).unwrap();
        prop_assert_eq!(read.len(), 2, "scales are no weights of their own");
        let (w, v) = (read.get("w").unwrap(), read.get("v").unwrap());
        prop_assert_eq!(w.shape(), &shape[..]);
        prop_assert_eq!(&*v.values().unwrap(), &values[..columns], "vectors keep 32 bits");
        let got = w.values().unwrap();
        for (got, values) in got.chunks(columns).zip(values.chunks(columns)) {
            let step = values.iter().fold(0.0, |most: f32, v| most.max(v.abs())) / 127.0;
            for (got, value) in got.iter().zip(values) {
                // At the ends of the range, rounding of the scale may add 127 * 2^-9 steps to the half.
                prop_assert!((got - value).abs() <= step * 0.76, "{got} for {value}, step {step}");
            }
        }
        let spaced = w.spaced_values(7).unwrap();
        let expected: Vec<f32> = tessera_checkpoint::evenly_spaced(got.len(), 7).map(|i| got[i]).collect();
        prop_assert_eq!(spaced, expected);

        // What was read is written as it was: kept, and asked for again.
        read.write_shards(folder.path(), &metadata(), None, u64::MAX, || ()).unwrap();
        let kept = fs::read(folder.path().join("model.safetensors")).unwrap();
        prop_assert!(kept == fs::read(&file).unwrap());
    }
}

/// An infinite weight would otherwise become a finite one.
#[test]
fn rows_with_a_value_that_is_not_finite_stay_so_in_8_bits() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut weights = Weights::default();
    let values = vec![1.0, f32::INFINITY, f32::NAN, 1.0, 0.0, 0.0, 1.0, -2.0];
    weights.insert("w", Weight::new([4, 2], values));
    weights
        .write(file.path(), metadata(), WeightDtype::Int8)
        .unwrap();
    let read = Weights::read(file.path()).unwrap();
    let values = read.get("w").unwrap().values().unwrap().into_owned();
    assert!(values[..4].iter().all(|value| value.is_nan()), "{values:?}");
    assert_eq!(values[4..6], [0.0, 0.0]);
    assert!(
        (values[6] - 1.0).abs() < 0.01 && (values[7] + 2.0).abs() < 0.01,
        "{values:?}"
    );
}

#[test]
fn names_are_field_paths_and_linear_weights_are_laid_out_as_pytorch_does() {
    let toy = Toy::new(&Device::flex());
    let weights = Weights::of(&toy);
    let names: Vec<_> = weights
        .iter()
        .map(|(name, w)| (name, w.shape().to_vec()))
        .collect();
    let expected = [
        ("blocks.0.bias", vec![2]),
        ("blocks.0.weight", vec![2, 8]),
        ("first.bias", vec![8]),
        ("first.weight", vec![8, 3]),
        ("norm.bias", vec![8]),
        ("norm.weight", vec![8]),
        ("token", vec![1, 1, 2]),
    ];
    assert_eq!(names, expected);
    let burn = toy
        .first
        .weight
        .val()
        .into_data()
        .try_into_vec::<f32>()
        .unwrap(); // [3, 8]
    let file = &weights.get("first.weight").unwrap().values().unwrap(); // [8, 3]
    for row in 0..3 {
        for column in 0..8 {
            assert_eq!(burn[row * 8 + column], file[column * 3 + row]);
        }
    }
}

#[test]
fn applying_weights_keeps_identity_device_and_training_state() {
    let weights = Weights::of(&Toy::new(&Device::flex()));
    let training = Toy::empty(&Device::flex().autodiff());
    let ids = burn::module::list_param_ids(&training);
    let training = weights.apply(training).unwrap();
    assert_eq!(burn::module::list_param_ids(&training), ids);
    assert!(training.first.weight.val().is_require_grad());
    assert!(training.first.weight.val().is_autodiff());

    let frozen = weights
        .apply(Toy::empty(&Device::flex().autodiff()).no_grad())
        .unwrap();
    assert!(!frozen.first.weight.val().is_require_grad());

    let plain = weights.apply(training.valid()).unwrap();
    assert!(!plain.first.weight.val().is_autodiff());
    assert!(plain.train().first.weight.val().is_require_grad());
}

#[test]
fn the_nearest_name_takes_the_fewest_edits_and_may_be_none() {
    let toy = Toy::new(&Device::flex());
    let mut weights = Weights::of(&toy);
    for name in ["first.weigth", "x"] {
        weights.insert(name, Weight::new([1], vec![0.0]));
    }
    let found = mismatch(weights.apply(toy).unwrap_err());
    let unexpected: Vec<_> = found
        .unexpected
        .iter()
        .map(|stray| (&*stray.name, stray.nearest.as_deref()))
        .collect();
    assert_eq!(
        unexpected,
        [("first.weigth", Some("first.weight")), ("x", None)]
    );
}

#[test]
fn what_is_missing_unexpected_or_misshapen_is_named_with_its_nearest() {
    let toy = Toy::new(&Device::flex());
    let mut weights = Weights::of(&toy);
    let moved = weights.take("first.weight").unwrap();
    weights.insert("firts.weight", moved);
    weights.insert("token", Weight::new([2, 1, 1], vec![0.0; 2]));
    let error = weights.apply(toy.clone()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the weights do not fit the model: 1 missing (`first.weight`, nearest `firts.weight`); \
         1 unexpected (`firts.weight`, nearest `first.weight`); \
         1 misshapen (`token` has shape [2, 1, 1], expected [1, 1, 2])"
    );
    let found = mismatch(error);
    assert_eq!(
        (
            found.missing.len(),
            found.unexpected.len(),
            found.misshapen.len()
        ),
        (1, 1, 1)
    );

    let mut weights = Weights::of(&toy);
    for index in 0..9 {
        weights.insert(format!("extra.{index}"), Weight::new([1], vec![0.0]));
    }
    let text = weights.apply(toy.clone()).unwrap_err().to_string();
    assert!(
        text.contains("9 unexpected (`extra.0`") && text.contains("`extra.4`"),
        "{text}"
    );
    assert!(text.ends_with(", and 4 more)"), "{text}");
    assert!(!text.contains("extra.5"), "{text}");

    let none = Weights::default().apply(toy).unwrap_err();
    assert_eq!(mismatch(none).missing.len(), 7);
}

#[test]
fn half_precision_doubles_and_integers_are_read_as_f32() {
    // 1.5 as F16, BF16 and F64, by hand.
    let header = r#"{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[2,4]},"c":{"dtype":"F64","shape":[],"data_offsets":[4,12]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(0x3e00_u16.to_le_bytes());
    bytes.extend(0x3fc0_u16.to_le_bytes());
    bytes.extend(1.5_f64.to_le_bytes());
    let weights = Weights::read_bytes("made.safetensors", bytes).unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(
            weights.get(name).unwrap().values().unwrap()[..],
            [1.5],
            "{name}"
        );
    }
    let integers = r#"{"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let mut bytes = (integers.len() as u64).to_le_bytes().to_vec();
    bytes.extend(integers.as_bytes());
    bytes.extend([0; 8]);
    let weights = Weights::read_bytes("made.safetensors", bytes).unwrap();
    assert_eq!(*weights.get("n").unwrap().values().unwrap(), [0.0]);
}

#[test]
fn hostile_files_are_errors() {
    let file = |header: &str, data: &[u8]| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    };
    let entry = |shape: &str, from: u64, to: u64| {
        format!(r#""dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]"#)
    };
    let one = |shape, from, to| format!(r#"{{"a":{{{}}}}}"#, entry(shape, from, to));
    let huge = "[18446744073709551615,18446744073709551615]";
    let hostile = [
        Vec::new(),
        vec![1, 2, 3],
        u64::MAX.to_le_bytes().to_vec(),
        1_000_u64.to_le_bytes().to_vec(),
        file("not json", &[]),
        file(&one("[1]", 0, 4), &[0; 3]),
        file(&one("[1]", 0, 4), &[0; 5]),
        file(&one("[2]", 0, 4), &[0; 4]),
        file(&one("[1]", 4, 0), &[0; 4]),
        file(&one("[1]", 4, 8), &[0; 8]),
        file(&one(huge, 0, 4), &[0; 4]),
        file(
            &format!(
                r#"{{"a":{{{}}},"b":{{{}}}}}"#,
                entry("[2]", 0, 8),
                entry("[2]", 4, 12)
            ),
            &[0; 12],
        ),
    ];
    for (index, bytes) in hostile.into_iter().enumerate() {
        let error = Weights::read_bytes("bad.safetensors", bytes).unwrap_err();
        assert!(
            matches!(error, Error::Checkpoint(_)),
            "case {index}: {error}"
        );
        assert!(error.to_string().contains("bad.safetensors"), "{error}");
    }
    let absent = Weights::read("no/such/file").unwrap_err();
    assert!(absent.to_string().contains("no/such/file"), "{absent}");
}

#[test]
fn prefixes_come_off_and_go_on() {
    let toy = Toy::new(&Device::flex());
    let mut all = Weights::default();
    all.insert_prefixed("model.", Weights::of(&toy));
    all.insert("buffer", Weight::new([1], vec![7.0]));
    let model = all.take_prefix("model.");
    assert_eq!(model, Weights::of(&toy));
    assert_eq!(all.len(), 1);
    assert_eq!(all.take("buffer").unwrap().values().unwrap()[..], [7.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_file_never_panics(position in 0_usize..400, byte: u8, length in 0_usize..2000) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        let toy = Weights::of(&Toy::new(&Device::flex()));
        toy.write(&path, metadata(), WeightDtype::F32).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[position] = byte;
        let _ = Weights::read_bytes("damaged.safetensors", bytes.clone());
        bytes.truncate(length);
        let _ = Weights::read_bytes("cut.safetensors", bytes);
    }
}
