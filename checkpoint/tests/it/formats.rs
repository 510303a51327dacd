//! What each format gives, and what is refused by its name.

use crate::make::{Pickle, Tensor, legacy, safetensors, state_dict, tensors, zip};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tessera_checkpoint::{Checkpoint, Dtype, Entry, Error, Format, Which, write, write_shards};

/// Every tensor is there as it was made, and no other.
fn same(found: &BTreeMap<String, tessera_checkpoint::StoredTensor>, expected: &[Tensor]) {
    assert_eq!(found.len(), expected.len());
    for (name, shape, values) in expected {
        assert_eq!(found[*name].shape(), shape, "{name}");
        assert_eq!(found[*name].values().unwrap(), *values, "{name}");
    }
}

#[test]
fn every_format_gives_the_same_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let values = tensors(64);
    safetensors(&at("w.safetensors"), &values);
    std::fs::write(at("w.pth"), zip(&state_dict(&values), &values)).unwrap();
    std::fs::write(at("w.ckpt"), legacy(&state_dict(&values), &values)).unwrap();
    for (name, format) in [
        ("w.safetensors", Format::Safetensors),
        ("w.pth", Format::TorchZip),
        ("w.ckpt", Format::TorchLegacy),
    ] {
        let checkpoint = Checkpoint::open(at(name)).unwrap();
        assert_eq!(
            (checkpoint.format, checkpoint.checksums),
            (format, format == Format::Safetensors),
            "{name}"
        );
        same(&checkpoint.state_dict(None).unwrap().tensors, &values);
        if format != Format::Safetensors {
            assert_eq!(checkpoint.metadata["epoch"], "7");
        }
    }
}

#[test]
fn shards_are_cut_between_tensors_and_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let values = tensors(64);
    let entries = || {
        values.iter().map(|(name, shape, values)| Entry {
            name: (*name).into(),
            dtype: Dtype::F32,
            shape: shape.into(),
            bytes: Box::new(|file| {
                values
                    .iter()
                    .try_for_each(|value| file.write_all(&value.to_le_bytes()))
            }),
        })
    };
    let mut told = 0;
    let write = |name: &str, limit, told: &mut usize| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let shards = write_shards(
            &folder,
            "model",
            &BTreeMap::new(),
            entries().collect(),
            limit,
            || *told += 1,
        );
        (folder, shards.unwrap())
    };
    let (two, shards) = write("two", 100, &mut told);
    assert_eq!(
        shards.files,
        [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors"
        ]
    );
    assert_eq!((shards.total_size, told), (12 + 256, 2));
    let (one, shards) = write("one", 1000, &mut told);
    assert_eq!(shards.files, ["model.safetensors"]);
    for (folder, format) in [
        (&one, Format::Safetensors),
        (&two, Format::ShardedSafetensors),
    ] {
        let checkpoint = Checkpoint::open(folder).unwrap();
        assert_eq!((checkpoint.format, checkpoint.checksums), (format, true));
        same(&checkpoint.tensors, &values);
    }
    let index = two.join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let refused = |from: &str, to: &str| {
        std::fs::write(&index, text.replacen(from, to, 1)).unwrap();
        Checkpoint::open(&two).unwrap_err().to_string()
    };
    assert!(refused("model-00001-of-00002", "../one/model").contains("beside the index"));
    assert!(refused("model-00001-of-00002", "model-00002-of-00002").contains("first.bias"));
    assert!(refused("268", "267").contains("267 bytes"));
    assert!(refused("first.weight", "first.other").contains("first.weight"));
    std::fs::write(&index, &text).unwrap();
    std::fs::remove_file(two.join("model-00002-of-00002.safetensors")).unwrap();
    let error = Checkpoint::open(&two).unwrap_err();
    assert!(
        matches!(error, Error::Io { ref file, .. } if file.ends_with("model-00002-of-00002.safetensors")),
        "{error}"
    );
}

