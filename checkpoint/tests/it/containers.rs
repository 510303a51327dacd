//! Weights wherever trainers, wrappers and other models put them.

use crate::make::{Pickle, Tensor, legacy, safetensors, zip};
use std::collections::BTreeMap;
use tessera_checkpoint::{Checkpoint, Error, StateDict, Which};

/// What a pickle holds.
#[derive(Clone)]
enum Node {
    /// Values by their storage.
    Tensor(Vec<f32>),
    Dict(Vec<(String, Node)>),
    List(Vec<Node>),
    Int(usize),
    /// An object of a class, with a tensor as its state if there is one.
    Object(&'static str, &'static str, Option<Vec<f32>>),
}
use Node::{Dict, Int, List, Object};

fn dict<const N: usize>(items: [(&str, Node); N]) -> Node {
    Dict(items.map(|(name, node)| (name.to_owned(), node)).into())
}

/// A tensor of one axis.
fn tensor(values: &[f32]) -> Node {
    Node::Tensor(values.to_vec())
}

/// Names and values of a small KL-VAE, each value more by `more`.
fn vae(more: f32) -> Vec<(&'static str, Vec<f32>)> {
    let names = [
        ("encoder.down.0.w", 2),
        ("decoder.up.0.w", 3),
        ("post_quant_conv.bias", 1),
        ("decoder.up.0.b", 4),
    ];
    let values = |length: usize| (0..length).map(|i| (i + length) as f32 + more).collect();
    names.map(|(name, length)| (name, values(length))).into()
}

/// That as a dictionary, with `prefix` before each name.
fn under(prefix: &str, more: f32) -> Node {
    let named = vae(more).into_iter();
    Dict(
        named
            .map(|(name, values)| (format!("{prefix}{name}"), Node::Tensor(values)))
            .collect(),
    )
}

fn both(one: Node, other: Node) -> Node {
    match (one, other) {
        (Dict(one), Dict(other)) => Dict(one.into_iter().chain(other).collect()),
        _ => unreachable!("only dictionaries are joined"),
    }
}

fn write(node: &Node, mut pickle: Pickle, stored: &mut Vec<Tensor>) -> Pickle {
    let tensor = |pickle: Pickle, values: &Vec<f32>, stored: &mut Vec<Tensor>| {
        let key = stored.len().to_string();
        stored.push(("", vec![values.len()], values.clone()));
        pickle.tensor(&key, values.len(), 0, &[values.len()], &[1])
    };
    match node {
        Node::Tensor(values) => tensor(pickle, values, stored),
        Dict(items) => {
            pickle = pickle.raw(b"}(");
            for (name, node) in items {
                pickle = write(node, pickle.text(name), stored);
            }
            pickle.raw(b"u")
        }
        List(items) => {
            pickle = pickle.raw(b"](");
            for node in items {
                pickle = write(node, pickle, stored);
            }
            pickle.raw(b"e")
        }
        Int(value) => pickle.int(*value),
        Object(module, name, state) => {
            pickle = pickle.global(module, name).raw(b")R");
            match state {
                Some(values) => tensor(pickle.raw(b"}").text("w"), values, stored).raw(b"sb"),
                None => pickle,
            }
        }
    }
}

fn open(node: &Node) -> Checkpoint {
    let mut stored = Vec::new();
    let pickle = write(node, Pickle::new(), &mut stored).stop();
    // Early files hold the same.
    let old = Checkpoint::from_bytes("w.ckpt", legacy(&pickle, &stored)).unwrap();
    let new = Checkpoint::from_bytes("w.pth", zip(&pickle, &stored)).unwrap();
    assert_eq!(
        old.tensors.keys().collect::<Vec<_>>(),
        new.tensors.keys().collect::<Vec<_>>()
    );
    new
}

fn values(found: &StateDict) -> BTreeMap<&str, Vec<f32>> {
    let tensors = found.tensors.iter();
    tensors
        .map(|(name, tensor)| (name.as_str(), tensor.values().unwrap()))
        .collect()
}

