//! PyTorch's files: what Python and `torch.save` write is understood.

use crate::make::{Pickle, Tensor, archive, legacy, state_dict, tensors, zip};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tessera_checkpoint::{Checkpoint, Dtype, Error};

/// What a file came to: names, shapes and values.
pub type Content = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Opens a file and reads all of its tensors.
pub fn read(bytes: Vec<u8>) -> Result<Content, Error> {
    let checkpoint = Checkpoint::from_bytes("w.pth", bytes)?;
    let tensors = checkpoint.tensors.iter();
    tensors
        .map(|(name, tensor)| Ok((name.clone(), (tensor.shape().to_vec(), tensor.values()?))))
        .collect()
}

/// The one tensor of a pickle over the first of the tensors' storages, of 3 values, and the second, of 16.
fn one(pickle: Pickle) -> (Vec<usize>, Vec<f32>) {
    let pickle = Pickle::new().raw(b"}").text("w").raw(&pickle.0).raw(b"s");
    let mut found = read(zip(&pickle.stop(), &tensors(16))).unwrap();
    assert_eq!(found.len(), 1);
    found.remove("w").unwrap()
}

/// A file that the reference wrote, which users do not have: without it a test is skipped, unless one was promised.
fn fixture(file: &str) -> Option<PathBuf> {
    let promised = std::env::var_os("TESSERA_FIXTURES").map(PathBuf::from);
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let path = promised.clone().unwrap_or_else(default).join(file);
    if path.is_file() {
        return Some(path);
    }
    assert!(
        promised.is_none(),
        "TESSERA_FIXTURES is set, but there is no {}",
        path.display()
    );
    println!("skipped: there is no {}", path.display());
    None
}

#[test]
fn files_of_the_reference_are_read_whole() {
    for (file, count, name, shape) in [
        (
            "kl16_a.ckpt",
            312,
            "model.encoder.conv_in.weight",
            &[32, 3, 3, 3][..],
        ),
        ("tokenbridge_a.pth", 337, "model.fake_latent", &[1, 64]),
    ] {
        let Some(path) = fixture(file) else { continue };
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.tensors.len(), count, "{file}");
        assert_eq!(checkpoint.tensors[name].shape(), shape);
        let mut bytes = 0;
        for (name, tensor) in &checkpoint.tensors {
            // Reading compares the checksum that the archive has of each storage.
            let values = tensor.values().unwrap();
            assert_eq!(values.len(), tensor.elements(), "{name}");
            // The mask over channels has minus infinity.
            assert!(values.iter().all(|value| *value < 1e6), "{name}");
            bytes += tensor.length();
        }
        // What is not tensors is their description.
        let length = std::fs::metadata(&path).unwrap().len();
        assert!(
            bytes < length && length < bytes + bytes / 4,
            "{file}: {bytes} of {length}"
        );
        if file == "tokenbridge_a.pth" {
            assert_eq!(checkpoint.metadata["scaler.scale"], "1");
            assert_eq!(checkpoint.metadata["optimizer.param_groups.0.lr"], "0.001");
            assert_eq!(checkpoint.metadata["epoch"], "3");
            assert!(checkpoint.tensors.contains_key("model_ema.fake_latent"));
        }
    }
}

