//! What users get wrong: each fault has its exit code and names what is at fault.

use crate::world::{WORLD, failure, pictures, stdout, tessera};
use std::path::Path;
use tessera::pictures::{Channels, Existing, Pixels, write_png};

#[test]
fn no_arguments_and_unknown_ones_are_faults_of_usage() {
    failure(2, "", &[]);
    failure(2, "reconstruct", &[]);
    failure(2, "frobnicate", &[]);
}

#[test]
fn bits_outside_1_to_16_are_faults_of_usage() {
    for bits in ["0", "17", "4,17"] {
        let error = failure(2, &format!("reconstruct -i x.png --bits {bits}"), &[]);
        assert!(error.contains("--bits"), "{error}");
        let error = failure(
            2,
            &format!("calibrate --vae v --data d -o c.json --bits {bits}"),
            &[],
        );
        assert!(error.contains("--bits"), "{error}");
    }
}

#[test]
fn devices_that_are_unknown_or_not_built_in_are_named() {
    let error = failure(2, "doctor --device abacus", &[]);
    assert!(error.contains("abacus"), "{error}");
    if !cfg!(feature = "cuda") {
        let error = failure(
            1,
            "reconstruct -i {} -m {} --device cuda",
            &[&WORLD.disc(), &WORLD.model()],
        );
        assert!(error.contains("--features cuda"), "{error}");
    }
}

#[test]
fn a_missing_picture_is_named() {
    let error = failure(1, "reconstruct -i nowhere.png -m {}", &[&WORLD.model()]);
    assert!(error.contains("nowhere.png"), "{error}");
    let error = failure(
        1,
        "reconstruct -i {}/*.bmp -m {}",
        &[&WORLD.pictures(), &WORLD.model()],
    );
    assert!(error.contains("*.bmp"), "{error}");
}

/// A folder with one good and one truncated picture.
fn with_truncated() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(WORLD.disc()).unwrap();
    std::fs::write(folder.path().join("bad.png"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(folder.path().join("good.png"), &bytes).unwrap();
    folder
}

#[test]
fn a_truncated_picture_is_named_and_the_others_are_done() {
    let folder = with_truncated();
    let output = tessera("reconstruct -i {} -m {}", &[folder.path(), &WORLD.model()]);
    let (errors, table) = (
        String::from_utf8(output.stderr).unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors.contains("bad.png") && errors.contains("1 of 2 pictures"),
        "{errors}"
    );
    assert!(table.contains("good"), "{table}");
    let error = failure(
        1,
        "reconstruct -i {} -m {}",
        &[&folder.path().join("bad.png"), &WORLD.model()],
    );
    assert!(error.contains("truncated"), "{error}");
}

#[test]
fn a_folder_that_is_in_use_is_refused_unless_overwriting() {
    for command in ["reconstruct", "tokenize"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine.txt"), "mine").unwrap();
        let paths: &[&Path] = &[&WORLD.disc(), &WORLD.model(), folder.path()];
        let error = failure(1, &format!("{command} -i {{}} -m {{}} -o {{}}"), paths);
        assert!(
            error.contains("mine.txt") && error.contains("--overwrite"),
            "{error}"
        );
        stdout(
            &format!("{command} -i {{}} -m {{}} -o {{}} --overwrite"),
            paths,
        );
        assert_eq!(
            std::fs::read_to_string(folder.path().join("mine.txt")).unwrap(),
            "mine"
        );
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_checkpoint_of_another_architecture_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&WORLD.model(), &model);
    std::fs::copy(
        model.join("vae/model.safetensors"),
        model.join("model.safetensors"),
    )
    .unwrap();
    let error = failure(1, "reconstruct -i {} -m {}", &[&WORLD.disc(), &model]);
    assert!(error.contains("model.safetensors"), "{error}");
    let error = failure(1, "classes -m {}", &[&WORLD.vae()]);
    assert!(error.contains("model.json"), "{error}");
}

#[test]
fn a_bad_picture_in_training_is_skipped_and_counted_or_fails_when_strict() {
    let folder = tempfile::tempdir().unwrap();
    let (data, runs) = (folder.path().join("data"), folder.path().join("runs"));
    pictures(&data, 3);
    std::fs::write(data.join("disc/broken.png"), "no picture").unwrap();
    let args = "train vae --data {} --img-size 16 --ch 8 --ch-mult 1,2 --z-channels 4 --batch-size 3 --max-steps 1 \
                -o {}";
    let output = tessera(args, &[&data, &runs]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("broken.png") && errors.contains("1 of 7 pictures skipped"),
        "{errors}"
    );
    let error = failure(1, &format!("{args} --strict --overwrite"), &[&data, &runs]);
    assert!(error.contains("broken.png"), "{error}");
}

#[test]
fn a_run_that_exists_is_neither_overwritten_nor_resumed_unasked() {
    let args = "train vae --data {} --img-size 16 --ch 8 --ch-mult 1,2 --z-channels 4 -o {}";
    let error = failure(1, args, &[&WORLD.pictures(), &WORLD.run()]);
    assert!(
        error.contains(&WORLD.run().display().to_string()),
        "{error}"
    );
}

#[test]
fn damaged_idx_files_are_named_and_not_taken_for_a_folder_of_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("train-images-idx3-ubyte");
    std::fs::write(&images, [0, 0, 8, 3, 0, 0]).unwrap();
    std::fs::write(folder.path().join("train-labels-idx1-ubyte"), [0; 8]).unwrap();
    let run = folder.path().join("run");
    let error = failure(
        1,
        "train vae --img-size 32 --channels 1 --data {} -o {}",
        &[folder.path(), &run],
    );
    assert!(error.contains("train-images-idx3-ubyte"), "{error}");
}