#[test]
fn weights_are_found_wherever_they_are() {
    let beside = || {
        dict([
            ("epoch", Int(3)),
            ("rng", tensor(&[1.0, 2.0])),
            ("loss", tensor(&[0.5])),
            ("when", Object("datetime", "date", None)),
            ("path", Object("pathlib", "PosixPath", None)),
            ("best", Object("numpy._core.multiarray", "scalar", None)),
            (
                "callback",
                Object("lightning", "Checkpoint", Some(vec![9.0])),
            ),
            (
                "optimizer",
                dict([("state", List(vec![dict([("exp_avg", under("", 50.0))])]))]),
            ),
        ])
    };
    let within = |name: &str, node: Node| both(dict([(name, node)]), beside());
    let unet = || {
        dict([
            ("model.diffusion_model.time_embed.0.weight", tensor(&[1.0])),
            ("cond_stage_model.x", tensor(&[1.0])),
            ("model_ema.decay", tensor(&[0.9])),
        ])
    };
    for (node, path) in [
        (under("", 0.0), ""),
        (under("module.", 0.0), "module"),
        (under("_orig_mod.", 0.0), "_orig_mod"),
        (within("model", under("", 0.0)), "model"),
        (within("model", under("_orig_mod.", 0.0)), "model._orig_mod"),
        (
            within("state", under("module._orig_mod.", 0.0)),
            "state.module._orig_mod",
        ),
        (within("netG", under("", 0.0)), "netG"),
        (within("vae", under("", 0.0)), "vae"),
        (
            within("state_dict", under("autoencoder.", 0.0)),
            "state_dict.autoencoder",
        ),
        (
            within("any", dict([("thing", under("at.all.", 0.0))])),
            "any.thing.at.all",
        ),
        (
            both(under("first_stage_model.", 0.0), unet()),
            "first_stage_model",
        ),
        (
            within("state_dict", both(under("first_stage_model.", 0.0), unet())),
            "state_dict.first_stage_model",
        ),
    ] {
        let checkpoint = open(&node);
        for which in [None, Some(Which::Raw)] {
            let found = checkpoint.state_dict(which).unwrap();
            assert_eq!(values(&found), vae(0.0).into_iter().collect(), "{path}");
            assert_eq!(found.path, path);
        }
        let error = checkpoint
            .state_dict(Some(Which::Ema))
            .unwrap_err()
            .to_string();
        assert!(error.contains("averaged weights of a KL-VAE"), "{error}");
        if checkpoint.opaque.is_empty() {
            continue;
        }
        let left_out = checkpoint.state_dict(None).unwrap().left_out;
        let expected = [("loss", 1), ("optimizer", 4), ("rng", 1)];
        let expected: BTreeMap<_, _> = expected
            .map(|(part, count)| (part.to_owned(), count))
            .into();
        assert!(
            expected
                .iter()
                .all(|(part, count)| left_out[part] == *count),
            "{left_out:?}"
        );
        assert_eq!(
            checkpoint.opaque["callback"],
            "lightning.Checkpoint, which holds tensors"
        );
        assert_eq!(checkpoint.opaque["when"], "datetime.date");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("any name.safetensors");
    let named: Vec<Tensor> = vec![
        ("vae._orig_mod.encoder.down.0.w", vec![1], vec![1.0]),
        ("vae.decoder.up.0._orig_mod.w", vec![1], vec![2.0]),
        ("vae.post_quant_conv.bias", vec![1], vec![3.0]),
    ];
    safetensors(&file, &named);
    let found = Checkpoint::open(folder.path())
        .unwrap()
        .state_dict(None)
        .unwrap();
    assert_eq!(
        found.tensors.keys().collect::<Vec<_>>(),
        ["decoder.up.0.w", "encoder.down.0.w", "post_quant_conv.bias"],
        "wrappers inside a name are none of it"
    );
}

#[test]
fn averages_are_taken_in_every_form_they_have() {
    let flat = || {
        let named = vae(100.0).into_iter();
        let named = named.map(|(name, values)| {
            (
                format!("model_ema.{}", name.replace('.', "")),
                Node::Tensor(values),
            )
        });
        both(
            Dict(named.collect()),
            dict([("model_ema.decay", tensor(&[0.9]))]),
        )
    };
    let list = || {
        List(
            vae(100.0)
                .into_iter()
                .map(|(_, values)| Node::Tensor(values))
                .collect(),
        )
    };
    let with = |name: &str, average: Node| dict([("model", under("", 0.0)), (name, average)]);
    for (node, path) in [
        (with("model_ema", under("", 100.0)), "model_ema"),
        (
            with("ema_model", under("module.", 100.0)),
            "ema_model.module",
        ),
        (with("params_ema", under("", 100.0)), "params_ema"),
        (
            with(
                "ema",
                dict([("decay", Int(1)), ("shadow", under("", 100.0))]),
            ),
            "ema.shadow",
        ),
        (
            with(
                "ema",
                dict([("shadow_params", list()), ("collected_params", list())]),
            ),
            "ema.shadow_params",
        ),
        (
            dict([("state_dict", both(under("", 0.0), flat()))]),
            "state_dict.model_ema",
        ),
        (both(under("", 0.0), flat()), "model_ema"),
    ] {
        let checkpoint = open(&node);
        for which in [None, Some(Which::Ema)] {
            let found = checkpoint.state_dict(which).unwrap();
            assert_eq!(values(&found), vae(100.0).into_iter().collect(), "{path}");
            assert_eq!(found.average.as_deref(), Some(path));
        }
        let found = checkpoint.state_dict(Some(Which::Raw)).unwrap();
        assert_eq!(values(&found), vae(0.0).into_iter().collect(), "{path}");
    }
}

#[test]
fn a_list_that_fits_in_several_ways_is_said_and_not_used() {
    let weights = dict([
        ("encoder.down.0.w", tensor(&[1.0])),
        ("decoder.up.0.w", tensor(&[2.0])),
        ("post_quant_conv.bias", tensor(&[3.0])),
    ]);
    let list = List(vec![tensor(&[4.0]), tensor(&[5.0])]);
    let checkpoint = open(&dict([
        ("model", weights),
        ("ema", dict([("shadow_params", list)])),
    ]));
    let found = checkpoint.state_dict(None).unwrap();
    assert_eq!((found.which, found.average), (Some(Which::Raw), None));
    assert_eq!(
        found.kinds["ema"],
        "a list that fits the weights in several ways: it is not used",
    );
    let error = checkpoint
        .state_dict(Some(Which::Ema))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`ema.shadow_params` is a list that fits the weights in several ways"),
        "{error}"
    );
}

