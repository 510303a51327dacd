//! SIGKILL at ten random moments: `Start::Resume` goes on each time, and the last checkpoint is the one of a run
//! that nobody killed.

use crate::rotation::{Rotation, config};
use crate::toy::Toy;
use burn::tensor::Device;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use tessera_backend::Rng;
use tessera_train::{Observer, RunFolder, Start, StepReport, TrainConfig, train};

/// Set for the child process alone: the run folder.
const FOLDER: &str = "TESSERA_TRAIN_KILL_FOLDER";
const KILLS: usize = 10;

fn long() -> TrainConfig {
    TrainConfig {
        epochs: 100, // 500 steps
        save_every: 3,
        ..config()
    }
}

/// Tells the parent of every step, so that it can kill at one without watching a clock.
struct Tell;

impl Observer<Toy> for Tell {
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        println!("\nstep {}", report.step);
        std::io::stdout().flush().unwrap();
        ControlFlow::Continue(())
    }
}

fn run(folder: &Path) {
    let device = Device::flex().autodiff();
    let has_checkpoint = fs::read_dir(folder.join("checkpoint")).is_ok_and(|files| {
        files
            .flatten()
            .any(|file| file.file_name().to_string_lossy().starts_with("step-"))
    });
    let start = if has_checkpoint {
        Start::Resume
    } else {
        Start::Overwrite
    };
    let run = RunFolder::open(folder, &long(), start).unwrap();
    train(
        Toy::new(&device),
        &Rotation::on(&device),
        &long(),
        run,
        &mut Tell,
    )
    .unwrap();
}

/// The body of the child process; without the variable it does nothing.
#[test]
fn the_process_that_is_killed() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        run(Path::new(&folder));
    }
}

fn spawn(folder: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::the_process_that_is_killed", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_run_killed_at_ten_random_moments_ends_with_the_bytes_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let (killed, whole) = (folder.path().join("killed"), folder.path().join("whole"));
    assert!(spawn(&whole).wait_with_output().unwrap().status.success());

    let mut rng = Rng::new(1, 0);
    let mut reached = Vec::new();
    for _ in 0..KILLS {
        let mut child = spawn(&killed);
        let steps = 20 + rng.below(30);
        let output = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let last = output
            .filter(|line| line.starts_with("step "))
            .take(steps)
            .last();
        child.kill().unwrap(); // SIGKILL
        assert!(
            !child.wait().unwrap().success(),
            "it was killed before its end"
        );
        reached.push(last.unwrap());
    }
    println!("killed at {reached:?}");
    let output = spawn(&killed).wait_with_output().unwrap();
    assert!(output.status.success());
    let name = "checkpoint/step-00000500.safetensors";
    let [found, expected] = [&killed, &whole].map(|run| fs::read(run.join(name)).unwrap());
    assert!(found == expected, "the killed run ended with other weights");
    let lines = fs::read_to_string(killed.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 500);
}
