//! The folder of a run: one writer at a time, what may change when a run goes on, and what is on disk when.

use crate::resume::{Watcher, checkpoints, metrics, run};
use crate::rotation::config;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use tessera_train::{Decay, Outcome, RunEntry, RunFolder, Start, TrainConfig};

#[test]
fn a_run_may_be_prolonged_and_then_equals_one_of_that_length() {
    let folder = tempfile::tempdir().unwrap();
    let long = TrainConfig {
        decay: Decay::Constant,
        ..config()
    };
    let whole = folder.path().join("whole");
    run(&whole, Start::New, &long, &mut Watcher::default()).unwrap();
    let parts = folder.path().join("parts");
    let short = TrainConfig {
        epochs: 2,
        save_every: 1,
        ..long.clone()
    };
    let first = run(&parts, Start::New, &short, &mut Watcher::default()).unwrap();
    assert_eq!((first.outcome, first.step), (Outcome::Finished, 10));
    let entry = RunEntry::of(&parts, Start::Resume).unwrap();
    let changes = entry.open(&long).unwrap().changes().clone();
    let texts: Vec<_> = changes.settings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["epochs: ran with 2, now 4", "save_every: ran with 1, now 3"]
    );
    run(&parts, Start::Resume, &long, &mut Watcher::default()).unwrap();
    let [found, expected] = [&parts, &whole].map(|run| fs::read(&checkpoints(run)[1]).unwrap());
    assert!(found == expected, "the prolonged run ends with other bytes");
    assert_eq!(metrics(&parts), metrics(&whole));

    let error = run(&parts, Start::Resume, &short, &mut Watcher::default()).unwrap_err();
    let expected = "epochs = 2: the run has done 20 steps, which is more than the 10 of its end";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn an_epoch_is_on_disk_before_anybody_is_told_of_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let stopped = folder.path().join("stopped");
    let mut watcher = Watcher {
        stop_in_epoch: Some(2),
        folder: Some(stopped.clone()),
        ..Watcher::default()
    };
    let rarely = TrainConfig {
        save_every: 1000,
        ..config()
    };
    let trained = run(&stopped, Start::New, &rarely, &mut watcher).unwrap();
    assert_eq!((trained.outcome, trained.step), (Outcome::Stopped, 10));
    let mut watcher = Watcher {
        folder: Some(stopped.clone()),
        ..Watcher::default()
    };
    run(&stopped, Start::Resume, &rarely, &mut watcher).unwrap();
    assert_eq!(
        (watcher.resumed, &watcher.epochs[..]),
        (Some(2), &[3, 4][..])
    );
    let whole = folder.path().join("whole");
    run(&whole, Start::New, &rarely, &mut Watcher::default()).unwrap();
    let [found, expected] = [&stopped, &whole].map(|run| fs::read(&checkpoints(run)[1]).unwrap());
    assert!(found == expected);
}

#[test]
fn a_run_saves_when_it_is_asked_to_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut watcher = Watcher {
        save_after: Some(7),
        stop_after: Some(8),
        ..Watcher::default()
    };
    let rarely = TrainConfig {
        save_every: 1000,
        keep_last: 9,
        ..config()
    };
    run(folder.path(), Start::New, &rarely, &mut watcher).unwrap();
    let steps: Vec<_> = checkpoints(folder.path());
    let names = steps.iter().map(|file| file.file_stem().unwrap().to_str());
    let names: Vec<_> = names.map(Option::unwrap).collect();
    assert_eq!(
        names,
        [
            "step-00000000",
            "step-00000005",
            "step-00000007",
            "step-00000008"
        ]
    );
}

#[test]
fn a_folder_has_one_writer_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let held = RunFolder::open(&root, &config(), Start::New).unwrap();
    let writing = root.join(".tessera-tmp-of-the-writer");
    fs::write(&writing, "half").unwrap();
    for start in [Start::New, Start::Overwrite, Start::Resume] {
        let error = RunFolder::open(&root, &config(), start).unwrap_err();
        let expected = format!(
            "{} is in use: process {} trains there",
            root.display(),
            std::process::id()
        );
        assert_eq!(error.to_string(), expected, "{start:?}");
    }
    assert!(writing.exists(), "nothing of the writer's is removed");
    let lock = held.lock();
    drop(held);
    let refused = RunFolder::open(&root, &config(), Start::Overwrite).is_err();
    assert!(refused, "what is written after training is locked too");
    drop(lock);
    RunFolder::open(&root, &config(), Start::Overwrite).unwrap();
    assert!(!writing.exists(), "it is nobody's now");
}

