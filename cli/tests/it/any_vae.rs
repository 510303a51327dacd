//! Generators over tokenizers that were not trained here and give no distributions.

use crate::world::{WORLD, failure, json, stdout};
use std::fs;
use std::path::{Path, PathBuf};
use tessera::pictures::read;
use tessera::tokenizers::TinyAutoencoderConfig;
use tessera::weights::WeightDtype;

const AR: &str = "train ar --data {} --img-size 16 --vae {} --enc 16,1,2 --dec 16,1,2 --head 16,1,2 \
                  --buffer-size 2 --batch-size 3 --decay constant -o {}";

/// The weights of a tiny autoencoder, as a file alone.
pub fn tiny(folder: &Path, seed: u64) -> PathBuf {
    let saved = folder.join("taesd");
    let network = TinyAutoencoderConfig::taesd().init(seed, &burn::tensor::Device::flex());
    network.unwrap().save_dir(&saved, WeightDtype::F32).unwrap();
    let file = folder.join("taesd.safetensors");
    fs::copy(saved.join("model.safetensors"), &file).unwrap();
    file
}

#[test]
fn a_file_of_weights_becomes_the_tokenizer_of_a_generator() {
    a_generator_goes_on_to_the_bit_and_draws_a_picture_by_its_seed_alone("--bits 4");
}

/// The widths of its dimensions differ, and the head predicts two of them at a time.
#[test]
fn a_generator_whose_dimensions_differ_is_trained_and_draws_alike() {
    a_generator_goes_on_to_the_bit_and_draws_a_picture_by_its_seed_alone(
        "--bits auto:3.5 --dims-per-step 2",
    );
}

fn a_generator_goes_on_to_the_bit_and_draws_a_picture_by_its_seed_alone(options: &str) {
    let train = format!("{AR} {options}");
    let folder = tempfile::tempdir().unwrap();
    let (vae, data) = (tiny(folder.path(), 1), WORLD.pictures());
    let at = |name: &str| folder.path().join(name);

    let whole = at("whole");
    stdout(&format!("{train} --max-steps 4"), &[&data, &vae, &whole]);
    let parts = at("parts");
    stdout(&format!("{train} --max-steps 2"), &[&data, &vae, &parts]);
    let resume = format!("{train} --max-steps 4 --resume latest");
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
    let (vae, data) = (tiny(folder.path(), 1), WORLD.pictures());
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

/// Bits go where the decoder needs them: tokens, pictures and figures of widths that differ agree with each other.
#[test]
fn widths_that_differ_are_measured_kept_in_files_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let (vae, data) = (tiny(folder.path(), 1), WORLD.pictures());
    let at = |name: &str| folder.path().join(name);
    let (calibration, chart) = (at("calibration.json"), at("rates.svg"));
    let calibrate =
        "calibrate --vae {} --data {} --img-size 16 --bits auto:3.5 -o {} --json --plot {}";
    let paths: [&Path; 4] = [&vae, &data, &calibration, &chart];
    let measured = json(calibrate, &paths, "tessera.calibrate/v1")["calibration"].clone();
    let bits: Vec<u64> = measured["quantizer"]["channel_bits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bits| bits.as_u64().unwrap())
        .collect();
    assert_eq!(bits.iter().sum::<u64>(), 14, "4 dimensions of 3.5 bits");
    assert!(bits.iter().any(|&other| other != bits[0]), "{bits:?}");
    for dimension in measured["dimensions"].as_array().unwrap() {
        assert!(dimension["decoder_noise"].as_f64().unwrap() > 0.0);
        assert!(dimension.get("posterior_bits").is_none());
        assert_eq!(dimension["widths"].as_array().unwrap().len(), 12);
    }
    let svg = fs::read_to_string(&chart).unwrap();
    assert!(svg.contains("rate, decoder") && svg.contains("bits given"));

    let tokenize = "tokenize --data {} --vae {} --calibration {} --img-size 16 -o {}";
    stdout(tokenize, &[&data, &vae, &calibration, &at("tokens")]);
    let said = stdout("inspect {}", &[&at("tokens")]);
    assert!(said.contains("4 dimensions, 3.500 bits"), "{said}");
    let decode = "decode -i {} --vae {} -o {}";
    stdout(decode, &[&at("tokens"), &vae, &at("decoded")]);
    let reconstruct =
        "reconstruct --data {} --vae {} --calibration {} --img-size 16 --bits 3,auto:3.5 -o {}";
    stdout(reconstruct, &[&data, &vae, &calibration, &at("kept")]);
    let pixels = |path: PathBuf| read(path, None).unwrap();
    for file in fs::read_dir(at("decoded")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".png").unwrap();
        let kept = at("kept").join(format!("{stem}-auto3.5bit.png"));
        assert_eq!(pixels(at("decoded").join(&name)), pixels(kept), "{name}");
    }
    let error = failure(
        1,
        "reconstruct --data {} --vae {} --img-size 16 --bits auto:3",
        &[&data, &vae],
    );
    assert!(
        error.contains("give its file with --calibration"),
        "{error}"
    );
    let error = failure(
        1,
        &format!("{tokenize} --level posterior"),
        &[&data, &vae, &calibration, &at("other")],
    );
    assert!(error.contains("expected a KL-VAE"), "{error}");
    let error = failure(
        1,
        &format!("{AR} --max-steps 2 --level posterior"),
        &[&data, &vae, &at("none")],
    );
    assert!(error.contains("expected a KL-VAE"), "{error}");
    let error = failure(
        1,
        &format!("{AR} --max-steps 2 --dims-per-step 3"),
        &[&data, &vae, &at("none")],
    );
    assert!(error.contains("a divisor of the 4 dimensions"), "{error}");
}

