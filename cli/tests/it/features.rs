//! `eval --features`: pictures beside pictures in features of a network, here with weights that nobody trained.

use crate::world::{SIZE, WORLD, failure, json, picture, stdout, tessera};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tessera::evaluate::EffLite0;
use tessera::pictures::{Channels, Existing, Pixels, read, write_png};
use tessera::weights::{Weight, WeightDtype, Weights};

const SCHEMA: &str = "tessera.eval.features/v1";

/// A file of weights and folders of pictures, which no test changes.
static SETS: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let root = tempfile::tempdir().unwrap();
    let mut weights = Weights::default();
    for (name, shape) in EffLite0::shapes() {
        let inputs: usize = shape[1..].iter().product();
        let value = |index: usize| match shape.len() {
            1 => f32::from(u8::from(name.contains("var") || name.ends_with("weight"))),
            // In [-1, 1), scaled by the number of inputs.
            _ => {
                let turned = (index as u32).wrapping_mul(2_654_435_761) >> 8;
                (turned as f32 / 8_388_608.0 - 1.0) * (6.0 / inputs as f32).sqrt()
            }
        };
        let values = (0..shape.iter().product()).map(value).collect();
        weights.insert(name, Weight::new(shape, values));
    }
    let file = root.path().join("effnet.safetensors");
    weights
        .write(file, BTreeMap::new(), WeightDtype::F32)
        .unwrap();
    for (set, first, count) in [("drawn", 0, 6), ("real", 100, 9), ("more", 200, 13)] {
        std::fs::create_dir(root.path().join(set)).unwrap();
        for seed in first..first + count {
            let path = root.path().join(set).join(format!("{}.png", seed - first));
            let colored = picture(seed % 2 == 0, seed);
            let gray = colored.to_channels(Channels::Gray);
            let pixels = if set == "drawn" { gray } else { colored };
            write_png(path, &pixels, &[], Existing::Keep).unwrap();
        }
    }
    root
});

fn at(name: &str) -> PathBuf {
    SETS.path().join(name)
}

