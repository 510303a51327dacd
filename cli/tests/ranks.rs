//! The program on ranks of `mpirun`.
#![allow(clippy::unwrap_used)]

#[path = "../../attention2d/tests/mpirun/mod.rs"]
mod mpirun;
#[path = "it/world.rs"]
#[allow(dead_code)]
mod world;

use mpirun::{Job, children, kill_now, mpirun, mpirun_while};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tessera::backend::Rng;
use tessera::weights::Weights;
use world::{WORLD, losses, pictures, tessera};

/// For a job that ends by itself.
const LIMIT: Duration = Duration::from_secs(60);

/// For one that a rank ends, from then on.
const END: Duration = Duration::from_secs(10);

const PROGRAM: &str = env!("CARGO_BIN_EXE_tessera");

/// `mpirun -n ranks tessera args`; `{}` stands for `paths` in turn.
fn arguments(ranks: usize, args: &str, paths: &[&Path]) -> Vec<String> {
    let mut paths = paths.iter();
    let start = ["-n".into(), ranks.to_string(), PROGRAM.into()].into_iter();
    let args = args
        .split_whitespace()
        .map(|arg| match arg.split_once("{}") {
            None => arg.into(),
            Some((head, tail)) => format!("{head}{}{tail}", paths.next().unwrap().display()),
        });
    start.chain(args).collect()
}

fn on_ranks(ranks: usize, args: &str, paths: &[&Path]) -> Job {
    mpirun(arguments(ranks, args, paths), &[], LIMIT)
}

fn succeed(ranks: usize, args: &str, paths: &[&Path]) -> Job {
    let job = on_ranks(ranks, args, paths);
    assert_eq!(job.code, Some(0), "{ranks} ranks, {args}: {}", job.stderr);
    job
}

/// Lines that the program says, not `mpirun`.
fn errors(job: &Job) -> Vec<&str> {
    let lines = job.stderr.lines();
    lines.filter(|line| line.starts_with("error:")).collect()
}

#[test]
fn a_grid_draws_the_picture_of_one_rank() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let one = tessera("generate --class 3 --seed 7 -o {}", &[&path("one")]);
    assert!(one.status.success());
    let expected = fs::read(path("one").join("00000.png")).unwrap();
    for (ranks, grid) in [(4, "2x2"), (2, "1x2"), (6, "3x2")] {
        let args = format!("generate --class 3 --seed 7 --attn-grid {grid} -o {{}}");
        let job = succeed(ranks, &args, &[&path(grid)]);
        assert_eq!(job.stdout.lines().count(), 1, "one rank prints");
        let found = fs::read(path(grid).join("00000.png")).unwrap();
        assert!(found == expected, "{grid} draws another picture");
    }
}

/// All files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let file = |entry: fs::DirEntry| (entry.file_name(), fs::read(entry.path()).unwrap());
    entries.map(file).collect()
}

#[test]
fn ranks_divide_the_pictures_and_write_the_files_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let args = "generate --class 3,5 -n 4 --seed 7 --steps 4 --grid -o {}";
    let one = tessera(args, &[&path("one")]);
    assert!(one.status.success());
    let (expected, listed) = (files(&path("one")), String::from_utf8(one.stdout).unwrap());
    assert_eq!(expected.len(), 9);
    for (ranks, more) in [(2, ""), (3, ""), (2, " --batch-size 1"), (9, "")] {
        let name = format!("r{ranks}{}", more.len());
        let job = succeed(ranks, &(args.to_owned() + more), &[&path(&name)]);
        assert!(files(&path(&name)) == expected, "{ranks} ranks{more}");
        assert_eq!(job.stdout.replace(&name, "one"), listed);
        assert!(job.stderr.contains("8 pictures in"), "{}", job.stderr);
    }
    let job = succeed(2, &(args.to_owned() + " --json -q"), &[&path("json")]);
    let report: serde_json::Value = serde_json::from_str(&job.stdout).unwrap();
    let images = report["images"].as_array().unwrap();
    let seeds: Vec<_> = images
        .iter()
        .map(|image| &image["params"]["seed"])
        .collect();
    assert_eq!(seeds, (7..15).collect::<Vec<u64>>());
    // Names are checked before anything is drawn.
    let job = on_ranks(2, args, &[&path("one")]);
    assert!(
        job.code == Some(1) && errors(&job).len() == 1,
        "{}",
        job.stderr
    );
    assert!(!job.stderr.contains("to draw"), "{}", job.stderr);
}