/// A KL-VAE gives distributions, of which a rate is measured, and levels can be chosen by them.
#[test]
fn the_distributions_of_a_kl_vae_are_measured_and_may_choose_the_levels() {
    let folder = tempfile::tempdir().unwrap();
    let (vae, data) = (WORLD.vae(), WORLD.pictures());
    let at = |name: &str| folder.path().join(name);
    let calibration = at("calibration.json");
    let calibrate = "calibrate --vae {} --data {} --img-size 16 --json -o {}";
    let measured = json(
        calibrate,
        &[&vae, &data, &calibration],
        "tessera.calibrate/v1",
    );
    for dimension in measured["calibration"]["dimensions"].as_array().unwrap() {
        assert!(dimension["posterior_bits"].as_f64().unwrap() > 0.0);
    }
    let tokens = |level: &str, out: &str| {
        let tokenize = format!(
            "tokenize --data {{}} --vae {{}} --calibration {{}} --img-size 16 --level {level} -o {{}}"
        );
        stdout(&tokenize, &[&data, &vae, &calibration, &at(out)]);
        fs::read(at(out).join("tokens-00000.safetensors")).unwrap()
    };
    assert!(tokens("nearest", "one") != tokens("posterior", "two"));
    stdout(
        &format!("{AR} --max-steps 2 --level posterior"),
        &[&data, &vae, &at("run")],
    );
}

#[test]
fn tokens_of_a_tokenizer_alone_become_the_pictures_that_its_quantizer_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let (vae, data) = (tiny(folder.path(), 1), WORLD.pictures());
    let at = |name: &str| folder.path().join(name);
    let calibration = at("calibration.json");
    let calibrate = "calibrate --vae {} --data {} --img-size 16 --bits 5 -o {}";
    stdout(calibrate, &[&vae, &data, &calibration]);
    let tokenize = "tokenize --data {} --vae {} --calibration {} -o {}";
    let error = failure(1, tokenize, &[&data, &vae, &calibration, &at("tokens")]);
    assert!(error.contains("--img-size"), "{error}");
    let tokenize = format!("{tokenize} --img-size 16");
    stdout(&tokenize, &[&data, &vae, &calibration, &at("tokens")]);
    stdout(
        "decode -i {} --vae {} -o {}",
        &[&at("tokens"), &vae, &at("decoded")],
    );
    let reconstruct =
        "reconstruct --data {} --vae {} --calibration {} --img-size 16 --bits 5 -o {}";
    stdout(reconstruct, &[&data, &vae, &calibration, &at("kept")]);
    let decoded: Vec<_> = fs::read_dir(at("decoded")).unwrap().collect();
    assert_eq!(decoded.len(), 6);
    for file in decoded {
        let name = file.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".png").unwrap();
        let pixels = |path: PathBuf| read(path, None).unwrap();
        assert_eq!(
            pixels(at("decoded").join(&name)),
            pixels(at("kept").join(format!("{stem}-5bit.png"))),
            "{name}"
        );
    }
    let error = failure(1, "decode -i {} -o {}", &[&at("tokens"), &at("other")]);
    assert!(error.contains("tokens of another VAE"), "{error}");
}
