//! Weights of other makers, by way of the program: converted, looked into, generated from, refused.

use crate::world::{WORLD, failure, json, stdout};
use serde_json::{Value, json};
use std::path::Path;
use tessera::weights::Weights;

fn inspect(path: &Path) -> Value {
    json("inspect {} --json", &[path], "tessera.inspect/v1")
}

#[test]
fn a_run_becomes_weights_the_average_unless_asked_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let run = WORLD.run().join("checkpoint/step-00000003.safetensors");
    let config = WORLD.model().join("config.json");
    let convert = |kind: &str, dir: &str| {
        let args = format!("convert {{}} --config {{}} {kind} -o {{}} --json");
        json(&args, &[&run, &config, &at(dir)], "tessera.convert/v1")
    };
    let averaged = convert("", "averaged");
    assert_eq!(
        (&averaged["weights"], &averaged["left_out"]["exp_avg"]),
        (&json!("ema"), &averaged["left_out"]["exp_avg_sq"])
    );
    assert_eq!(convert("--weights raw", "raw")["weights"], "raw");
    assert_eq!(convert("--ema", "ema")["weights"], "ema");
    let read = |path: &Path| Weights::read(path).unwrap();
    for (name, weight) in read(&at("averaged")).iter() {
        assert_eq!(Some(weight), read(&WORLD.model()).get(name), "{name}");
    }
    assert_ne!(
        read(&at("raw")).get("z_proj.weight"),
        read(&at("ema")).get("z_proj.weight")
    );
}

#[test]
fn a_model_in_shards_and_half_the_bits_generates() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("out"));
    let report = json(
        "convert {} --dtype bf16 --shard 10kB -o {} --json",
        &[&WORLD.model(), &model],
        "tessera.convert/v1",
    );
    assert!(report["files"].as_array().unwrap().len() > 2, "{report}");
    let found = &inspect(&model)["weights"]["model.safetensors.index.json"];
    assert_eq!(found["format"], "sharded safetensors");
    assert_eq!(found["dtypes"]["F32"], 3, "the tables keep their bits");
    stdout("generate -m {} -c disc --steps 2 -o {}", &[&model, &out]);
    assert!(out.join("00000.png").is_file());
}

#[test]
fn a_generator_without_a_model_folder_asks_for_its_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(WORLD.model().join(name), at(name)).unwrap();
    }
    let weights = at("model.safetensors");
    let error = failure(1, "generate -m {} -c 0 -o {}", &[&weights, &at("out")]);
    assert!(
        error.contains("--vae") && error.contains("model.safetensors"),
        "{error}"
    );
    for (model, out) in [(weights, "a"), (folder.path().into(), "b")] {
        let args = "generate -m {} --vae {} -c 1 --steps 2 --no-metadata -o {}";
        stdout(args, &[&model, &WORLD.vae(), &at(out)]);
    }
    let picture = |name: &str| std::fs::read(at(name).join("00000.png")).unwrap();
    assert_eq!(picture("a"), picture("b"));
    let error = failure(
        1,
        "generate -m {} --vae {} -c 2 -o {}",
        &[folder.path(), &WORLD.vae(), &at("c")],
    );
    assert!(error.contains("classes 0 to 1"), "{error}");
}

#[test]
fn an_architecture_is_made_by_name_and_known_again() {
    let folder = tempfile::tempdir().unwrap();
    let (made, converted) = (folder.path().join("made"), folder.path().join("converted"));
    assert!(stdout("init --arch taesd -o {}", &[&made]).starts_with("2445063 parameters"));
    assert_eq!(inspect(&made)["architecture"], "tiny autoencoder");
    assert_eq!(inspect(&made)["parameters"], 2_445_063);
    stdout("convert {} -o {}", &[&made, &converted]);
    for name in ["config.json", "model.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(read(&made), read(&converted), "{name}");
    }
    let error = failure(1, "init --arch taesd -o {}", &[&made]);
    assert!(error.contains("--overwrite"), "{error}");
}

#[test]
fn checking_reads_every_value_and_names_what_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let good = WORLD.model().join("model.safetensors");
    let checked = json(
        "inspect {} --check --json",
        &[&WORLD.vae()],
        "tessera.inspect/v1",
    );
    assert_eq!(checked["check"]["loaded"], true);
    let mut bytes = std::fs::read(&good).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let bad = folder.path().join("bad.safetensors");
    std::fs::write(&bad, bytes).unwrap();
    inspect(&bad);
    let error = failure(1, "inspect {} --check", &[&bad]);
    assert!(
        error.contains("bad.safetensors") && error.contains("checksum"),
        "{error}"
    );
}

#[test]
fn a_name_that_the_hubs_cache_lacks_comes_with_the_command_that_fetches_it() {
    for args in [
        "inspect tessera-tests/none",
        "generate -m tessera-tests/none -c 0",
        "convert tessera-tests/none -o out-of-nothing",
    ] {
        let error = failure(1, args, &[]);
        assert!(error.contains("hf download tessera-tests/none"), "{error}");
    }
}

#[test]
fn what_does_not_fit_a_conversion_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/7e7173e");
    // Of three channels, where the generator's latents have four.
    let other = fixtures.join("ar/model/vae");
    let args = "convert {} --vae {} -o {}";
    let error = failure(1, args, &[&WORLD.model(), &other, &at("model")]);
    assert!(
        error.contains("channels of the latents should be 3") && error.contains("generator has 4"),
        "{error}"
    );
    let error = failure(1, args, &[&WORLD.vae(), &other, &at("model")]);
    assert!(error.contains("a tokenizer itself"), "{error}");
    let stranger = at("stranger.safetensors");
    std::fs::copy(fixtures.join("tokens/tokens-00000.safetensors"), &stranger).unwrap();
    let error = failure(1, args, &[&stranger, &other, &at("model")]);
    assert!(error.contains("no architecture that is known"), "{error}");
    assert!(!at("model").exists(), "a folder was left");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "something was left beside it");
}