#[test]
fn ranks_with_other_weights_or_pictures_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // Every rank works in a folder of its own, under the same names.
    for (place, seed) in [("a", 1), ("b", 2)] {
        let (data, vae) = (WORLD.pictures(), WORLD.vae());
        let run = path(place).join("run");
        let args = format!("{} --max-steps 1 --seed {seed}", train());
        assert!(tessera(&args, &[&data, &vae, &run]).status.success());
        pictures(&path(place).join("data"), 3);
    }
    let of_class = |name: &str| path("b").join("data").join(name);
    fs::copy(of_class("square/square0.png"), of_class("disc/disc0.png")).unwrap();
    let vae = WORLD.vae();
    let trained = train().replacen("{}", "data", 1);
    for (args, paths, said) in [
        (
            "generate -m run -n 1 -o out",
            &[][..],
            "the ranks' models differ: rank 1 has ",
        ),
        (
            &*(trained + " --max-steps 1"),
            &[&*vae, Path::new("r")][..],
            "the ranks' pictures differ: rank 1 has ",
        ),
    ] {
        let of = |place: &str| {
            let mut all = vec!["-wdir".to_owned(), path(place).display().to_string()];
            all.extend(arguments(1, args, paths));
            all
        };
        let job = mpirun([of("a"), vec![":".into()], of("b")].concat(), &[], LIMIT);
        assert!(!job.late && job.code == Some(1), "{}", job.stderr);
        assert!(errors(&job).join("").contains(said), "{}", job.stderr);
    }
}

#[test]
fn a_seed_that_is_drawn_is_the_same_at_all_ranks() {
    let folder = tempfile::tempdir().unwrap();
    succeed(
        2,
        "generate --class 3 --seed -1 --attn-grid 2x1 -o {}",
        &[folder.path()],
    );
}

#[test]
fn what_all_ranks_find_is_said_once() {
    let job = on_ranks(
        4,
        "generate -m /no/such/model --attn-grid 2x2 -o /no/such/folder",
        &[],
    );
    assert_eq!(job.code, Some(1));
    let errors = errors(&job);
    assert_eq!(errors.len(), 1, "{}", job.stderr);
    assert!(errors[0].starts_with("error: rank 0: ") && errors[0].contains("/no/such/model"));
}

#[test]
fn ranks_with_other_arguments_are_named() {
    let both = [
        arguments(1, "generate --class 3 --attn-grid 2x1 -o /no/such", &[]),
        vec![":".into()],
        arguments(1, "generate --class 4 --attn-grid 2x1 -o /no/such", &[]),
    ];
    let job = mpirun(both.concat(), &[], END);
    assert!(!job.late && job.code == Some(1));
    let text = errors(&job).join("");
    assert!(
        text.contains("the ranks' arguments differ: rank 1 has generate --class 4"),
        "{}",
        job.stderr
    );
}

#[test]
fn ranks_that_do_not_fit_are_refused() {
    for (ranks, args, said) in [
        (3, "generate --attn-grid 2x2", "4 ranks, there are 3"),
        (2, "classes", "only generate, train vae"),
    ] {
        let job = on_ranks(ranks, args, &[]);
        assert!(
            job.code != Some(0) && errors(&job).join("").contains(said),
            "{}",
            job.stderr
        );
    }
}

#[test]
fn every_method_is_measured_on_ranks() {
    let job = succeed(
        4,
        "attn bench --tokens 61 --heads 4 --head-dim 8 --variants --check --json",
        &[],
    );
    let report: serde_json::Value = serde_json::from_str(&job.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 9);
    for row in rows {
        assert_eq!(row["as_predicted"], true, "{row}");
        assert!(row["difference"].as_f64().unwrap() < 1e-5, "{row}");
    }
}

/// The command of a short run on the pictures of the world.
fn train() -> String {
    "train ar --data {} --img-size 16 --vae {} --enc 16,1,2 --dec 16,1,2 --head 16,1,2 --batch-size 4 --epochs 1000 \
     -q -o {}"
        .into()
}

#[test]
fn ranks_train_as_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (data, vae) = (WORLD.pictures(), WORLD.vae());
    let args = train() + " --max-steps 20";
    assert!(
        tessera(&args, &[&data, &vae, &path("one")])
            .status
            .success()
    );
    let expected = losses(&path("one"));
    for (ranks, grid) in [(4, ""), (4, " --attn-grid 2x1"), (4, " --attn-grid 2x2")] {
        let run = path(&format!("ranks{}", grid.len()).replace(' ', "")).join(grid.trim());
        succeed(ranks, &(args.clone() + grid), &[&data, &vae, &run]);
        let found = losses(&run);
        assert_eq!(found.len(), expected.len());
        for ((_, found), (_, expected)) in found.iter().zip(&expected) {
            assert!(
                (found / expected - 1.0).abs() < 1e-4,
                "{grid}: {found} {expected}"
            );
        }
        assert!(run.join("model/model.safetensors").is_file());
    }
}

