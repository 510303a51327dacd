//! Tokens that are patches of latents, and tokenizers that do not fit what was made with another.

use crate::any_vae::tiny;
use crate::world::{WORLD, failure, json, stdout};
use std::fs;
use std::path::Path;
use std::process::Command;
use tessera::pictures::read;

/// Latents of 4 x 8 x 8 from pictures of 16 px, so 4 x 4 tokens of 16 dimensions.
const AR: &str = "train ar --data {} --img-size 16 --vae {} --patch 2 --bits 4 --enc 16,1,2 --dec 16,1,2 \
                  --head 16,1,2 --buffer-size 2 --batch-size 3 --decay constant -o {}";

fn edited(file: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let mut value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    edit(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

#[test]
fn a_generator_of_patches_goes_on_to_the_bit_and_draws_a_picture_by_its_seed_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (whole, parts) = (at("whole"), at("parts"));
    let train = |options: &str, run: &Path| {
        let paths = [&*WORLD.pictures(), &*WORLD.vae(), run];
        stdout(&format!("{AR} {options}"), &paths)
    };
    train("--max-steps 2", &whole);
    train("--max-steps 1", &parts);
    let other = format!("{AR} --max-steps 2 --resume latest").replace("--patch 2", "--patch 1");
    let error = failure(1, &other, &[&WORLD.pictures(), &WORLD.vae(), &parts]);
    assert!(
        error.contains("--patch (patch_size): ran with 2, now 1"),
        "{error}"
    );
    train("--max-steps 2 --resume latest", &parts);
    let weights = |run: &Path| fs::read(run.join("model/model.safetensors")).unwrap();
    assert!(
        weights(&whole) == weights(&parts),
        "going on changes nothing"
    );

    let model = whole.join("model");
    let said = stdout("inspect {}", &[&model]);
    assert!(
        said.contains("4 bits over ±5, patches of 2 x 2 latents"),
        "{said}"
    );
    let draw = "generate -m {} -n 2 --seed 5 -o {} --batch-size";
    for (batch, out) in [(1, at("one")), (4, at("four"))] {
        stdout(&format!("{draw} {batch}"), &[&model, &out]);
    }
    let two_threads = Command::new(env!("CARGO_BIN_EXE_tessera"))
        .args(["generate", "-n", "2", "--seed", "5", "-t", "2", "-m"])
        .args([&model, Path::new("-o"), &at("threads")])
        .output();
    assert!(two_threads.unwrap().status.success());
    let again = at("again.png");
    stdout(
        "generate -m {} --from {} -o {}",
        &[&model, &at("one/00003.png"), &again],
    );
    let again = fs::read(again).unwrap();
    for out in ["one", "four", "threads"] {
        assert!(
            fs::read(at(out).join("00003.png")).unwrap() == again,
            "{out}"
        );
    }

    // What was made for latents of another shape is named, whichever part of it does not fit.
    let error = failure(
        1,
        "generate -m {} --vae {} -o {}",
        &[&model, &tiny(folder.path(), 1), &at("none")],
    );
    assert!(
        error.contains("should be 16 x 1 x 1, the generator has 16 x 4 x 4"),
        "{error}"
    );
    let card = model.join("model.json");
    edited(&card, |card| card["patch_size"] = 1.into());
    let error = failure(1, "generate -m {} -o {}", &[&model, &at("none")]);
    assert!(
        error.contains("should be 4 x 8 x 8, the generator has 16 x 4 x 4"),
        "{error}"
    );
    edited(&card, |card| card["patch_size"] = 0.into());
    let error = failure(1, "generate -m {} -o {}", &[&model, &at("none")]);
    assert!(
        error.contains("patch size: expected 1 to 16, found 0"),
        "{error}"
    );
    edited(&card, |card| {
        card["patch_size"] = 2.into();
        card["img_size"] = 18.into();
        card["picture_size"] = 18.into();
    });
    let error = failure(1, "generate -m {} -o {}", &[&model, &at("none")]);
    assert!(
        error.contains("should be a multiple of 4, the generator has 18"),
        "{error}"
    );
}

#[test]
fn tokens_of_patches_become_the_pictures_that_the_quantizer_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (vae, data, calibration) = (tiny(folder.path(), 1), WORLD.pictures(), at("patches.json"));
    let calibrate = "calibrate --vae {} --data {} --bits 5 --patch 2 -o {} --img-size";
    let error = failure(1, &format!("{calibrate} 24"), &[&vae, &data, &calibration]);
    assert!(
        error.contains("3x3 latents") && error.contains("or --patch 1"),
        "{error}"
    );
    let said = stdout(&format!("{calibrate} 32"), &[&vae, &data, &calibration]);
    assert!(
        said.contains("latents of 16 x 2 x 2, patches of 2 x 2 latents"),
        "{said}"
    );

    let tokenize = "tokenize --data {} --vae {} --calibration {} --img-size 32 -o {}";
    let paths: [&Path; 4] = [&data, &vae, &calibration, &at("tokens")];
    let error = failure(1, &format!("{tokenize} --patch 1"), &paths);
    assert!(
        error.contains("patches.json: patch size: expected 1, found 2"),
        "{error}"
    );
    stdout(tokenize, &paths);
    let found = json("inspect {} --json", &[&at("tokens")], "tessera.inspect/v1");
    let manifest = &found["manifest"];
    assert_eq!(manifest["patch_size"], 2);
    assert_eq!(
        (&manifest["grid"], &manifest["dimensions"]),
        (&serde_json::json!([2, 2]), &16.into())
    );
    stdout(
        "decode -i {} --vae {} -o {}",
        &[&at("tokens"), &vae, &at("decoded")],
    );
    let kept = "reconstruct --data {} --vae {} --calibration {} --img-size 32 --bits 5 -o {}";
    stdout(kept, &[&data, &vae, &calibration, &at("kept")]);
    for index in 0..6 {
        let decoded = read(at("decoded").join(format!("{index:05}.png")), None).unwrap();
        let kept = read(at("kept").join(format!("{index:05}-5bit.png")), None).unwrap();
        assert_eq!(decoded, kept, "picture {index}");
    }
    let manifest = at("tokens/manifest.json");
    edited(&manifest, |manifest| manifest["patch_size"] = 1.into());
    let error = failure(
        1,
        "decode -i {} --vae {} -o {}",
        &[&at("tokens"), &vae, &at("none")],
    );
    assert!(error.contains("manifest.json: grid"), "{error}");
}