#[test]
fn a_folder_is_held_against_a_folder_beside_its_floor() {
    let eval = "eval --features {} --pictures {} --against {}";
    let paths = [&*at("effnet.safetensors"), &*at("drawn"), &*at("real")];
    let report = json(&format!("{eval} --json"), &paths, SCHEMA);
    let features = &report["features"];
    assert_eq!(features["name"], "FD-EffLite0");
    assert_eq!(
        (
            &features["pictures"]["count"],
            &features["pictures"]["real_count"]
        ),
        (&6.into(), &9.into())
    );
    assert_eq!(
        (&features["floor"]["count"], &features["halved"]["count"]),
        (&4.into(), &4.into())
    );
    assert!(features["perceptual"].is_null() && features["nearest"].is_null());
    // For people, with a warning of so few; the floor of other pictures, and their neighbors.
    let out = tempfile::tempdir().unwrap();
    let all = format!("{eval} --floor {{}} --neighbors 3 -o {{}}");
    let [more, report] = [at("more"), out.path().join("report")];
    let output = tessera(&all, &[paths[0], paths[1], paths[2], &more, &report]);
    let [text, errors] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{errors}");
    for expected in [
        "FD-EffLite0 of 6 pictures to 9 real ones: ",
        "the floor, 6 real pictures to 9 others, 2 draws: ",
        "distance of the nearest training picture, median: ",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(
        errors.contains("warning: 6 pictures for 1280 features"),
        "{errors}"
    );
    assert!(
        errors.contains("gray pictures are looked at as RGB"),
        "{errors}"
    );
    let grid = read(report.join("neighbors.png"), None).unwrap();
    assert_eq!((grid.height() / 130, grid.width() / 130), (3, 6));
    // From itself a folder is at no distance, neither as a whole nor picture by picture.
    let same = [paths[0], paths[2], paths[2]];
    let report = json(&format!("{eval} --pairs --json"), &same, SCHEMA);
    let features = &report["features"];
    assert!(
        features["pictures"]["distance"].as_f64().unwrap() < 1e-3,
        "{features}"
    );
    assert_eq!(
        (&features["pictures"]["precision"], &features["perceptual"]),
        (&1.0.into(), &0.0.into())
    );
}

#[test]
fn a_model_is_judged_beside_its_reconstructions() {
    let (file, model) = (at("effnet.safetensors"), WORLD.model());
    let data = tempfile::tempdir().unwrap();
    for split in ["train", "test"] {
        for (class, disc) in [("disc", true), ("square", false)] {
            let folder = data.path().join(split).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for seed in 0..4 {
                let name = folder.join(format!("{seed}.png"));
                write_png(name, &picture(disc, seed), &[], Existing::Keep).unwrap();
            }
        }
    }
    let eval = "eval -m {} --features {} --data {} --steps 1 -n 2 --json";
    let paths = [&*model, &*file, data.path()];
    let report = json(eval, &paths, "tessera.eval.generation/v1");
    let features = &report["features"];
    assert_eq!(
        (
            &features["pictures"]["count"],
            &features["pictures"]["real_count"]
        ),
        (&4.into(), &8.into())
    );
    assert_eq!(features["reconstructions"]["count"], 8);
    // As many as were drawn, whose share is the tokenizer's and the floor's.
    assert_eq!(features["training_reconstructions"]["count"], 4);
    assert_eq!(features["training_reconstructions"]["real_count"], 8);
    assert!(features["perceptual"].as_f64().unwrap() > 0.0 && report["agreement"].is_null());
    let eval = "eval -m {} --features {} --data {} --reconstruction --json";
    let report = json(eval, &paths, "tessera.eval.reconstruction/v1");
    assert_eq!(report["rows"][0]["features"]["real_count"], 8);
    assert!(report["rows"][0]["perceptual"].as_f64().unwrap() > 0.0);
    assert_eq!(report["feature_floor"]["count"], 8);
    let few = "eval -m {} --features {} --data {} -n 5";
    let error = failure(1, few, &paths);
    assert!(
        error.contains("real pictures for the floor is 8, expected at least 10"),
        "{error}"
    );
    assert_eq!(SIZE, 16, "pictures are resized from this");
}

#[test]
fn larger_real_pictures_are_cropped_to_the_size_of_the_drawn_ones() {
    let larger = tempfile::tempdir().unwrap();
    for (index, file) in std::fs::read_dir(at("real")).unwrap().enumerate() {
        let pixels = read(file.unwrap().path(), None).unwrap();
        // Pixels of four, whose mean is what they were; columns beside them are cut away.
        let doubled = |at: usize, pixel: usize| (pixel / 2 * pixels.width() + at / 2) * 3;
        let (height, width) = (2 * pixels.height(), 2 * pixels.width());
        let row = |y: usize| {
            let inner = (0..width).flat_map(move |x| (0..3).map(move |c| doubled(x, y) + c));
            let inner = inner.map(|at| pixels.data()[at]);
            [0; 12]
                .into_iter()
                .chain(inner)
                .chain([255; 12])
                .collect::<Vec<u8>>()
        };
        let data = (0..height).flat_map(row).collect();
        let wide = Pixels::new(height, width + 8, Channels::Rgb, data).unwrap();
        let path = larger.path().join(format!("{index}.png"));
        write_png(path, &wide, &[], Existing::Keep).unwrap();
    }
    let eval = "eval --features {} --pictures {} --against {} --json";
    let (file, drawn) = (at("effnet.safetensors"), at("drawn"));
    let expected = json(eval, &[&file, &drawn, &at("real")], SCHEMA);
    let cropped = format!("{eval} --img-size {SIZE}");
    let found = json(&cropped, &[&file, &drawn, larger.path()], SCHEMA);
    let distance = |report: &serde_json::Value| {
        let distance = report["features"]["pictures"]["distance"].as_f64();
        (distance.unwrap() * 1e6).round()
    };
    assert_eq!(distance(&found), distance(&expected));
    let uncropped = json(eval, &[&file, &drawn, larger.path()], SCHEMA);
    assert_ne!(distance(&uncropped), distance(&expected));
}

#[test]
fn what_cannot_be_looked_at_is_one_line() {
    let (file, drawn, real) = (at("effnet.safetensors"), at("drawn"), at("real"));
    let eval = "eval --features {} --pictures {} --against {}";
    let empty = tempfile::tempdir().unwrap();
    let one_line = |args: &str, paths: [&Path; 3], expected: &str| {
        let error = failure(1, args, &paths);
        assert!(error.contains(expected), "{error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    };
    let weights = WORLD.model().join("vae/model.safetensors");
    one_line(
        eval,
        [&weights, &drawn, &real],
        "expected the weights of EfficientNet-Lite0",
    );
    one_line(eval, [&drawn.join("0.png"), &drawn, &real], "0.png");
    one_line(eval, [&file, empty.path(), &real], "expected pictures");
    one_line(
        eval,
        [&file, &drawn, &drawn],
        "real pictures is 6, expected at least 8",
    );
    let most = format!("{eval} --knn 6");
    one_line(
        &most,
        [&file, &drawn, &real],
        "pictures is 6, expected at least 7",
    );
    let pairs = format!("{eval} --pairs");
    one_line(
        &pairs,
        [&file, &drawn, &real],
        "6.png: expected a picture of that name",
    );
    let error = failure(1, "eval --features {} --pictures {}", &[&file, &drawn]);
    assert!(error.contains("--against"), "{error}");
    let error = failure(2, "eval --pictures {} --against {}", &[&drawn, &real]);
    assert!(error.contains("--features"), "{error}");
    for drawing in ["--steps 3", "--preset fast"] {
        let command = format!("{eval} {drawing}");
        let error = failure(2, &command, &[&file, &drawn, &real]);
        assert!(error.contains("cannot be used with"), "{error}");
    }
    let help = stdout("eval --help", &[]);
    assert!(
        help.contains("FD-EffLite0") && help.contains("not FID"),
        "{help}"
    );
}