/// Runs a job and kills one of its four ranks when `ready`; how long the others took to go.
fn killed(args: &str, paths: &[&Path], victim: usize, ready: impl FnOnce()) -> Duration {
    let mut since = Instant::now();
    let job = mpirun_while(arguments(4, args, paths), &[], LIMIT, |mpirun| {
        let started = Instant::now();
        while children(mpirun).len() < 4 {
            assert!(started.elapsed() < END, "all ranks start");
            wait(Duration::from_millis(10));
        }
        ready();
        let ranks = children(mpirun);
        since = Instant::now();
        kill_now(ranks[victim]);
    });
    let took = since.elapsed();
    assert!(!job.late && job.code != Some(0));
    let said = format!("process rank {victim} ");
    assert!(job.stderr.contains(&said), "{}", job.stderr);
    assert!(took < END, "gone after {took:?}");
    took
}

/// Waits; nobody sends.
fn wait(time: Duration) {
    let (_sender, receiver) = mpsc::channel::<()>();
    let _ = receiver.recv_timeout(time);
}

#[test]
fn a_rank_killed_at_any_moment_of_attention_ends_all() {
    let mut rng = Rng::new(2503, 15758);
    let args = "attn bench --tokens 1024 --heads 8 --grid 2x2 --method attention2d,ring -r 1000 --no-compare";
    for _ in 0..6 {
        let (victim, moment) = (rng.below(4), 0.5 + rng.uniform());
        killed(args, &[], victim, || wait(Duration::from_secs_f32(moment)));
    }
}

#[test]
fn a_rank_killed_at_any_moment_of_training_leaves_a_whole_checkpoint() {
    let mut rng = Rng::new(2503, 15759);
    let folder = tempfile::tempdir().unwrap();
    let (data, vae) = (WORLD.pictures(), WORLD.vae());
    let run = folder.path().join("run");
    let mut args = train() + " --save-every 3";
    let mut step = 0;
    for _ in 0..4 {
        let (victim, more) = (rng.below(4), 12 + rng.below(9) as u64);
        killed(&args, &[&data, &vae, &run], victim, || {
            let started = Instant::now();
            while losses(&run).last().is_none_or(|last| last.0 < step + more) {
                assert!(started.elapsed() < LIMIT, "training goes on");
                wait(Duration::from_millis(10));
            }
        });
        // The last checkpoint is whole: all tensors are there, their checksums hold, and the run goes on from it.
        let mut files: Vec<_> = fs::read_dir(run.join("checkpoint")).unwrap().collect();
        files.sort_by_key(|file| file.as_ref().unwrap().file_name());
        let last = files.pop().unwrap().unwrap();
        let weights = Weights::read(last.path()).unwrap();
        assert!(weights.iter().all(|(_, weight)| weight.values().is_ok()));
        let name = last.file_name().into_string().unwrap();
        step = name["step-".len()..][..8].parse().unwrap();
        if !args.contains("--resume") {
            args += " --resume latest";
        }
    }
}

#[test]
fn asked_to_stop_all_ranks_save_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let (data, vae) = (WORLD.pictures(), WORLD.vae());
    let run = folder.path().join("run");
    let mut args = train().replace(" -q", "");
    // Any one rank may be asked; the first says what mpirun may do meanwhile.
    for asked in [1, 0] {
        let (arguments, done) = (
            arguments(2, &args, &[&data, &vae, &run]),
            losses(&run).len(),
        );
        let job = mpirun_while(arguments, &[], LIMIT, |mpirun| {
            while losses(&run).len() <= done {
                wait(Duration::from_millis(10));
            }
            let one = children(mpirun)[asked].to_string();
            Command::new("kill").args(["-TERM", &one]).status().unwrap();
        });
        assert!(
            !job.late && job.stderr.contains("stopped at step"),
            "{}",
            job.stderr
        );
        let patience = "unless started with --mca odls_base_sigkill_timeout 600";
        assert_eq!(job.stderr.contains(patience), asked == 0, "{}", job.stderr);
        args += " --resume latest";
    }
    assert!(fs::read_dir(run.join("checkpoint")).unwrap().count() > 1);
}