/// `{'args': Namespace(lr=0.5, name='x'), 't': (1, 2, 3, 4), 's': {1}, 'f': frozenset([2]),
/// 'd': defaultdict(list, {3: [4]}), 'big': 2**70, 'neg': -5}` as Python 3.11 pickles it in protocols 2 and 4.
const PICKLED: [&[u8]; 2] = [
    b"\x80\x02}q\x00(X\x04\x00\x00\x00argsq\x01cargparse\nNamespace\nq\x02)\x81q\x03}q\x04(X\x02\x00\x00\x00lrq\x05G?\
      \xe0\x00\x00\x00\x00\x00\x00X\x04\x00\x00\x00nameq\x06X\x01\x00\x00\x00xq\x07ubX\x01\x00\x00\x00tq\x08(K\x01K\
      \x02K\x03K\x04tq\tX\x01\x00\x00\x00sq\nc__builtin__\nset\nq\x0b]q\x0cK\x01a\x85q\rRq\x0eX\x01\x00\x00\x00fq\x0fc\
      __builtin__\nfrozenset\nq\x10]q\x11K\x02a\x85q\x12Rq\x13X\x01\x00\x00\x00dq\x14ccollections\ndefaultdict\nq\x15c\
      __builtin__\nlist\nq\x16\x85q\x17Rq\x18K\x03]q\x19K\x04asX\x03\x00\x00\x00bigq\x1a\x8a\t\x00\x00\x00\x00\x00\x00\
      \x00\x00@X\x03\x00\x00\x00negq\x1bJ\xfb\xff\xff\xffu.",
    b"\x80\x04\x95\xc3\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04args\x94\x8c\x08argparse\x94\x8c\tNamespace\x94\x93\
      \x94)\x81\x94}\x94(\x8c\x02lr\x94G?\xe0\x00\x00\x00\x00\x00\x00\x8c\x04name\x94\x8c\x01x\x94ub\x8c\x01t\x94(K\
      \x01K\x02K\x03K\x04t\x94\x8c\x01s\x94\x8f\x94(K\x01\x90\x8c\x01f\x94(K\x02\x91\x94\x8c\x01d\x94\x8c\x0bcollectio\
      ns\x94\x8c\x0bdefaultdict\x94\x93\x94\x8c\x08builtins\x94\x8c\x04list\x94\x93\x94\x85\x94R\x94K\x03]\x94K\x04as\
      \x8c\x03big\x94\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@\x8c\x03neg\x94J\xfb\xff\xff\xffu.",
];

#[test]
fn containers_of_python_are_walked_in_either_protocol() {
    let expected = [
        ("args.lr", "0.5"),
        ("args.name", "x"),
        ("d.3.0", "4"),
        ("f.0", "2"),
        ("neg", "-5"),
        ("s.0", "1"),
        ("t.0", "1"),
        ("t.1", "2"),
        ("t.2", "3"),
        ("t.3", "4"),
    ];
    for pickle in PICKLED {
        let file = Checkpoint::from_bytes("w.pth", zip(pickle, &[])).unwrap();
        let found: Vec<_> = file.metadata.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(found, expected);
        assert!(file.tensors.is_empty());
    }
}

#[test]
fn a_tensor_is_read_from_protocol_4() {
    fn text(text: &str) -> Vec<u8> {
        [&[0x8c, text.len() as u8], text.as_bytes(), &[0x94]].concat()
    }
    let class = |module, name| [text(module), text(name), b"\x93\x94".to_vec()].concat();
    let storage = [
        b"(".to_vec(),
        text("storage"),
        class("torch", "FloatStorage"),
        text("0"),
        text("cpu"),
        b"K\x03t\x94Q".to_vec(),
    ];
    let pickle = [
        b"\x80\x04\x95\x00\x01\x00\x00\x00\x00\x00\x00}\x94".to_vec(),
        text("w"),
        class("torch._utils", "_rebuild_tensor_v2"),
        b"(".to_vec(),
        storage.concat(),
        b"K\x01K\x02\x85\x94K\x01\x85\x94\x89".to_vec(),
        class("collections", "OrderedDict"),
        b")R\x94t\x94R\x94s.".to_vec(),
    ];
    let found = read(zip(&pickle.concat(), &tensors(16)[..1])).unwrap();
    assert_eq!(found["w"], (vec![2], vec![-0.5, 0.0]));
}

/// A tensor of 4 elements in storage 0, which is of the class named, by the function named.
fn typed(
    class: (&str, &str),
    elements: usize,
    function: &str,
    rest: impl Fn(Pickle) -> Pickle,
) -> Vec<u8> {
    let pickle = Pickle::new()
        .raw(b"}")
        .text("w")
        .global("torch._utils", function)
        .raw(b"((");
    let pickle = pickle
        .text("storage")
        .global(class.0, class.1)
        .text("0")
        .text("cpu");
    let pickle = pickle.int(elements).raw(b"tQ").int(0).ints(&[4]).ints(&[1]);
    rest(
        pickle
            .raw(b"\x89")
            .global("collections", "OrderedDict")
            .raw(b")R"),
    )
    .raw(b"tRs")
    .stop()
}

