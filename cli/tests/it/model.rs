//! Reconstruction, calibration and what the program says of models and of itself.

use crate::world::{WORLD, failure, json, stdout};
use std::process::Command;
use tessera::gen_ar::{Cache, LazySchedule, Order};
use tessera::{ImageParams, SamplingPreset};

/// Positions of a picture of the world's model.
const SEQ: usize = 64;

#[test]
fn reconstruct_prints_a_row_per_picture_and_writes_every_version() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let args = "reconstruct -i {} -m {} --bits 2,6 -o {} --grid";
    let table = stdout(args, &[&WORLD.pictures(), &WORLD.model(), &out]);
    assert_eq!(table.lines().count(), 2 + 6 + 1, "{table}");
    for name in [
        "disc0.png",
        "disc0-2bit.png",
        "square2-6bit.png",
        "grid.png",
    ] {
        assert!(out.join(name).is_file(), "{name}");
    }
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 6 * 3 + 1);
}

#[test]
fn eight_bits_lose_next_to_nothing() {
    let args = "reconstruct -i {}/*.png --vae {} --bits 1,8 --json";
    let report = json(
        args,
        &[&WORLD.pictures().join("disc"), &WORLD.vae()],
        "tessera.reconstruct/v1",
    );
    let mean = &report["mean"];
    let psnr = |quality: &serde_json::Value| quality["psnr"].as_f64().unwrap();
    let distance = |i: usize| (psnr(&mean["quantised"][i]) - psnr(&mean["continuous"])).abs();
    assert_eq!(report["pictures"].as_array().unwrap().len(), 3);
    assert!(distance(1) < 0.1, "{mean}");
}

#[test]
fn calibrate_writes_a_calibration_that_reconstruct_takes() {
    let folder = tempfile::tempdir().unwrap();
    let (file, plot) = (
        folder.path().join("calibration.json"),
        folder.path().join("entropy.svg"),
    );
    let args = "calibrate --vae {} --data {} --bits 4 -o {} --plot {} --json";
    let report = json(
        args,
        &[&WORLD.vae(), &WORLD.pictures(), &file, &plot],
        "tessera.calibrate/v1",
    );
    assert_eq!(report["calibration"]["images"], 6);
    assert_eq!(report["calibration"]["order"].as_array().unwrap().len(), 4);
    assert!(
        std::fs::read_to_string(&plot)
            .unwrap()
            .contains("rate, decoder")
    );
    let args = "reconstruct -i {} --vae {} --calibration {} --bits 4 --json";
    json(
        args,
        &[&WORLD.disc(), &WORLD.vae(), &file],
        "tessera.reconstruct/v1",
    );
    assert_eq!(
        json("inspect {} --json", &[&file], "tessera.inspect/v1")["kind"],
        "calibration"
    );
}

#[test]
fn classes_are_listed_and_searched() {
    assert_eq!(
        stdout("classes -m {}", &[&WORLD.model()]),
        "0\tdisc\n1\tsquare\n"
    );
    let found = json(
        "classes SQU -m {} --json",
        &[&WORLD.model()],
        "tessera.classes/v1",
    );
    assert_eq!(
        found["classes"],
        serde_json::json!([{ "id": 1, "name": "square" }])
    );
}

#[test]
fn inspect_knows_what_the_program_writes() {
    let kind = |path: &std::path::Path| {
        json("inspect {} --json", &[path], "tessera.inspect/v1")["kind"].clone()
    };
    assert_eq!(kind(&WORLD.model()), "model");
    assert_eq!(kind(&WORLD.run()), "run");
    assert_eq!(kind(&WORLD.disc()), "picture");
    assert!(stdout("inspect {}", &[&WORLD.run()]).contains("gen-ar"));
    for (file, architecture) in [
        ("model.safetensors", "TokenBridge generator"),
        ("vae/model.safetensors", "KL-VAE"),
    ] {
        let found = json(
            "inspect {} --json",
            &[&WORLD.model().join(file)],
            "tessera.inspect/v1",
        );
        assert_eq!(found["architecture"], architecture);
        assert_eq!(found["sha256"].as_str().unwrap().len(), 64);
        assert!(found["parameters"].as_u64().unwrap() > 1000);
    }
}

#[test]
fn inspect_prints_the_texts_of_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.png");
    let texts = [
        ("parameters", "disc\nSteps: 4"),
        ("tessera", r#"{"seed":7}"#),
        ("Comment", "ours"),
    ];
    tessera::pictures::write_png(
        &file,
        &crate::world::picture(true, 0),
        &texts,
        tessera::pictures::Existing::Keep,
    )
    .unwrap();
    let found = json("inspect {} --json", &[&file], "tessera.inspect/v1");
    assert_eq!(
        (&found["tessera"]["seed"], &found["parameters"]),
        (&7.into(), &"disc\nSteps: 4".into())
    );
    let text = stdout("inspect {}", &[&file]);
    assert!(
        text.contains("Steps: 4") && text.contains("Comment: ours"),
        "{text}"
    );
}

#[test]
fn doctor_reports_every_check() {
    let output = crate::world::tessera("doctor --json", &[]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "tessera.doctor/v1");
    let verdict = |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks
            .iter()
            .find(|check| check["check"] == name)
            .map(|check| check["verdict"].clone())
    };
    for name in ["seeded numbers", "device", "matrix product"] {
        assert_eq!(verdict(name), Some("PASS".into()), "{name}");
    }
}