#[test]
fn a_calibration_is_of_one_tokenizer_whatever_file_that_is_in() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let [vae, other] = [1, 2].map(|seed| {
        fs::create_dir(at(&seed.to_string())).unwrap();
        tiny(&at(&seed.to_string()), seed)
    });
    let calibration = at("calibration.json");
    stdout(
        "calibrate --vae {} --data {} --img-size 16 -o {}",
        &[&vae, &WORLD.pictures(), &calibration],
    );
    let look = "reconstruct -i {} --vae {} --img-size 16 --calibration {}";
    stdout("convert {} -o {}", &[&vae, &at("converted")]);
    for same in [vae, at("converted")] {
        stdout(look, &[&WORLD.disc(), &same, &calibration]);
    }
    let error = failure(1, look, &[&WORLD.disc(), &other, &calibration]);
    assert!(
        error.contains("calibration.json: calibration of another VAE"),
        "{error}"
    );
    let error = failure(
        1,
        look,
        &[
            &WORLD.disc(),
            &WORLD.vae(),
            &WORLD.model().join("none.json"),
        ],
    );
    assert!(error.contains("none.json"), "{error}");
    let own = WORLD.model().join("calibration.json");
    stdout(look, &[&WORLD.disc(), &WORLD.model(), &own]);
    let error = failure(1, look, &[&WORLD.disc(), &other, &own]);
    assert!(
        error.contains("calibration of another VAE, by its weights"),
        "{error}"
    );
    // As older versions wrote it.
    edited(&calibration, |file| {
        let fields = file.as_object_mut().unwrap();
        fields.remove("vae");
        fields.remove("patch_size");
    });
    stdout(look, &[&WORLD.disc(), &other, &calibration]);
}

#[test]
fn a_generator_alone_tells_its_patch_by_its_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (run, released) = (at("run"), at("released"));
    let train = format!("{AR} --max-steps 1");
    stdout(&train, &[&WORLD.pictures(), &WORLD.vae(), &run]);
    fs::create_dir(&released).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(run.join("model").join(file), released.join(file)).unwrap();
    }
    let vae = WORLD.vae();
    stdout(
        "convert {} --vae {} -o {}",
        &[&released, &vae, &at("whole")],
    );
    stdout(
        "generate -m {} -c 0 -n 1 -o {}",
        &[&at("whole"), &at("one")],
    );
    stdout(
        "generate -m {} --vae {} -c 0 -n 1 -o {}",
        &[&released, &vae, &at("two")],
    );
    let [one, two] = ["one", "two"].map(|out| read(at(out).join("00000.png"), None).unwrap());
    assert_eq!(one, two);
    let eval = "eval --reconstruction --data {} -m {}";
    let whole = stdout(eval, &[&WORLD.pictures(), &at("whole")]);
    let given = stdout(
        &format!("{eval} --vae {{}}"),
        &[&WORLD.pictures(), &released, &vae],
    );
    assert!(
        whole.contains("6 test images") && whole == given,
        "{whole}{given}"
    );
    let other = at("other");
    fs::create_dir(&other).unwrap();
    fs::write(
        other.join("config.json"),
        r#"{"kind": "pixels", "channels": 3}"#,
    )
    .unwrap();
    let error = failure(
        1,
        "convert {} --vae {} -o {}",
        &[&released, &other, &at("none")],
    );
    assert!(
        error.contains("channels of the latents should be 3"),
        "{error}"
    );
}
