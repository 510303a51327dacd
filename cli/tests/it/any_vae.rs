//! Generators over tokenizers that were not trained here and give no distributions.

use crate::world::{WORLD, failure, json, stdout};
use std::fs;
use std::path::{Path, PathBuf};
use tessera::tokenizers::TinyAutoencoderConfig;
use tessera::weights::WeightDtype;

const AR: &str = "train ar --data {} --img-size 16 --vae {} --bits 4 --enc 16,1,2 --dec 16,1,2 --head 16,1,2 \
                  --buffer-size 2 --batch-size 3 --decay constant -o {}";

/// The weights of a tiny autoencoder, as a file alone.
fn tiny(folder: &Path) -> PathBuf {
    let saved = folder.join("taesd");
    let network = TinyAutoencoderConfig::taesd().init(1, &burn::tensor::Device::flex());
    network.unwrap().save_dir(&saved, WeightDtype::F32).unwrap();
    let file = folder.join("taesd.safetensors");
    fs::copy(saved.join("model.safetensors"), &file).unwrap();
    file
}

#[test]
fn a_file_of_weights_becomes_the_tokenizer_of_a_generator() {
    let folder = tempfile::tempdir().unwrap();
    let (vae, data) = (tiny(folder.path()), WORLD.pictures());
    let at = |name: &str| folder.path().join(name);

    let whole = at("whole");
    stdout(&format!("{AR} --max-steps 4"), &[&data, &vae, &whole]);
    let parts = at("parts");
    stdout(&format!("{AR} --max-steps 2"), &[&data, &vae, &parts]);
    let resume = format!("{AR} --max-steps 4 --resume latest");
    stdout(&resume, &[&data, &vae, &parts]);
    let weights = |run: &Path| fs::read(run.join("model/model.safetensors")).unwrap();
    assert!(
        weights(&whole) == weights(&parts),
        "going on changes nothing"
    );

    let model = whole.join("model");
    let draw = "generate -m {} -n 2 --seed 5 -o {} --batch-size";
    for (batch, out) in [(1, at("one")), (4, at("four"))] {
        stdout(&format!("{draw} {batch}"), &[&model, &out]);
    }
    for name in ["00000.png", "00003.png"] {
        let [one, four] = ["one", "four"].map(|out| fs::read(at(out).join(name)).unwrap());
        assert!(one == four, "{name}");
    }
}

#[test]
fn latents_that_are_no_distributions_are_calibrated_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (vae, data) = (tiny(folder.path()), WORLD.pictures());
    let calibrate = |options: &str, out: &str| {
        let args =
            format!("calibrate --vae {{}} --data {{}} --img-size 16 --json {options} -o {{}}");
        let out = folder.path().join(out);
        json(&args, &[&vae, &data, &out], "tessera.calibrate/v1")["calibration"].clone()
    };
    let measured = calibrate("--seed 1", "one.json");
    assert_eq!(measured["channels"], 4);
    assert_eq!(measured["images"], 6);
    assert_eq!(
        measured,
        calibrate("--seed 2", "two.json"),
        "nothing is drawn"
    );
    let error = failure(
        1,
        "calibrate --vae {} --weights ema --data {} --img-size 16 -o {}",
        &[&vae, &data, &folder.path().join("three.json")],
    );
    assert!(error.contains("expected averaged weights"), "{error}");
    let error = failure(
        1,
        "calibrate --vae {} --data {} -o {}",
        &[&vae, &data, &folder.path().join("three.json")],
    );
    assert!(error.contains("--img-size"), "{error}");
}
