//! Files that are none of ours, broken, or of another kind.

use crate::world::{WORLD, failure, json};

#[test]
fn inspect_refuses_what_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "a few words").unwrap();
    let error = failure(1, "inspect {}", &[&file]);
    assert!(
        error.contains("notes.txt") && error.contains("expected"),
        "{error}"
    );
    let error = failure(1, "inspect {}", &[folder.path()]);
    assert!(error.contains("model.json"), "{error}");
    let error = failure(1, "inspect {}", &[&folder.path().join("nothing")]);
    assert!(error.contains("no such file"), "{error}");
}

#[test]
fn a_safetensors_file_that_is_cut_short_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(WORLD.model().join("model.safetensors")).unwrap();
    for (length, word) in [
        (4, "the length of the file is 4 bytes"),
        (100, "it ends after 100 of "),
        (bytes.len() - 1, "half a download"),
    ] {
        let file = folder.path().join("cut.safetensors");
        std::fs::write(&file, &bytes[..length]).unwrap();
        let error = failure(1, "inspect {}", &[&file]);
        assert!(
            error.contains("cut.safetensors") && error.contains(word),
            "{error}"
        );
    }
}

#[test]
fn charts_and_calibrations_do_not_replace_files_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calibration.json");
    std::fs::write(&file, "mine").unwrap();
    let error = failure(
        1,
        "calibrate --vae {} --data {} -o {}",
        &[&WORLD.vae(), &WORLD.pictures(), &file],
    );
    assert!(error.contains("already exists"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn idx_files_are_padded_to_the_size_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let header = |axes: &[u32]| -> Vec<u8> {
        [
            vec![0, 0, 8, axes.len() as u8],
            axes.iter().flat_map(|axis| axis.to_be_bytes()).collect(),
        ]
        .concat()
    };
    let pixels: Vec<u8> = (0..3 * 12 * 12).map(|i| (i % 251) as u8).collect();
    let images = [header(&[3, 12, 12]), pixels].concat();
    std::fs::write(folder.path().join("t10k-images-idx3-ubyte"), images).unwrap();
    let labels = [header(&[3]), vec![1, 0, 1]].concat();
    std::fs::write(folder.path().join("t10k-labels-idx1-ubyte"), labels).unwrap();
    let args = "reconstruct --data {} -m {} --limit 2 --json";
    let report = json(
        args,
        &[folder.path(), &WORLD.model()],
        "tessera.reconstruct/v1",
    );
    assert_eq!(report["pictures"].as_array().unwrap().len(), 2);
    assert_eq!(report["pictures"][1]["name"], "00001");
    // Nothing that was padded around them is measured.
    assert_eq!(report["picture_size"], 12);
    for file in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
        let at = |half: &str| folder.path().join(format!("{half}-{file}"));
        std::fs::copy(at("t10k"), at("train")).unwrap();
    }
    let run = folder.path().join("run");
    let train = "train ar --data {} --img-size 16 --crops 2 --vae {} -o {}";
    let error = failure(1, train, &[folder.path(), &WORLD.vae(), &run]);
    assert!(error.contains("IDX pictures are padded"), "{error}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_fault() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tessera"));
    let command = command
        .args(["inspect", "-t", "1"])
        .arg(WORLD.model().join("model.safetensors"));
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