#[test]
fn weights_in_several_places_are_refused_by_their_paths() {
    let two = dict([("student", under("", 0.0)), ("teacher", under("", 1.0))]);
    let error = open(&two).state_dict(None).unwrap_err().to_string();
    assert!(
        error.contains("expected one KL-VAE") && error.contains("several: `student`, `teacher`"),
        "{error}"
    );
    let ranked = dict([
        ("teacher", dict([("deep", under("", 1.0))])),
        ("student", under("", 0.0)),
    ]);
    let found = open(&ranked).state_dict(None).unwrap();
    assert_eq!(found.path, "student", "the shortest path");
    assert_eq!(found.left_out["teacher"], 4);
    assert_eq!(found.kinds["teacher"], "KL-VAE");
}

#[test]
fn what_means_harm_is_refused_and_what_holds_no_weights_is_named() {
    for (module, name) in [
        ("os", "system"),
        ("builtins", "eval"),
        ("subprocess", "Popen"),
        ("torch.storage", "_load_from_bytes"),
    ] {
        let mut stored = Vec::new();
        let node = dict([("model", under("", 0.0)), ("x", Object(module, name, None))]);
        let pickle = write(&node, Pickle::new(), &mut stored).stop();
        let error = Checkpoint::from_bytes("w.pth", zip(&pickle, &stored)).unwrap_err();
        assert!(
            matches!(&error, Error::Refused { class, .. } if *class == format!("{module}.{name}")),
            "{error}"
        );
    }
    let mut stored = Vec::new();
    let module = dict([("model", Object("torch.nn", "Linear", Some(vec![1.0])))]);
    let pickle = write(&module, Pickle::new(), &mut stored).stop();
    let error = Checkpoint::from_bytes("w.pth", zip(&pickle, &stored)).unwrap_err();
    assert!(error.to_string().contains("torch.nn.Linear"), "{error}");
}