#[test]
fn doctor_says_which_instructions_the_kernels_are_limited_to() {
    let doctor = |set: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tessera"));
        let output = command.arg("doctor").env("TESSERA_CPU", set).output();
        let output = output.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, said) = doctor("baseline");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("vectors: "), "{said}");
    let (code, said) = doctor("sse9");
    assert_eq!(code, Some(1));
    let expected = "TESSERA_CPU=sse9: expected baseline, avx2, avx512, avx512-bf16 or amx";
    assert!(said.contains(expected), "{said}");
}

/// A processor that multiplies no bf16 takes as long as in f32, and says so.
#[test]
fn weights_of_16_bits_are_widened_where_nothing_multiplies_them() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |dtype: &str| {
        let out = folder.path().join(dtype);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tessera"));
        command.args([
            "generate", "-c", "disc", "--steps", "2", "--dtype", dtype, "-m",
        ]);
        command.arg(WORLD.model()).arg("-o").arg(out.join("a.png"));
        let output = command.env("TESSERA_CPU", "baseline").output().unwrap();
        let notes = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{notes}");
        (notes, std::fs::metadata(out.join("a.png")).unwrap().len())
    };
    let note = "this processor has no arithmetic for 16-bit weights";
    let ((wide, _), (half, bytes)) = (draw("f32"), draw("bf16"));
    assert!(!wide.contains(note) && half.contains(note), "{wide}{half}");
    assert!(bytes > 0);
}

#[test]
fn a_preset_is_the_settings_that_its_pictures_say_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (run, bytes) = (WORLD.run(), |name: &str| std::fs::read(at(name)).unwrap());
    let plain = "generate -m {} -c disc -o {}";
    stdout(plain, &[&run, &at("plain.png")]);
    let own = ImageParams::read(&at("plain.png")).unwrap().sampling;
    for (name, preset) in [
        ("exact", SamplingPreset::Exact),
        ("balanced", SamplingPreset::Balanced),
        ("fast", SamplingPreset::Fast),
    ] {
        let [file, same, two] =
            [".png", "-again.png", "-threads.png"].map(|end| format!("{name}{end}"));
        let drawn = format!("generate -m {{}} -c disc --preset {name} -o {{}}");
        stdout(&drawn, &[&run, &at(&file)]);
        let found = ImageParams::read(&at(&file)).unwrap().sampling;
        assert_eq!(found, own.clone().preset(preset, SEQ), "{name}");
        stdout(
            "generate -m {} --from {} -o {}",
            &[&run, &at(&file), &at(&same)],
        );
        assert_eq!(bytes(&file), bytes(&same), "{name}");
        // The others are drawn by one thread.
        let mut threads = Command::new(env!("CARGO_BIN_EXE_tessera"));
        threads.args(["-t", "2", "generate", "-c", "disc", "--preset", name, "-m"]);
        let output = threads.arg(&run).arg("-o").arg(at(&two)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(bytes(&file), bytes(&two), "{name} on two threads");
    }
    // What is given beside a preset goes first, and a schedule is of the steps that there are.
    let beside = "generate -m {} -c disc --preset fast --steps 4 --order random -o {}";
    stdout(beside, &[&run, &at("beside.png")]);
    let found = ImageParams::read(&at("beside.png")).unwrap().sampling;
    let cache = Some(Cache::Lazy(LazySchedule::of_steps(4)));
    assert_eq!(
        (found.steps, found.order, found.cache, found.preset),
        (4, Order::Random, cache, None)
    );
    let from = "generate -m {} --preset fast --from {} -o {}";
    let error = failure(1, from, &[&run, &at("fast.png"), &at("never.png")]);
    assert!(
        error.contains("--preset") && error.contains("fast.png"),
        "{error}"
    );
}

#[test]
fn a_picture_is_repeated_with_the_weights_that_drew_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let run = WORLD.run();
    stdout(
        "generate -m {} -c disc --steps 2 -o {}",
        &[&run, &at("a.png")],
    );
    // The same weights elsewhere and in other files are the same.
    stdout(
        "convert {} --shard 10kB -o {}",
        &[&WORLD.model(), &at("copy")],
    );
    let again = "generate -m {} --from {} -o {}";
    stdout(again, &[&at("copy"), &at("a.png"), &at("b.png")]);
    assert_eq!(
        std::fs::read(at("a.png")).unwrap(),
        std::fs::read(at("b.png")).unwrap()
    );
    // What is reused, and in which order positions come, is part of how a picture was made.
    let cheap = "generate -m {} -c disc --steps 4 --order staged --cache lazy --cache-start 1 --head jacobi -o {}";
    stdout(cheap, &[&run, &at("cheap.png")]);
    stdout(again, &[&run, &at("cheap.png"), &at("same.png")]);
    assert_eq!(
        std::fs::read(at("cheap.png")).unwrap(),
        std::fs::read(at("same.png")).unwrap()
    );
    let raw = "generate -m {} --weights raw --from {} -o {}";
    let error = failure(1, raw, &[&run, &at("a.png"), &at("c.png")]);
    assert!(error.contains("made with other weights"), "{error}");
    assert!(!at("c.png").exists());
}