#[test]
fn a_run_that_was_killed_before_its_first_checkpoint_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let enter = |start| RunFolder::open(folder.path(), &config(), start).map(drop);
    enter(Start::New).unwrap();
    // As a kill leaves it.
    fs::write(at("checkpoint/.tessera-tmp-0-0-step"), "half").unwrap();
    fs::create_dir(at("model")).unwrap();
    fs::write(at("model/model.json"), "{}").unwrap();
    assert!(at("config.json").is_file() && at("metrics.jsonl").is_file());
    let error = enter(Start::Resume).unwrap_err().to_string();
    assert!(error.contains("checkpoint"), "{error}");
    enter(Start::New).unwrap();
    assert!(!at("model").exists(), "it may be of other settings");
    fs::create_dir(at("model")).unwrap();
    // What is anybody's is not.
    for (name, text) in [
        ("model/model.safetensors", "weights"),
        ("metrics.jsonl", "{\"step\": 1}\n"),
        ("config.json", "{\"kind\": \"pixels\"}"),
        ("checkpoint/step-00000000.safetensors", "weights"),
        ("notes.txt", ""),
    ] {
        let kept = fs::read(at(name));
        fs::write(at(name), text).unwrap();
        let error = enter(Start::New).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{name}: {error}");
        match kept {
            Ok(kept) => fs::write(at(name), kept).unwrap(),
            Err(_) => fs::remove_file(at(name)).unwrap(),
        }
    }
    enter(Start::New).unwrap();
}

#[test]
fn a_run_of_an_older_version_goes_on_without_what_it_did_not_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut watcher = Watcher {
        stop_after: Some(7),
        ..Watcher::default()
    };
    run(folder.path(), Start::New, &config(), &mut watcher).unwrap();
    #[derive(serde::Serialize)]
    struct WithData {
        #[serde(flatten)]
        training: TrainConfig,
        data: &'static str,
    }
    let given = |data| WithData {
        training: config(),
        data,
    };
    let resumed = RunFolder::open(folder.path(), &given("a"), Start::Resume).unwrap();
    assert_eq!(resumed.changes().unrecorded, ["data"]);
    drop(resumed);
    let error = RunFolder::open(folder.path(), &given("b"), Start::Resume).unwrap_err();
    let expected = "data: ran with \"a\", now \"b\"";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn steps_alone_decide_the_end_when_they_are_given_and_no_run_is_empty() {
    let end = |epochs, max_steps| {
        let config = TrainConfig {
            epochs,
            max_steps,
            ..config()
        };
        config.plan(40).map(|plan| plan.total_steps)
    };
    assert_eq!(end(2, None).unwrap(), 10);
    assert_eq!(end(2, Some(3)).unwrap(), 3);
    assert_eq!(end(2, Some(300)).unwrap(), 300);
    for (epochs, max_steps) in [(0, None), (0, Some(3)), (2, Some(0))] {
        let error = end(epochs, max_steps).unwrap_err().to_string();
        assert!(error.ends_with("= 0: must be 1 or more"), "{error}");
    }
}

#[test]
fn a_step_may_be_given_up_between_the_parts_of_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    run(&whole, Start::New, &config(), &mut Watcher::default()).unwrap();
    let mut watcher = Watcher {
        stop_in_step: Some(7),
        ..Watcher::default()
    };
    let stopped = run(&parts, Start::New, &config(), &mut watcher).unwrap();
    assert_eq!((stopped.outcome, stopped.step), (Outcome::Stopped, 7));
    run(&parts, Start::Resume, &config(), &mut Watcher::default()).unwrap();
    let [found, expected] = [&parts, &whole].map(|run| fs::read(&checkpoints(run)[1]).unwrap());
    assert!(found == expected);
    assert_eq!(metrics(&parts), metrics(&whole));
}

/// A process has a copy of every open file from its start until it runs its program.
#[test]
fn a_folder_is_free_when_its_run_ends_although_processes_start() {
    let folder = tempfile::tempdir().unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let mut list = Command::new(std::env::current_exe().unwrap());
                list.arg("--list").stdout(Stdio::null()).status().unwrap();
            }
        });
        for _ in 0..300 {
            let opened = RunFolder::open(folder.path(), &config(), Start::Overwrite);
            // Whatever happens, the other thread ends.
            ended.store(opened.is_err(), Ordering::Relaxed);
            drop(opened.unwrap());
        }
        ended.store(true, Ordering::Relaxed);
    });
}