#[test]
fn a_folder_is_what_it_holds_and_a_pipe_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let named: Vec<Tensor> = vec![("a", vec![1], vec![1.0])];
    let at = |name: &str| folder.path().join(name);
    safetensors(&at("ae.safetensors"), &named);
    safetensors(&at(".hidden.safetensors"), &named);
    assert_eq!(
        Checkpoint::open(folder.path()).unwrap().file,
        at("ae.safetensors")
    );
    safetensors(&at("b.safetensors"), &named);
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("several: ae.safetensors, b.safetensors"),
        "{error}"
    );
    let variant = "diffusion_pytorch_model.fp16.safetensors";
    safetensors(&at(variant), &named);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().file, at(variant));
    #[cfg(unix)]
    {
        let error = Checkpoint::open("/dev/null").unwrap_err().to_string();
        assert!(error.contains("a pipe, a socket or a device"), "{error}");
    }
}

#[test]
fn a_header_is_refused_with_one_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.safetensors");
    let refusal = |header: &str, data: usize| {
        let bytes = [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            &vec![0; data],
        ]
        .concat();
        std::fs::write(&file, bytes).unwrap();
        let error = Checkpoint::open(&file).unwrap_err();
        assert!(std::error::Error::source(&error).is_none(), "{error:?}");
        error.to_string()
    };
    let one =
        |dtype: &str| format!(r#"{{"a":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,4]}}}}"#);
    for (error, expected) in [
        (refusal(&one("F32"), 3), "it ends after 65 of 66 bytes"),
        (
            refusal(&one("F32"), 5),
            "67 bytes, expected 66 bytes, where the last tensor ends",
        ),
        (
            refusal(&one("Q4_0"), 4),
            "the type of `a` is \"Q4_0\", expected one of",
        ),
        (
            refusal(r#"{"__metadata__":{"n":0}}"#, 0),
            "the metadata `n` is 0, expected a string",
        ),
        (
            refusal(r#"{"__metadata__":{"n":{"a":1}}}"#, 0),
            "the metadata `n` is {\"a\":1}, expected a string",
        ),
        (
            refusal(r#"{"a":}"#, 0),
            "the header is expected value at line 1 column 6",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_expanded_tensor_is_read_as_far_as_the_file_is_long() {
    let values: Vec<Tensor> = vec![("", vec![2], vec![3.0, 4.0])];
    let pickle = Pickle::new()
        .raw(b"}")
        .text("w")
        .tensor("0", 2, 0, &[3, 2], &[0, 1])
        .raw(b"s")
        .stop();
    let file = Checkpoint::from_bytes("w.pth", zip(&pickle, &values)).unwrap();
    assert_eq!(
        file.tensors["w"].values().unwrap(),
        [3.0, 4.0, 3.0, 4.0, 3.0, 4.0]
    );
    let pickle = Pickle::new()
        .raw(b"}")
        .text("w")
        .tensor("0", 2, 1, &[1 << 30], &[0])
        .raw(b"s")
        .stop();
    let error = Checkpoint::from_bytes("w.pth", zip(&pickle, &values))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("within the 2 elements of its storage"),
        "{error}"
    );
}