/// Integers and their scales as compressed-tensors writes them,.
#[test]
fn weights_of_8_bits_are_multiplied_by_the_scales_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let scales = |dtype: Dtype, shape: &'static [usize], bytes: &'static [u8]| {
        let entry =
            |name: &'static str, dtype, shape: &'static [usize], bytes: &'static [u8]| Entry {
                name: name.into(),
                dtype,
                shape: shape.into(),
                bytes: Box::new(move |out| out.write_all(bytes)),
            };
        let entries = vec![
            entry("a.weight", Dtype::I8, &[2, 3], &[1, 2, 127, 255, 129, 0]),
            entry("a.weight_scale", dtype, shape, bytes),
            entry("table", Dtype::I8, &[2], &[3, 253]),
        ];
        write(&file, &BTreeMap::new(), entries).unwrap();
        Checkpoint::open(&file)
    };
    // 0.5 and 2 in bf16 and f16.
    for (dtype, bytes) in [
        (Dtype::BF16, &[0, 0x3f, 0, 0x40]),
        (Dtype::F16, &[0, 0x38, 0, 0x40]),
    ] {
        for shape in [&[2, 1][..], &[2]] {
            let tensors = scales(dtype, shape, bytes).unwrap().tensors;
            let names: Vec<_> = tensors.keys().collect();
            assert_eq!(names, ["a.weight", "table"]);
            let values = tensors["a.weight"].values().unwrap();
            assert_eq!(values, [0.5, 1.0, 63.5, -2.0, -254.0, 0.0]);
            assert_eq!(tensors["a.weight"].spaced_values(2).unwrap(), [63.5, 0.0]);
            assert_eq!(tensors["table"].values().unwrap(), [3.0, -3.0]);
        }
    }
    // Integers are no scales, so these are tensors of their own, whatever they are called.
    let names = ["a", "a_scale", "a_scale_scale"];
    let entries = names.map(|name| Entry {
        name: name.into(),
        dtype: Dtype::I8,
        shape: (&[1]).into(),
        bytes: Box::new(|out| out.write_all(&[1])),
    });
    write(&file, &BTreeMap::new(), entries.into()).unwrap();
    let tensors = Checkpoint::open(&file).unwrap().tensors;
    assert!(tensors.keys().eq(names));
    let error = scales(Dtype::F32, &[3], &[0; 12]).unwrap_err().to_string();
    let expected = "the shape of `a.weight_scale` is [3], expected one scale per row of `a.weight`, which is [2, 3]";
    assert!(error.ends_with(expected), "{error}");
}

/// Else a folder would be read by what it held before.
#[test]
fn weights_written_over_others_leave_none_of_the_other_layout() {
    let folder = tempfile::tempdir().unwrap();
    let write = |values: &[Tensor], limit| {
        let entries = values.iter().map(|(name, shape, values)| Entry {
            name: (*name).into(),
            dtype: Dtype::F32,
            shape: shape.into(),
            bytes: Box::new(|file| {
                let mut values = values.iter();
                values.try_for_each(|value| file.write_all(&value.to_le_bytes()))
            }),
        });
        let metadata = BTreeMap::new();
        write_shards(
            folder.path(),
            "model",
            &metadata,
            entries.collect(),
            limit,
            || (),
        )
        .unwrap();
    };
    for (size, limit) in [(64, 1000), (32, 100), (16, 1000)] {
        write(&tensors(size), limit);
        same(
            &Checkpoint::open(folder.path()).unwrap().tensors,
            &tensors(size),
        );
    }
    assert!(!folder.path().join("model.safetensors.index.json").exists());
}

/// `{"model": …, "model_ema": …, "epoch": 7}`, where the average has one of the two.
fn container() -> Vec<u8> {
    let values = tensors(16);
    let pickle = Pickle::new()
        .raw(b"}(")
        .text("model")
        .raw(b"}(")
        .text("a")
        .tensor("0", 3, 0, &[3], &[1])
        .text("buffer")
        .tensor("0", 3, 0, &[1], &[1])
        .raw(b"u")
        .text("model_ema")
        .raw(b"}(")
        .text("a")
        .tensor("1", 16, 4, &[3], &[4])
        .raw(b"u")
        .text("optimizer")
        .raw(b"}(")
        .text("step")
        .tensor("0", 3, 2, &[], &[])
        .raw(b"uu");
    zip(&pickle.stop(), &values)
}

