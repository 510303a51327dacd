//! The program at the edges of numbers, of memory and of what reads it.

use crate::world::{WORLD, failure, pictures, stdout};
use std::process::{Command, Output, Stdio};

/// Runs the program by a shell, which bounds or redirects it.
#[cfg(unix)]
fn shell(code: &str, args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_tessera");
    let mut command = Command::new("sh");
    let command = command.args(["-c", code, program]).args(args);
    command.env("RUST_BACKTRACE", "0").output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn without_memory_the_program_ends_with_a_line_and_not_with_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").display().to_string();
    let args = [
        "generate",
        "-n",
        "400",
        "--batch-size",
        "4000",
        "--steps",
        "1",
        "-t",
        "1",
        "-o",
        &out,
    ];
    let output = shell("ulimit -v 700000; exec \"$0\" \"$@\"", &args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let errors: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("error:"))
        .collect();
    assert_eq!(errors.len(), 1, "{said}");
    assert!(errors[0].starts_with("error: out of memory: "), "{said}");
    assert!(!said.contains(".rs:"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_stderr_that_went_away_changes_neither_work_nor_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    for (name, code) in [
        ("full", "exec \"$0\" \"$@\" 2>/dev/full"),
        ("closed", "exec \"$0\" \"$@\" 2>&-"),
        (
            "gone",
            "{ \"$0\" \"$@\"; echo \"code $?\"; } 2>&1 >/dev/null | true; exit 0",
        ),
    ] {
        let out = folder.path().join(name);
        let shown = out.display().to_string();
        let args = [
            "generate", "-c", "3", "-n", "2", "--steps", "2", "-t", "1", "-o", &shown,
        ];
        let output = shell(code, &args);
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
        assert!(out.join("00001.png").is_file(), "{name}");
        let missing = shell(code, &["inspect", "/no/such/file"]);
        let expected = if name == "gone" { 0 } else { 1 };
        assert_eq!(missing.status.code(), Some(expected), "{name}");
    }
}

#[test]
fn threads_above_the_processors_are_not_started() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    let command = command
        .args(["classes", "--threads", "60000"])
        .current_dir(folder.path());
    let output = command.stdout(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.starts_with("note: 60000 threads"),
        "{said}"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    let command = command.args(["classes"]).env("RAYON_NUM_THREADS", "60000");
    let output = command.stdout(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.starts_with("note: 60000 threads"),
        "{said}"
    );
}

#[test]
fn seeds_reach_the_largest_and_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let largest = format!("generate -c 3 --steps 1 -s {} -o {{}}", u64::MAX);
    stdout(&largest, &[&folder.path().join("one")]);
    let again = folder.path().join("one/00000.png");
    let repeated = folder.path().join("again.png");
    stdout("generate --from {} -o {}", &[&again, &repeated]);
    assert_eq!(
        std::fs::read(&again).unwrap(),
        std::fs::read(&repeated).unwrap()
    );
    let error = failure(1, &format!("{largest} -n 2"), &[&folder.path().join("two")]);
    assert!(error.contains("of 2 pictures the last"), "{error}");
    let error = failure(2, "generate -s -5", &[]);
    assert!(error.contains("or -1"), "{error}");
}

#[test]
fn pictures_without_a_class_are_drawn_and_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let args = "generate --unconditional -n 2 --steps 2 -o {}/{class}_%d.png";
    stdout(args, &[folder.path()]);
    stdout(
        "generate --from {} -o {}",
        &[&at("none_1.png"), &at("again.png")],
    );
    let [first, again] = ["none_1.png", "again.png"].map(|name| std::fs::read(at(name)).unwrap());
    assert_eq!(first, again);
    failure(2, "generate --unconditional -c 3", &[]);
}

#[test]
fn more_pictures_than_anybody_wants_are_refused_before_any() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for (code, count) in [
        (2, "0"),
        (2, "99999999999"),
        (2, "18446744073709551615"),
        (1, "999999"),
    ] {
        let error = failure(code, &format!("generate -n {count} -o {{}}"), &[&out]);
        assert!(error.contains("1000000"), "{error}");
        assert!(!out.exists());
    }
}

#[test]
fn pictures_that_would_be_in_the_way_are_told_of_before_drawing() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["5.png", "6.png"] {
        std::fs::write(folder.path().join(name), "mine").unwrap();
    }
    let error = failure(1, "generate -c 3 -n 8 -o {}/%d.png", &[folder.path()]);
    assert!(
        error.contains("2 of 8") && error.contains("--overwrite"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn names_of_classes_neither_command_a_terminal_nor_make_lines() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    pictures(&data, 3);
    let forged = "x\u{1b}]0;title\u{7}\nerror: forged";
    std::fs::rename(data.join("disc"), data.join(forged)).unwrap();
    let args = "train ar --data {} --img-size 16 --vae {} --bits 4 --enc 16,1,2 --dec 16,1,2 --head 16,1,2 \
                --buffer-size 2 --batch-size 3 --epochs 1 --max-steps 1 -o {}";
    let run = folder.path().join("run");
    stdout(args, &[&data, &WORLD.vae(), &run]);
    let model = run.join("model");
    for (args, json) in [("classes -m {}", false), ("classes -m {} --json", true)] {
        let said = stdout(args, &[&model]);
        assert!(!said.contains(['\u{1b}', '\u{7}']), "{said:?}");
        assert!(
            said.lines().all(|line| !line.starts_with("error:")),
            "{said}"
        );
        assert_eq!(
            json,
            serde_json::from_str::<serde_json::Value>(&said).is_ok()
        );
    }
    let error = failure(1, "classes nothing -m {}", &[&model]);
    assert!(
        !error.contains('\u{1b}') && error.lines().count() == 1,
        "{error:?}"
    );
}