#[test]
fn a_summary_says_what_a_folder_holds_and_names_each_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    pictures(&data, 3);
    std::fs::create_dir_all(data.join("disc/more")).unwrap();
    let one = std::fs::read_dir(data.join("disc"))
        .unwrap()
        .flatten()
        .find(|entry| entry.path().is_file());
    std::fs::rename(one.unwrap().path(), data.join("disc/more/deep.png")).unwrap();
    std::fs::create_dir(data.join("phone")).unwrap();
    std::fs::write(data.join("phone/1.heic"), "").unwrap();
    std::fs::write(data.join("disc/.DS_Store"), "").unwrap();
    std::fs::write(data.join("disc/broken.png"), "no picture").unwrap();
    let args = "train vae --data {} --img-size 16 --ch 8 --ch-mult 1,2 --z-channels 4 --batch-size 3 --max-steps 1 \
                -o {}";
    let output = tessera(args, &[&data, &folder.path().join("run")]);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{notes}");
    assert!(
        notes.contains("6 pictures in 2 classes (")
            && notes.contains("; left out: 1 hidden, 1 .heic\n"),
        "{notes}"
    );
    assert!(
        notes.contains("phone: it holds 1 .heic and no picture, so it is no class"),
        "{notes}"
    );
    assert_eq!(notes.matches("broken.png").count(), 1, "{notes}");
}

#[test]
fn the_built_in_model_is_named_where_it_is_used_unasked_and_lost_color_where_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let color = Pixels::new(1, 2, Channels::Rgb, vec![255, 0, 0, 0, 255, 0]).unwrap();
    for name in ["a.png", "b.png"] {
        write_png(folder.path().join(name), &color, &[], Existing::Keep).unwrap();
    }
    let output = tessera("reconstruct -i {} --bits 6", &[folder.path()]);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(
        notes.contains("the built-in one is used: ") && notes.contains("(color, 64 px)"),
        "{notes}"
    );
    let gray = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fashion");
    let output = tessera("reconstruct -i {} -m {} --bits 6", &[folder.path(), &gray]);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(notes.matches("is in color").count(), 1, "{notes}");
    let output = tessera("reconstruct -q -i {} --bits 6", &[folder.path()]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

/// A palette that its decoder panics at: the other picture is done, and nothing of the decoder reaches the user.
#[test]
fn a_picture_that_breaks_its_decoder_is_one_fault_among_the_others() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(WORLD.disc(), folder.path().join("good.png")).unwrap();
    let mut bytes = std::fs::read(WORLD.disc()).unwrap();
    let palette = [&[0, 0, 0, 4][..], b"PLTEabcd", &[0; 4]].concat();
    bytes.splice(33..33, palette);
    std::fs::write(folder.path().join("bad.png"), bytes).unwrap();
    let output = tessera("reconstruct -i {} -m {}", &[folder.path(), &WORLD.model()]);
    let (errors, table) = (
        String::from_utf8(output.stderr).unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    );
    assert!(
        errors.contains("bad.png: broken PNG: its palette has 4 bytes"),
        "{errors}"
    );
    assert!(
        !errors.contains("panic") && !errors.contains(".rs"),
        "{errors}"
    );
    assert!(table.contains("good"), "{table}");
}

