//! The diffusion transformer from end to end: a tiny one with experts, on the pixels of the shared pictures.

use crate::world::{WORLD, failure, json, picture, stdout, tessera};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tessera::pictures::{Existing, write_png};

const TRAIN: &str = "train dit --data {} --img-size 16 --patch 4 --size 16,2,2 --experts 2-in-4 --batch-size 3 \
                     --epochs 9 --max-steps 3 --steps 4 --flip --val-share 0.2 -o {}";

/// The run, made once.
pub static RUN: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let printed = stdout(TRAIN, &[&WORLD.pictures(), &run]);
    assert_eq!(printed.trim(), run.join("model").display().to_string());
    (folder, run)
});

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn training_leaves_a_run_with_metrics_validation_samples_and_a_model() {
    let run = &RUN.1;
    for name in ["config.json", "validation.jsonl", "samples/epoch-0001.png"] {
        assert!(run.join(name).is_file(), "{name}");
    }
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    for part in ["mse", "similarity", "target"] {
        assert!(last[part].as_f64().unwrap() > 0.0, "{last}");
    }
    // The heads that only training needs are not in the finished model, and its thresholds were measured.
    let report = json(
        "inspect {} --json",
        &[&run.join("model/model.safetensors")],
        "tessera.inspect/v1",
    );
    let names = report["tensors"].as_array().unwrap().iter();
    let names: Vec<_> = names
        .map(|tensor| tensor["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"blocks.1.moe.router.threshold"),
        "{names:?}"
    );
    assert!(
        !names.iter().any(|name| name.contains("router.target")),
        "{names:?}"
    );
}

#[test]
fn a_picture_is_the_same_alone_and_in_any_batch_and_from_its_metadata() {
    let (run, folder) = (&RUN.1, tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    let all = "generate -m {} -n 3 --seed 5 --batch-size 6 -o {}";
    stdout(all, &[run, &at("all")]);
    let alone = "generate -m {} -c square -n 1 --seed 9 --batch-size 1 -o {}";
    stdout(alone, &[&run.join("model"), &at("alone")]);
    // The fifth of all: square, seed 5 + 4.
    assert_eq!(bytes(&at("all/00004.png")), bytes(&at("alone/00000.png")));
    let again = "generate -m {} --from {} -o {}";
    stdout(again, &[run, &at("all/00002.png"), &at("again")]);
    assert_eq!(bytes(&at("all/00002.png")), bytes(&at("again/00000.png")));
    // What is reused is part of how a picture was made.
    let easy = "generate -m {} -c disc --steps 30 --cache easy --cache-threshold 50 --seed 7 -o {}";
    stdout(easy, &[run, &at("easy.png")]);
    stdout(
        again,
        &[&run.join("model"), &at("easy.png"), &at("same.png")],
    );
    assert_eq!(bytes(&at("easy.png")), bytes(&at("same.png")));
    stdout(
        "generate -m {} -c disc --steps 30 --seed 7 -o {}",
        &[run, &at("exact.png")],
    );
    assert_ne!(bytes(&at("easy.png")), bytes(&at("exact.png")));
}

#[test]
fn settings_of_other_models_and_unknown_classes_are_refused() {
    let (run, folder) = (&RUN.1, tempfile::tempdir().unwrap());
    let out = folder.path().join("out");
    let error = failure(1, "generate -m {} --top-k 3 -o {}", &[run, &out]);
    assert!(
        error.contains("--top-k: a setting of autoregressive models"),
        "{error}"
    );
    for (options, expected) in [
        (
            "--cache lazy",
            "--cache lazy: a setting of autoregressive models",
        ),
        (
            "--preset fast",
            "--preset: a setting of autoregressive models",
        ),
        (
            "--order halton",
            "--order: a setting of autoregressive models",
        ),
        (
            "--cache easy --cache-refresh 3",
            "--cache-start, --cache-refresh: settings of --cache lazy",
        ),
        (
            "--cache none --cache-threshold 1",
            "--cache-threshold: a setting of --cache easy",
        ),
    ] {
        let command = format!("generate -m {{}} {options} -o {{}}");
        let error = failure(1, &command, &[run, &out]);
        assert!(error.contains(expected), "{options}: {error}");
    }
    let error = failure(2, "generate -m {} --cache-start 3 -o {}", &[run, &out]);
    assert!(error.contains("--cache <NAME>"), "{error}");
    let error = failure(1, "generate -m {} -c disk -o {}", &[run, &out]);
    assert!(error.contains("the nearest are: disc (0)"), "{error}");
    let error = failure(2, "generate -m {} --steps 0 -o {}", &[run, &out]);
    assert!(error.contains("steps"), "{error}");
    let error = failure(
        2,
        "train dit --data {} --img-size 16 --experts 5-in-4 -o {}",
        &[&WORLD.pictures(), &out],
    );
    assert!(error.contains("expected k-in-E such as 4-in-32"), "{error}");
    let error = failure(
        1,
        "train dit --data {} --img-size 16 --patch 3 -o {}",
        &[&WORLD.pictures(), &out],
    );
    assert!(
        error.contains("--img-size: input_size is 16, expected a multiple of patch_size, 3"),
        "{error}"
    );
}

#[test]
fn a_model_is_checked_converted_and_drawn_from_again() {
    let (run, folder) = (&RUN.1, tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    let model = run.join("model");
    let report = json(
        "inspect {} --check --json",
        &[&model.join("model.safetensors")],
        "tessera.inspect/v1",
    );
    assert_eq!(report["architecture"], "DiT");
    assert_eq!(report["check"]["loaded"], true);
    json(
        "convert {} -o {} --json",
        &[&model, &at("copy")],
        "tessera.convert/v1",
    );
    let draw = "generate -m {} -c disc --seed 3 -o {}";
    stdout(draw, &[&model, &at("a")]);
    stdout(draw, &[&at("copy"), &at("b")]);
    assert_eq!(bytes(&at("a/00000.png")), bytes(&at("b/00000.png")));
}

#[test]
fn a_run_goes_on_where_it_was_and_refuses_other_settings() {
    let folder = tempfile::tempdir().unwrap();
    let (run, whole) = (folder.path().join("run"), &RUN.1);
    stdout(TRAIN, &[&WORLD.pictures(), &run]);
    // As if it had been killed after its second checkpoint: the last step is done again.
    std::fs::remove_dir_all(run.join("model")).unwrap();
    let mut checkpoints: Vec<_> = std::fs::read_dir(run.join("checkpoint"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    checkpoints.sort();
    assert_eq!(checkpoints.len(), 2);
    std::fs::remove_file(&checkpoints[1]).unwrap();
    let resumed = format!("{TRAIN} --resume latest");
    stdout(&resumed, &[&WORLD.pictures(), &run]);
    let weights = "model/model.safetensors";
    assert_eq!(bytes(&run.join(weights)), bytes(&whole.join(weights)));
    let other = resumed.replace("2-in-4", "1-in-4");
    let error = failure(1, &other, &[&WORLD.pictures(), &run]);
    assert!(
        error.contains("--experts (split): ran with 2, now 1"),
        "{error}"
    );
}

#[test]
fn a_folder_of_pictures_is_judged_whoever_drew_them() {
    let (run, folder) = (&RUN.1, tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    // A judge's batch is 64 pictures.
    for (class, disc) in [("disc", true), ("square", false)] {
        std::fs::create_dir_all(at("real").join(class)).unwrap();
        for seed in 0..32 {
            let path = at("real").join(class).join(format!("{seed}.png"));
            write_png(path, &picture(disc, seed), &[], Existing::Keep).unwrap();
        }
    }
    let judge = "train judge --data {} --img-size 16 --max-steps 2 -o {}";
    stdout(judge, &[&at("real"), &at("judge")]);
    let judge = at("judge/model");
    stdout("generate -m {} -n 2 --grid -o {}", &[run, &at("drawn")]);
    let eval = "eval --pictures {} --judge {} --data {} --json";
    let schema = "tessera.eval.pictures/v1";
    let drawn = json(eval, &[&at("drawn"), &judge, &at("real")], schema);
    assert_eq!(drawn["images"], 4, "the grid is no picture: {drawn}");
    assert_eq!(drawn["agreement"]["per_class"][1]["requested"], 2);
    let distance = |report: &serde_json::Value| report["frechet"]["distance"].as_f64().unwrap();
    assert_eq!(drawn["frechet"]["count"], 4);
    // Real pictures say nothing of a class, and are at no distance from themselves.
    let real = json(eval, &[&at("real"), &judge, &at("real")], schema);
    assert!(real["agreement"].is_null(), "{real}");
    assert!(distance(&real).abs() < 1e-3 && distance(&drawn) > distance(&real));
    // A picture that cannot be read is named, and the others are judged.
    for name in ["bad.png", "worse.png"] {
        std::fs::write(at("drawn").join(name), name).unwrap();
    }
    let output = tessera(eval, &[&at("drawn"), &judge, &at("real")]);
    let errors = String::from_utf8(output.stderr).unwrap();
    for expected in [
        "bad.png: ",
        "worse.png: ",
        "2 of 6 pictures could not be read",
    ] {
        assert!(errors.contains(expected), "{errors}");
    }
    let rest: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), rest), (Some(1), drawn));
    let error = failure(2, "eval --pictures {}", &[&at("drawn")]);
    assert!(error.contains("--judge"), "{error}");
    // The same judge for a model that has none, with folders as data; what is missing is said before drawing.
    let eval = "eval -m {} --judge {} --data {} -n 1 --steps 1 --json";
    let schema = "tessera.eval.generation/v1";
    let report = json(eval, &[&WORLD.model(), &judge, &at("real")], schema);
    assert_eq!(
        (&report["images"], &report["frechet"]["count"]),
        (&2.into(), &2.into())
    );
    let report = json(eval, &[run, &judge, &at("real")], schema);
    assert_eq!(
        report["images"], 2,
        "a diffusion transformer is judged as well"
    );
    let error = failure(
        1,
        "eval -m {} --reconstruction --data {}",
        &[run, &at("real")],
    );
    assert!(error.contains("quantizes nothing"), "{error}");
    let error = failure(1, eval, &[&WORLD.model(), &judge, &at("nowhere")]);
    assert!(error.contains("nowhere"), "{error}");
    let error = failure(1, "eval -m {} -n 1", &[&WORLD.model()]);
    assert!(error.contains("--judge"), "{error}");
    std::fs::create_dir(at("sheet")).unwrap();
    std::fs::copy(at("drawn/grid.png"), at("sheet/sheet.png")).unwrap();
    let error = failure(1, "eval --pictures {} --judge {}", &[&at("sheet"), &judge]);
    assert!(error.contains("px, the judge looks at 16x16"), "{error}");
    // Beside others it is named and left out, too.
    std::fs::copy(at("drawn/grid.png"), at("drawn/sheet.png")).unwrap();
    let output = tessera("eval --pictures {} --judge {}", &[&at("drawn"), &judge]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for expected in ["sheet.png: ", "3 of 7 pictures could not be read"] {
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn a_normalization_that_no_latents_have_is_refused_at_opening() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    stdout("convert {} -o {}", &[&RUN.1.join("model"), &model]);
    let card = std::fs::read_to_string(model.join("model.json")).unwrap();
    let good: serde_json::Value = serde_json::from_str(&card).unwrap();
    for (field, value) in [("latent_mean", 1e39), ("latent_scale", 0.0)] {
        let mut bad = good.clone();
        bad[field][0] = value.into();
        std::fs::write(model.join("model.json"), bad.to_string()).unwrap();
        let error = failure(1, "generate -m {} -c 0 -o {}", &[&model, folder.path()]);
        let expected = format!("{field} of the model: expected finite numbers");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn presets_are_written_under_dits_names() {
    let folder = tempfile::tempdir().unwrap();
    let error = failure(2, "init --arch dit-q/2 -o {}", &[folder.path()]);
    assert!(error.contains("dit-SIZE/PATCH"), "{error}");
    let out = folder.path().join("s");
    let printed = stdout("init --arch dit-s/8 --dtype bf16 -o {}", &[&out]);
    assert!(printed.contains("parameters in"), "{printed}");
    let report = json(
        "inspect {} --json",
        &[&out.join("model.safetensors")],
        "tessera.inspect/v1",
    );
    assert_eq!(report["architecture"], "DiT");
}

#[test]
fn every_command_takes_a_model_of_pixels_or_says_which_it_takes() {
    let (run, folder) = (&RUN.1, tempfile::tempdir().unwrap());
    let (model, out) = (run.join("model"), folder.path().join("out"));
    let kind = |path: &Path| {
        let found = json("inspect {} --json", &[path], "tessera.inspect/v1");
        found["kind"].as_str().unwrap().to_owned()
    };
    let of = |name: &str| model.join(name);
    for path in [&model, &of("model.json"), &of("config.json")] {
        assert_eq!(kind(path), "model", "{}", path.display());
    }
    for path in [run, &run.join("config.json")] {
        assert_eq!(kind(path), "run", "{}", path.display());
    }
    let files = [of("model.json"), of("config.json"), of("model.safetensors")];
    for path in [run, &model].into_iter().chain(&files) {
        assert_eq!(stdout("classes -m {}", &[path]), "0\tdisc\n1\tsquare\n");
    }
    for (i, path) in files.iter().enumerate() {
        let out = folder.path().join(format!("{i}.png"));
        stdout("generate -m {} -c disc --steps 2 -o {}", &[path, &out]);
    }
    let data = &WORLD.pictures();
    let found = "found the diffusion transformer `tessera-dit`";
    let error = failure(1, "tokenize -m {} -i {} -o {}", &[run, data, &out]);
    assert!(error.contains(found), "{error}");
    let error = failure(1, "eval -m {} --reconstruction", &[&model]);
    assert!(error.contains(found), "{error}");
    let error = failure(1, "calibrate --vae {} --data {} -o {}", &[run, data, &out]);
    assert!(error.contains("which works on pixels"), "{error}");
    for error in ["route -m {} -i {}"].map(|args| failure(1, args, &[&WORLD.run(), data])) {
        let expected = "expected a diffusion transformer with experts, found the autoregressive";
        assert!(error.contains(expected), "{error}");
    }
}
