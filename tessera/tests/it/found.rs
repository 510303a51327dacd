//! What paths are found to be.

use std::fs::{create_dir_all, write};
use std::path::Path;
use tessera::pictures::{Channels, Existing, Pixels, write_png};
use tessera::{ArModel, Device, Error, Found, WeightDtype};

#[test]
fn a_model_folder_has_a_card_and_weights_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let model = ArModel::builtin(&Device::cpu()).unwrap();
    model.save(folder.path(), WeightDtype::F32).unwrap();
    let Found::Model { info, weights } = Found::at(folder.path(), None).unwrap() else {
        panic!("no model")
    };
    assert_eq!(info.class_names(), model.card.class_names);
    let files: Vec<_> = weights.keys().map(Path::new).collect();
    let expected = ["", "vae"].map(|part| Path::new(part).join("model.safetensors"));
    assert_eq!(files, expected);
    let found = Found::at(&folder.path().join("vae"), None).unwrap();
    assert!(matches!(found, Found::Weights(_)), "{found:?}");
    let found = Found::at(&folder.path().join("calibration.json"), None).unwrap();
    assert!(matches!(found, Found::Calibration { .. }), "{found:?}");
}

#[test]
fn a_run_has_its_checkpoints_and_its_last_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    create_dir_all(path.join("checkpoint")).unwrap();
    for name in ["model.safetensors", "ema.safetensors", "state.json"] {
        write(path.join("checkpoint").join(name), "").unwrap();
    }
    write(path.join("config.json"), r#"{"kind": "gen-ar"}"#).unwrap();
    write(path.join("metrics.jsonl"), "{\"step\": 1}\n{\"step\": 2}\n").unwrap();
    let found = Found::at(path, None).unwrap();
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["kind"], "run");
    assert_eq!(json["config"]["kind"], "gen-ar");
    assert_eq!(json["last_metrics"]["step"], 2);
    let names = ["ema.safetensors", "model.safetensors"];
    assert_eq!(json["checkpoints"], serde_json::json!(names));
    write(path.join("config.json"), "no").unwrap();
    let error = Found::at(path, None).unwrap_err();
    assert!(matches!(error, Error::Json { .. }), "{error}");
}

#[test]
fn a_picture_has_its_size_and_its_texts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("picture");
    let picture = Pixels::new(2, 3, Channels::Rgb, vec![9; 18]).unwrap();
    let texts = [
        ("tessera", "no JSON"),
        ("parameters", "Steps: 4"),
        ("b", "c"),
    ];
    write_png(&file, &picture, &texts, Existing::Keep).unwrap();
    let Found::Picture(found) = Found::at(&file, None).unwrap() else {
        panic!("no picture")
    };
    assert_eq!([found.width, found.height, found.channels], [3, 2, 3]);
    assert_eq!(found.parameters.as_deref(), Some("Steps: 4"));
    assert_eq!(found.tessera, "no JSON");
    assert_eq!(found.texts, [("b".into(), "c".into())].into());
}

#[test]
fn what_is_nothing_is_said_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let missing = Found::at(&path.join("missing"), None).unwrap_err();
    assert!(matches!(missing, Error::NoPath { .. }), "{missing}");
    let empty = Found::at(path, None).unwrap_err();
    assert!(matches!(empty, Error::UnknownFolder { .. }), "{empty}");
    assert!(
        empty.to_string().contains("model.json (a model)"),
        "{empty}"
    );
}