#[test]
fn every_element_type_is_read_from_its_storage() {
    let nothing = |pickle| pickle;
    let file = |pickle: &[u8], bytes: &[u8]| {
        archive(&[
            ("a/data.pkl".into(), pickle.to_vec()),
            ("a/data/0".into(), bytes.to_vec()),
        ])
    };
    for (class, dtype, one) in [
        ("DoubleStorage", Dtype::F64, &1f64.to_le_bytes()[..]),
        ("FloatStorage", Dtype::F32, &1f32.to_le_bytes()),
        ("HalfStorage", Dtype::F16, &[0x00, 0x3c]),
        ("BFloat16Storage", Dtype::BF16, &[0x80, 0x3f]),
        ("LongStorage", Dtype::I64, &1i64.to_le_bytes()),
        ("IntStorage", Dtype::I32, &1i32.to_le_bytes()),
        ("ShortStorage", Dtype::I16, &1i16.to_le_bytes()),
        ("CharStorage", Dtype::I8, &[1]),
        ("ByteStorage", Dtype::U8, &[1]),
        ("BoolStorage", Dtype::BOOL, &[1]),
    ] {
        for function in ["_rebuild_tensor", "_rebuild_tensor_v2"] {
            let pickle = typed(("torch", class), 4, function, nothing);
            let file = Checkpoint::from_bytes("w.pth", file(&pickle, &one.repeat(4))).unwrap();
            assert_eq!(file.tensors["w"].dtype(), dtype, "{class}");
            assert_eq!(file.tensors["w"].values().unwrap(), [1.0; 4], "{class}");
        }
    }
    // An untyped storage counts bytes, and the tensor says what they are.
    for module in ["torch", "torch.storage"] {
        let pickle = typed(
            (module, "UntypedStorage"),
            8,
            "_rebuild_tensor_v3",
            |pickle| pickle.global("torch", "uint16"),
        );
        let found = read(file(&pickle, &[1, 0, 2, 0, 3, 0, 4, 0])).unwrap();
        assert_eq!(found["w"].1, [1.0, 2.0, 3.0, 4.0]);
    }
    let other = typed(
        ("torch", "FloatStorage"),
        4,
        "_rebuild_tensor_v3",
        |pickle| pickle.global("torch", "float16"),
    );
    let error = read(file(&other, &[0; 16])).unwrap_err().to_string();
    assert!(error.contains("F16") && error.contains("F32"), "{error}");
}

#[test]
fn tensors_of_no_axes_and_of_no_elements_are_tensors() {
    assert_eq!(
        one(Pickle::default().tensor("0", 3, 2, &[], &[])),
        (vec![], vec![0.0])
    );
    assert_eq!(
        one(Pickle::default().tensor("0", 3, 3, &[0, 7], &[7, 1])),
        (vec![0, 7], vec![])
    );
    // The stride of an axis of length 1 means nothing.
    let huge = i32::MAX as usize;
    assert_eq!(
        one(Pickle::default().tensor("0", 3, 1, &[1, 2], &[huge, 1])),
        (vec![1, 2], vec![-0.5, 0.0])
    );
    assert_eq!(
        one(Pickle::default().tensor("0", 3, 0, &[2, 1], &[2, huge])),
        (vec![2, 1], vec![-1.0, 0.0])
    );
    let bare = Pickle::new().tensor("0", 3, 0, &[3], &[1]).stop();
    assert_eq!(
        read(zip(&bare, &tensors(16))).unwrap()["tensor"].1,
        [-1.0, -0.5, 0.0]
    );
}

#[test]
fn parameters_and_what_is_named_twice_are_read_in_each_place() {
    let parameter = Pickle::new()
        .raw(b"}q\x00(")
        .text("inner")
        .raw(b"}q\x01")
        .text("w")
        .global("torch._utils", "_rebuild_parameter")
        .raw(b"(")
        .tensor("0", 3, 0, &[3], &[1])
        .raw(b"\x88}tRq\x02s")
        .text("same")
        .raw(b"h\x01")
        .text("list")
        .raw(b"](h\x02h\x02eu");
    let found = read(zip(&parameter.stop(), &tensors(16))).unwrap();
    let names: Vec<_> = found.keys().collect();
    assert_eq!(names, ["inner.w", "list.0", "list.1", "same.w"]);
    assert!(
        found
            .values()
            .all(|(_, values)| *values == [-1.0, -0.5, 0.0])
    );
}

