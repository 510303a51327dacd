//! Generators over tokenizers that were not trained here and give no distributions.

use crate::world::{WORLD, failure, json, stdout};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tessera::pictures::read;
use tessera::tokenizers::{KlVaeConfig, TinyAutoencoderConfig};
use tessera::weights::{WeightDtype, Weights};

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
        "--bits auto:3.5 --dims-per-step 2 --flip --crops 3",
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
    let other = match options.contains("--crops 3") {
        true => resume.replace("--crops 3", "--crops 4"),
        false => format!("{resume} --crops 4"),
    };
    let error = failure(1, &other, &[&data, &vae, &parts]);
    assert!(error.contains("pictures"), "{error}");
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

    // Stored in 8 bits it draws as well, and is stored so again without being told to.
    stdout("convert {} --dtype int8 -o {}", &[&model, &at("small")]);
    stdout("convert {} -o {}", &[&at("small"), &at("again")]);
    for file in ["model.safetensors", "vae/model.safetensors", "model.json"] {
        let [small, again] = ["small", "again"].map(|out| fs::read(at(out).join(file)).unwrap());
        assert!(small == again, "{file}");
    }
    let length = |folder: &Path| {
        fs::metadata(folder.join("model.safetensors"))
            .unwrap()
            .len()
    };
    assert!(2 * length(&at("small")) < length(&model));
    stdout("generate -m {} -n 1 -o {}", &[&at("small"), &at("drawn")]);
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

/// A KL-VAE as diffusers keeps one: a folder with its class, its statistics, and its own names.
fn diffusers(folder: &Path) {
    let vae = KlVaeConfig {
        norm_groups: 8,
        ..KlVaeConfig::small(3, 16, 8, &[1, 2], 1, 4)
    };
    let weights = Weights::of(&vae.init(3, &burn::tensor::Device::flex()).unwrap());
    let mut renamed = Weights::default();
    let names = [
        ("down.0.block", "down_blocks.0.resnets"),
        ("down.1.block", "down_blocks.1.resnets"),
        ("down.0.downsample", "down_blocks.0.downsamplers.0"),
        ("up.0.block", "up_blocks.1.resnets"),
        ("up.1.block", "up_blocks.0.resnets"),
        ("up.1.upsample", "up_blocks.0.upsamplers.0"),
        ("mid.block_1", "mid_block.resnets.0"),
        ("mid.block_2", "mid_block.resnets.1"),
        ("mid.attn_1.norm", "mid_block.attentions.0.group_norm"),
        ("mid.attn_1.proj_out", "mid_block.attentions.0.to_out.0"),
        ("mid.attn_1.", "mid_block.attentions.0.to_"),
        ("norm_out", "conv_norm_out"),
        ("nin_shortcut", "conv_shortcut"),
    ];
    for (name, weight) in weights.iter() {
        let ours = names.iter().fold(name.to_owned(), |name, (ours, theirs)| {
            name.replace(ours, theirs)
        });
        renamed.insert(ours, weight.clone());
    }
    fs::create_dir_all(folder).unwrap();
    let file = folder.join("diffusion_pytorch_model.safetensors");
    renamed
        .write(file, BTreeMap::new(), WeightDtype::F32)
        .unwrap();
    let config = r#"{"_class_name": "AutoencoderKL", "norm_num_groups": 8, "scaling_factor": 0.5, "shift_factor": 0.1,
        "latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0], "sample_size": 16}"#;
    fs::write(folder.join("config.json"), config).unwrap();
}

#[test]
fn every_command_takes_whatever_tokenizer_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let whole = tiny(folder.path(), 1);
    let (encoder, decoder) = (
        at("halves_encoder.safetensors"),
        at("halves_decoder.safetensors"),
    );
    for (half, file) in [("encoder.", encoder), ("decoder.", decoder)] {
        let mut weights = Weights::read(&whole).unwrap();
        let part = weights.take_prefix(half);
        part.write(file, BTreeMap::new(), WeightDtype::F32).unwrap();
    }
    let repository = at("cache/models--org--vae");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    diffusers(&repository.join("snapshots").join(commit));
    fs::create_dir(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), commit).unwrap();

    let run = |args: &str, paths: &[&Path]| {
        let mut paths = paths.iter();
        let args = args.split(' ').map(|arg| match arg {
            "{}" => paths.next().unwrap().display().to_string(),
            arg => arg.to_owned(),
        });
        let output = Command::new(env!("CARGO_BIN_EXE_tessera"))
            .args(args)
            .env("HF_HUB_CACHE", at("cache"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    };
    let data = WORLD.pictures();
    for (name, vae) in [
        ("hub", "org/vae".into()),
        ("halves", at("halves.safetensors")),
    ] {
        let out = |what: &str| at(&format!("{name}-{what}"));
        let dit = "train dit --data {} --img-size 16 --vae {} --patch 1 --size 16,1,2 --batch-size 3 --max-steps 1 \
                   --sample-every 0 -t 1 -o {}";
        run(dit, &[&data, &vae, &out("dit")]);
        run(
            "generate -m {} -c disc -n 1 --steps 2 -t 1 -o {}",
            &[&out("dit"), &out("pictures")],
        );
        run(
            &format!("{AR} --max-steps 1 -t 1"),
            &[&data, &vae, &out("ar")],
        );
        run("convert {} -t 1 -o {}", &[&vae, &out("converted")]);
        let look = "reconstruct -i {} --img-size 16 --bits 4 --calibration {} -t 1 --vae {}";
        let calibration = out("ar").join("model/calibration.json");
        // With what was measured, and with what the tokenizer's own statistics say.
        let own = look.replace("--calibration {} ", "");
        let [original, converted] = [vae, out("converted")].map(|vae| {
            run(look, &[&WORLD.disc(), &calibration, &vae]) + &run(&own, &[&WORLD.disc(), &vae])
        });
        assert!(
            original.contains("mean") && original == converted,
            "{original}{converted}"
        );
    }
}

#[test]
fn a_side_that_the_tokenizer_does_not_divide_is_refused_before_anything_is_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let (vae, data) = (tiny(folder.path(), 1), WORLD.pictures());
    for (number, command) in ["train ar", "train dit", "calibrate", "reconstruct"]
        .iter()
        .enumerate()
    {
        let out = folder.path().join(number.to_string());
        let args = format!("{command} --data {{}} --img-size 20 --vae {{}} -o {{}}");
        let error = failure(1, &args, &[&data, &vae, &out]);
        let line =
            "error: image of 20x20 px (height x width): expected sides that are multiples of 8";
        assert!(
            error.contains(line) && error.contains("give another --img-size"),
            "{error}"
        );
        assert!(!error.contains("encode"), "{error}");
    }
}