#[test]
fn the_average_replaces_what_was_averaged_and_leaves_the_buffers() {
    let checkpoint = Checkpoint::from_bytes("c.pth", container()).unwrap();
    let a = |which| {
        let found = checkpoint.state_dict(which).unwrap();
        assert_eq!(found.tensors.keys().collect::<Vec<_>>(), ["a", "buffer"]);
        (
            found.tensors["a"].values().unwrap(),
            found.which.unwrap(),
            found.left_out,
        )
    };
    let averaged = (
        vec![1.0, 3.0, 5.0],
        Which::Ema,
        BTreeMap::from([("optimizer".to_owned(), 1)]),
    );
    assert_eq!(a(None), averaged);
    assert_eq!(a(Some(Which::Ema)), averaged);
    let (raw, which, left_out) = a(Some(Which::Raw));
    assert_eq!((raw, which), (vec![-1.0, -0.5, 0.0], Which::Raw));
    assert_eq!(
        left_out.keys().collect::<Vec<_>>(),
        ["model_ema", "optimizer"]
    );
    let values = tensors(16);
    let bare = Checkpoint::from_bytes("w.pth", zip(&state_dict(&values), &values)).unwrap();
    let error = bare.state_dict(Some(Which::Ema)).unwrap_err().to_string();
    assert!(
        error.contains("averaged weights") && error.contains("w.pth"),
        "{error}"
    );
}

#[test]
fn files_that_hold_no_weights_are_called_what_they_are() {
    for (bytes, what) in [
        (&b""[..], "an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "git lfs pull",
        ),
        (b"  <html>", "download failed"),
        (b"\x89PNG\r\n", "PNG"),
        (b"GGUF", "GGUF"),
        (b"\x80\x04\x95", "torch.save"),
        (b"{\"a\": 1}", "JSON"),
        (b"some words", "some words"),
    ] {
        let error = Checkpoint::from_bytes("f.pth", bytes).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, Error::Unknown { .. }) && text.contains(what) && text.contains("f.pth"),
            "{text}"
        );
    }
    let error = Checkpoint::open("no/such.pth").unwrap_err().to_string();
    assert!(error.contains("no/such.pth"), "{error}");
}

#[test]
fn a_class_outside_the_set_is_refused_by_its_name() {
    let values = tensors(40);
    for (module, name) in [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch.storage", "_load_from_bytes"),
        ("numpy.core.multiarray", "_reconstruct"),
    ] {
        let pickle = Pickle::new().global(module, name).raw(b")R").stop();
        for file in [zip(&pickle, &values), legacy(&pickle, &values)] {
            let error = Checkpoint::from_bytes("hostile.pth", file).unwrap_err();
            assert!(
                matches!(&error, Error::Refused { class, .. } if *class == format!("{module}.{name}")),
                "{error}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    /// Any view of a storage is what its definition says, or refused where it reaches beyond.
    #[test]
    fn a_view_is_its_definition(
        offset in 0..40_usize,
        shape in prop::collection::vec(0..5_usize, 0..4),
        steps in prop::collection::vec(0..9_usize, 4),
        old: bool,
    ) {
        let values = tensors(64);
        let stored = &values[1].2;
        let strides = &steps[..shape.len()];
        let pickle = Pickle::new().raw(b"}(").text("w").tensor("1", 64, offset, &shape, strides).text("b");
        let pickle = pickle.tensor("0", 3, 0, &[3], &[1]).raw(b"u").stop();
        let bytes = if old { legacy(&pickle, &values) } else { zip(&pickle, &values) };
        let elements: usize = shape.iter().product();
        let places: Vec<usize> = (0..elements)
            .map(|mut index| {
                let mut place = offset;
                for (length, stride) in shape.iter().zip(strides).rev() {
                    place += index % length * stride;
                    index /= length;
                }
                place
            })
            .collect();
        let expected: Option<Vec<f32>> = places.iter().map(|&place| stored.get(place).copied()).collect();
        match (Checkpoint::from_bytes("v.pth", bytes), expected) {
            (Ok(checkpoint), Some(expected)) => {
                prop_assert_eq!(checkpoint.tensors["w"].shape(), &shape[..]);
                prop_assert_eq!(checkpoint.tensors["w"].values().unwrap(), expected);
            }
            (Err(_), None) => {}
            // A tensor of more values than its storage, by strides of 0, is refused though each of them exists.
            (Err(error), Some(expected)) => {
                prop_assert!(expected.len() > stored.len() || expected.is_empty(), "{error}");
            }
            (Ok(_), None) => prop_assert!(false, "a view beyond its storage was accepted"),
        }
    }
}