/// A tensor of two elements from `at` in a part of storage 1, which has 16.
fn part(offset: usize, elements: usize, at: usize) -> Vec<u8> {
    let pickle = Pickle::new()
        .raw(b"}(")
        .text("a")
        .tensor("0", 3, 0, &[3], &[1])
        .text("w");
    let pickle = pickle
        .global("torch._utils", "_rebuild_tensor")
        .raw(b"((")
        .text("storage");
    let pickle = pickle
        .global("torch", "FloatStorage")
        .text("1")
        .text("cpu")
        .int(16)
        .raw(b"(");
    let pickle = pickle.text("7").int(offset).int(elements).raw(b"ttQ");
    pickle.int(at).ints(&[2]).ints(&[2]).raw(b"tRu").stop()
}

#[test]
fn an_early_file_may_have_views_of_storages() {
    let values = tensors(16);
    let found = read(legacy(&part(4, 6, 1), &values)).unwrap();
    assert_eq!(found["w"].1, [values[1].2[5], values[1].2[7]]);
    for (part, what) in [
        (part(12, 5, 0), "storage `1`"),
        (part(usize::MAX, 5, 0), "storage `1`"),
        (part(4, 2, 0), "tensor `w`"),
    ] {
        let error = read(legacy(&part, &values)).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_model_of_many_small_tensors_is_in_proportion() {
    let names: Vec<String> = (0..300)
        .map(|i| format!("blocks.{i}.norm.weight"))
        .collect();
    let values: Vec<Tensor> = (0..300).map(|_| ("", vec![128], vec![0.5; 128])).collect();
    let mut pickle = Pickle::new().raw(b"}q\x00(");
    let mut put = 0_u32;
    for (key, name) in names.iter().enumerate() {
        pickle = pickle
            .text(name)
            .tensor(&key.to_string(), 128, 0, &[128], &[1]);
        // As often as `torch.save` does.
        for _ in 0..8 {
            put += 1;
            pickle = pickle.raw(b"r").raw(&put.to_le_bytes());
        }
    }
    let pickle = pickle.raw(b"u").stop();
    for file in [zip(&pickle, &values), legacy(&pickle, &values)] {
        assert_eq!(read(file).unwrap().len(), 300);
    }
}

#[test]
fn numbers_and_strings_are_kept_up_to_a_thousand_the_outer_ones_first() {
    let mut pickle = Pickle::new().raw(b"}(").text("state").raw(b"}(");
    for index in 0..2000 {
        pickle = pickle
            .int(index)
            .raw(b"}")
            .text("step")
            .int(index)
            .raw(b"s");
    }
    let pickle = pickle.raw(b"u").text("epoch").int(12).raw(b"u").stop();
    let values = tensors(40_000);
    let file = Checkpoint::from_bytes("w.pth", zip(&pickle, &values)).unwrap();
    assert_eq!(file.metadata["epoch"], "12");
    assert_eq!(file.metadata["state.7.step"], "7");
    assert!(file.metadata.len() <= 1000, "{}", file.metadata.len());
}

#[test]
fn an_archive_may_state_its_numbers_in_64_bits() {
    let values = tensors(8);
    let good = zip(&state_dict(&values), &values);
    let end = good.len() - 22;
    let (count, size, start) = (
        u16::from_le_bytes([good[end + 10], good[end + 11]]),
        u32::from_le_bytes(good[end + 12..end + 16].try_into().unwrap()),
        u32::from_le_bytes(good[end + 16..end + 20].try_into().unwrap()),
    );
    let wide = |count: u64| {
        let record = [
            44,
            0x03_1e + (45 << 16),
            count,
            count,
            size.into(),
            start.into(),
        ];
        let mut bytes = [&good[..end], b"PK\x06\x06"].concat();
        bytes.extend(record[0].to_le_bytes());
        bytes.extend((record[1] as u32).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(record[2..].iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(b"PK\x06\x07\0\0\0\0");
        bytes.extend((end as u64).to_le_bytes());
        bytes.extend([1, 0, 0, 0]);
        bytes
    };
    let stated = [wide(count.into()), good[end..].to_vec()].concat();
    let left = [
        wide(count.into()),
        b"PK\x05\x06\0\0\0\0".to_vec(),
        vec![0xff; 12],
        vec![0; 2],
    ]
    .concat();
    let expected = read(good.clone()).unwrap();
    assert_eq!(read(stated).unwrap(), expected);
    assert_eq!(read(left).unwrap(), expected);
    for count in [0, u64::from(count) + 1, u64::MAX] {
        let error = read([wide(count), good[end..].to_vec()].concat())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("disagree") || error.contains("before byte"),
            "{error}"
        );
    }
}
