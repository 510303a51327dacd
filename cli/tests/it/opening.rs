//! What is looked at when a model is opened: its config, the names, shapes and checksums of its weights, and that its
//! parts belong together.

use crate::world::{WORLD, failure, json, stdout, tessera};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use tessera::gen_dit::{DitConfig, SampleConfig};
use tessera::tokenizers::PixelTokenizer;
use tessera::weights::{Weight, Weights};
use tessera::{ComputePrecision, Device, DitCard, DitModel, WeightDtype};

/// A copy of the shared model.
fn copy_of_model(to: &Path) {
    let from = WORLD.model();
    fs::create_dir_all(to.join("vae")).unwrap();
    for name in [
        "model.json",
        "config.json",
        "model.safetensors",
        "calibration.json",
        "vae/config.json",
        "vae/model.safetensors",
    ] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// Changes a file of JSON.
fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

/// Sets the first value of a tensor, and writes the file with checksums that fit.
fn set(file: &Path, name: &str, value: f32) {
    let mut weights = Weights::read(file).unwrap();
    let old = weights.take(name).unwrap();
    let mut values = old.values().unwrap().into_owned();
    values[0] = value;
    weights.insert(name, Weight::new(old.shape(), values));
    weights
        .write(file, BTreeMap::new(), WeightDtype::F32)
        .unwrap();
}

fn picture(model: &Path, out: &Path) -> Vec<u8> {
    let args = "generate -m {} -c disc --steps 2 --no-metadata --overwrite -o {}";
    stdout(args, &[model, out]);
    fs::read(out).unwrap()
}

#[test]
fn a_config_that_claims_too_much_is_refused_in_a_line_that_names_both_files() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("x.png"));
    for (part, pointer) in [
        ("", "/enc/depth"),
        ("vae", "/num_res_blocks"),
        ("vae", "/ch"),
    ] {
        copy_of_model(&model);
        let config = model.join(part).join("config.json");
        edit(&config, |config| {
            *config.pointer_mut(pointer).unwrap() = json!(1_u64 << 40)
        });
        let error = failure(1, "generate -m {} -c disc -o {}", &[&model, &out]);
        let expected = format!("{}: describes a model of ", config.display());
        let weights = model.join(part).join("model.safetensors");
        let held = format!("parameters; {} holds ", weights.display());
        assert!(
            error.contains(&expected) && error.contains(&held),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_part_that_was_exchanged_is_refused_until_it_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = at("model");
    for (file, tensor, part) in [
        ("vae/model.safetensors", "post_quant_conv.bias", "tokenizer"),
        ("model.safetensors", "z_proj.bias", "generator"),
    ] {
        copy_of_model(&model);
        let same = picture(&model, &at("same.png"));
        set(&model.join(file), tensor, 0.75);
        let error = failure(1, "generate -m {} -c disc -o {}", &[&model, &at("x.png")]);
        let expected =
            format!("the weights of the {part}: expected those that model.json was written with");
        assert!(error.contains(&expected), "{error}");
        assert!(error.contains("tessera convert"), "{error}");
        let error = failure(1, "inspect {} --verify", &[&model]);
        assert!(error.contains(&expected), "{error}");
        let meant = at(part);
        stdout("convert {} -o {}", &[&model, &meant]);
        assert_ne!(picture(&meant, &at("meant.png")), same);
        // As in folders of before there was this.
        edit(&model.join("model.json"), |card| {
            card.as_object_mut().unwrap().remove("parts").unwrap();
        });
        assert_eq!(
            picture(&model, &at("old.png")),
            picture(&meant, &at("meant.png"))
        );
    }
    // Given by itself, a tokenizer is meant.
    copy_of_model(&model);
    let vae = model.join("vae/model.safetensors");
    set(&vae, "post_quant_conv.bias", 0.75);
    let args = "generate -m {} --vae {} -c disc --steps 2 -o {}";
    stdout(args, &[&model, &model.join("vae"), &at("given.png")]);
}

#[test]
fn opening_compares_names_shapes_and_checksums_and_verifying_reads_every_value() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let changed = |change: &dyn Fn(&Path)| {
        copy_of_model(&model);
        change(&model.join("vae/model.safetensors"));
        failure(
            1,
            "generate -m {} -c disc -o {}",
            &[&model, &folder.path().join("x.png")],
        )
    };
    let renamed = |file: &Path| {
        let mut weights = Weights::read(file).unwrap();
        let weight = weights.take("post_quant_conv.bias").unwrap();
        weights.insert("post_quant_conv.bias_", weight);
        weights
            .write(file, BTreeMap::new(), WeightDtype::F32)
            .unwrap();
    };
    let unsealed = |change: &dyn Fn(&Path)| {
        changed(&|file| {
            edit(&model.join("model.json"), |card| {
                card.as_object_mut().unwrap().remove("parts").unwrap();
            });
            change(file);
        })
    };
    let error = unsealed(&renamed);
    assert!(error.contains("missing (`post_quant_conv.bias`"), "{error}");
    let error = unsealed(&|file| {
        let mut weights = Weights::read(file).unwrap();
        weights.insert("post_quant_conv.bias", Weight::new([5], vec![0.0; 5]));
        weights
            .write(file, BTreeMap::new(), WeightDtype::F32)
            .unwrap();
    });
    assert!(error.contains("has shape [5], expected [4]"), "{error}");
    let flipped = |file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(file, bytes).unwrap();
    };
    for error in [changed(&flipped), unsealed(&flipped)] {
        assert!(
            error.contains("checksum") && error.contains("vae/model.safetensors"),
            "{error}"
        );
    }

    // A value that is not finite is found by reading it, in any part of a model.
    copy_of_model(&model);
    let whole = json(
        "inspect {} --verify --json",
        &[&model],
        "tessera.inspect/v1",
    );
    for part in ["model.safetensors", "vae/model.safetensors"] {
        assert_eq!(whole["weights"][part]["check"]["loaded"], true, "{whole}");
    }
    set(
        &model.join("vae/model.safetensors"),
        "post_quant_conv.bias",
        f32::NAN,
    );
    stdout("inspect {}", &[&model]);
    let error = failure(1, "inspect {} --verify", &[&model]);
    let expected = "tensor `post_quant_conv.bias` holds NaN";
    assert!(
        error.contains(expected) && error.contains("vae/model.safetensors"),
        "{error}"
    );
}