#[test]
fn what_cannot_be_is_said_before_the_work_and_by_its_option() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let (data, vae) = (WORLD.pictures(), WORLD.vae());
    let ar = "train ar --data {} --img-size 16 --vae {} --batch-size 3 -o {}";
    let dit = "train dit --data {} --img-size 16 --batch-size 3 -o {}";
    let chart = folder.path().join("chart.png");
    let json = folder.path().join("c.json");
    for (args, paths, words) in [
        (
            &*format!("{ar} --enc 16,1,3"),
            &[&*data, &vae, &run][..],
            "error: --enc: ",
        ),
        (
            &format!("{ar} --class-names a"),
            &[&data, &vae, &run],
            "--class-names: 1 names given",
        ),
        (
            &format!("{ar} --picture-size 17"),
            &[&data, &vae, &run],
            "--picture-size 17",
        ),
        (
            &format!("{dit} --size 30,2,4"),
            &[&data, &run],
            "error: --size: ",
        ),
        (
            &format!("{dit} --patch 5"),
            &[&data, &run],
            "error: --img-size: ",
        ),
        (
            "train vae --data {} --img-size 18 --ch-mult 1,2,4 -o {}",
            &[&data, &run],
            "error: --img-size: ",
        ),
        (
            "train judge --data {} --img-size 16 -o {}",
            &[&data, &run],
            "6 pictures to train on, expected 64",
        ),
        (
            "calibrate --vae {} --data {} -o {} --plot {}",
            &[&vae, &data, &json, &chart],
            "ends in .svg",
        ),
        (
            "attn simulate --max-ranks 16 -o {}",
            &[&chart],
            "ends in .svg",
        ),
        (
            "reconstruct -i {} --vae {} --img-size 15",
            &[&WORLD.disc(), &vae],
            "hint: give another --img-size",
        ),
    ] {
        let error = failure(1, args, paths);
        assert!(error.contains(words), "{args}: {error}");
        for work in ["encode ", "simulating "] {
            assert!(!error.contains(work), "{args}: {error}");
        }
    }
    let error = failure(2, &format!("{dit} --channels 2"), &[&data, &run]);
    assert!(error.contains("1 (gray) or 3 (color)"), "{error}");
}

#[test]
fn a_file_of_another_kind_is_named_once_with_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let (data, disc) = (WORLD.pictures(), WORLD.disc());
    for (args, paths, named, words) in [
        (
            "generate -m {}",
            &[&*disc][..],
            &*disc,
            "found a PNG picture",
        ),
        (
            "generate -m {}",
            &[&WORLD.vae()],
            &WORLD.vae(),
            "found weights of another kind: KL-VAE",
        ),
        (
            "decode -i {} -o {}",
            &[&data, folder.path()],
            &data,
            "expected a folder of tokens",
        ),
        (
            "generate -c 3 -o {}/a.png",
            &[&disc],
            &disc,
            "a file is there, expected a folder",
        ),
        (
            "reconstruct -i {} --vae {} --calibration {}",
            &[&disc, &WORLD.vae(), &WORLD.vae().join("model.safetensors")],
            &WORLD.vae().join("model.safetensors"),
            "line 1 column 1",
        ),
    ] {
        let error = failure(1, args, paths);
        let line = error.lines().find(|line| line.starts_with("error:"));
        let line = line.unwrap_or_default();
        let times = line.matches(&*named.display().to_string()).count();
        assert!(times == 1 && line.contains(words), "{args}: {error}");
    }
}