#[test]
fn half_a_tokenizer_is_looked_at_as_that() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("decoder.safetensors");
    let mut weights = Weights::read(WORLD.vae()).unwrap();
    weights.take_prefix("encoder.");
    weights
        .write(&file, BTreeMap::new(), WeightDtype::F32)
        .unwrap();
    let expected = "is the decoder of a KL-VAE alone, expected one with its encoder";
    let said = stdout("inspect {}", &[&file]);
    assert!(said.contains(expected), "{said}");
    let whole = json("inspect {} --json", &[&WORLD.vae()], "tessera.inspect/v1");
    assert_eq!(whole["half"], Value::Null);
    assert_eq!(whole["config"]["resolution"], 16, "as its config says");
    let bare = folder.path().join("bare.safetensors");
    fs::copy(WORLD.vae().join("model.safetensors"), &bare).unwrap();
    let bare = json("inspect {} --json", &[&bare], "tessera.inspect/v1");
    assert_eq!(
        bare["config"]["resolution"],
        Value::Null,
        "shapes do not tell"
    );
    let error = failure(1, "convert {} -o {}", &[&file, &folder.path().join("out")]);
    assert!(error.contains(expected), "{error}");
}

#[test]
fn of_many_classes_those_to_draw_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("x.png"));
    let device = Device::parse("flex").unwrap();
    let config = DitConfig {
        input_size: 8,
        patch_size: 4,
        in_channels: 1,
        hidden_size: 8,
        depth: 1,
        num_heads: 1,
        ..DitConfig::xl_2()
    };
    DitModel {
        card: DitCard {
            schema: DitCard::SCHEMA.into(),
            name: "many".into(),
            img_size: 8,
            class_names: (0..config.num_classes).map(|id| id.to_string()).collect(),
            latent_mean: vec![0.0],
            latent_scale: vec![1.0],
            sampling: SampleConfig::new(2, 1.0),
            parts: BTreeMap::new(),
        },
        tokenizer: Box::new(PixelTokenizer::new(1, device.burn())),
        transformer: config.init(0, device.burn()),
        digest: None,
        precision: ComputePrecision::F32,
        device,
    }
    .save(&model, WeightDtype::F32)
    .unwrap();
    let error = failure(1, "generate -m {} -o {}", &[&model, &out]);
    let expected = "the model has 1000 classes: give those to draw with --class, or --class all";
    assert!(error.contains(expected), "{error}");
    stdout("generate -m {} -c 999 -o {}", &[&model, &out]);
}

#[test]
fn a_model_is_found_from_inside_its_folder_and_a_run_converts_as_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let draw = |options: &[&str], out: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_tessera"))
            .current_dir(WORLD.model())
            .args(["generate", "-m", ".", "-c", "disc", "-t", "1", "-o"])
            .arg(at(out))
            .args(options)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        (said, fs::read(at(out)).unwrap())
    };
    let (said, raw) = draw(&["--weights", "raw"], "raw.png");
    assert!(said.contains("raw weights of "), "{said}");
    let (_, averaged) = draw(&["--weights", "ema"], "ema.png");
    assert_ne!(raw, averaged);

    for (run, copy) in [(WORLD.run(), "a"), (crate::dit::RUN.1.clone(), "b")] {
        stdout("convert {} -o {}", &[&run, &at(copy)]);
        assert_eq!(
            picture(&at(copy), &at("x.png")),
            picture(&run, &at("y.png"))
        );
        let args = "convert {} --weights raw -o {}";
        stdout(args, &[&run, &at(&format!("{copy}-raw"))]);
        assert_ne!(
            picture(&at(&format!("{copy}-raw")), &at("x.png")),
            picture(&run, &at("y.png"))
        );
    }
    let vae = WORLD.vae();
    stdout("convert {} -o {}", &[vae.parent().unwrap(), &at("vae")]);
    let weights = |folder: &Path| Weights::read(folder).unwrap().len();
    assert_eq!(weights(&at("vae")), weights(&vae));
    assert!(
        !tessera("convert {} -o {}", &[&WORLD.pictures(), &at("none")])
            .status
            .success()
    );
}
