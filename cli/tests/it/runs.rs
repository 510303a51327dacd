//! Run folders: who writes into them, how a run goes on, and what signals do.

use crate::world::{WORLD, failure, pictures, stdout, tessera};
use std::fs;
use std::path::Path;

const VAE: &str =
    "train vae --data {} --img-size 16 --ch 8 --ch-mult 1,2 --z-channels 4 --batch-size 3 -o {}";
const AR: &str = "train ar --data {} --img-size 16 --vae {} --bits 4 --enc 16,1,2 --dec 16,1,2 --head 16,1,2 \
                  --buffer-size 2 --batch-size 3 --epochs 9 -o {}";

fn stderr(args: &str, paths: &[&Path]) -> String {
    let output = tessera(args, paths);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "tessera {args}: {text}");
    text
}

/// A copy of the run that trained the generator.
fn copy_of_run(to: &Path) {
    fs::create_dir_all(to.join("checkpoint")).unwrap();
    let from = WORLD.run();
    for name in ["config.json", "metrics.jsonl", "latents.safetensors"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    for file in fs::read_dir(from.join("checkpoint")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join("checkpoint").join(file.file_name())).unwrap();
    }
}

#[test]
fn a_run_is_prolonged_with_its_own_latents_and_says_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    copy_of_run(&run);
    fs::create_dir(run.join("model")).unwrap();
    let weights = "model/model.safetensors";
    fs::copy(WORLD.run().join(weights), run.join(weights)).unwrap();
    let (data, vae) = (WORLD.pictures(), WORLD.vae());
    let paths: [&Path; 3] = [&data, &vae, &run];
    let said = stderr(&format!("{AR} --max-steps 5 --resume"), &paths);
    assert!(said.contains("latents.safetensors"), "{said}");
    assert!(!said.contains("encode"), "nothing is encoded again: {said}");
    assert!(said.contains("--max-steps: ran with 3, now 5"), "{said}");
    assert!(said.contains("a cosine to the end of the run"), "{said}");
    let old = "model stays as the run left it before, until it ends again";
    assert!(said.contains(old), "{said}");
    assert!(run.join("model/model.json").is_file());

    let refused = |options: &str| failure(1, &format!("{AR} --resume {options}"), &paths);
    let error = refused("--max-steps 5 --lr 0.5");
    assert!(error.contains("--lr: ran with 0.001, now 0.5"), "{error}");
    let error = refused("--max-steps 5 --channels 1");
    let expected = "takes pictures of 3 channels, --channels says 1";
    assert!(error.contains(expected), "{error}");
    let error = refused("--max-steps 2");
    assert!(error.contains("the run has done 5 steps"), "{error}");
    let others = folder.path().join("others");
    pictures(&others, 4);
    let args = format!("{AR} --max-steps 5 --resume");
    let error = failure(1, &args, &[&others, &vae, &run]);
    let expected = "the pictures changed: the run was started with 6, --data now has 8";
    assert!(error.contains(expected), "{error}");
    let args = VAE.to_owned() + " --resume";
    let error = failure(1, &args, &[&data, &run]);
    let expected = "this is a run of train ar, not of train vae";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn latents_of_other_pictures_or_another_vae_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    pictures(&at("others"), 3);
    let moved = at("others/disc/disc0.png");
    fs::copy(WORLD.pictures().join("disc/disc1.png"), moved).unwrap();
    let (data, vae) = (WORLD.pictures(), WORLD.vae());
    let args = format!("{AR} --max-steps 1 --sample-every 0 --cached {{}}");
    let cached = at("cached.safetensors");
    stdout(&args, &[&data, &vae, &at("first"), &cached]);
    let error = failure(1, &args, &[&at("others"), &vae, &at("second"), &cached]);
    assert!(error.contains("latents of other pictures"), "{error}");
    let seeded = format!("{VAE} --max-steps 1 --sample-every 0 --seed 7");
    stdout(&seeded, &[&data, &at("vae")]);
    let error = failure(1, &args, &[&data, &at("vae/vae"), &at("third"), &cached]);
    assert!(error.contains("a VAE with other weights"), "{error}");
    // One file with raw weights and averaged ones is of two VAEs.
    let both = "train vae --data {} --img-size 16 --ch 32 --ch-mult 1,1 --z-channels 4 --batch-size 3 --max-steps 1 \
                --sample-every 0 -o {}";
    stdout(both, &[&data, &at("both")]);
    let both = at("both/checkpoint/step-00000001.safetensors");
    let raw = args.clone() + " --weights raw";
    let cached = at("raw.safetensors");
    stdout(&raw, &[&data, &both, &at("fourth"), &cached]);
    let error = failure(1, &args, &[&data, &both, &at("fifth"), &cached]);
    assert!(error.contains("a VAE with other weights"), "{error}");
}

#[test]
fn a_damaged_checkpoint_is_named_with_the_whole_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let paths: [&Path; 2] = [&WORLD.pictures(), &run];
    stdout(&format!("{VAE} --max-steps 2 --save-every 1"), &paths);
    let newest = run.join("checkpoint/step-00000002.safetensors");
    fs::write(&newest, "").unwrap();
    let resume = format!("{VAE} --max-steps 2 --save-every 1 --resume");
    let error = failure(1, &resume, &paths);
    let expected = format!(
        "step-00000001.safetensors is whole: remove {}, then --resume latest",
        newest.display()
    );
    assert!(error.contains(&expected), "{error}");
    fs::remove_file(newest).unwrap();
    stdout(&resume, &paths);
}

#[test]
fn no_run_is_empty() {
    for option in ["--epochs 0", "--max-steps 0"] {
        let args = format!("train vae --data x --img-size 16 -o y {option}");
        let error = failure(2, &args, &[]);
        assert!(error.contains(option.split(' ').next().unwrap()), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_training_whose_stderr_is_full_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tessera"));
    let args = VAE.replace("{}", "-") + " --max-steps 1 --sample-every 0 -t 1";
    let mut paths = [WORLD.pictures(), folder.path().join("run")].into_iter();
    for arg in args.split_whitespace() {
        match arg {
            "-" => command.arg(paths.next().unwrap()),
            arg => command.arg(arg),
        };
    }
    command.stderr(fs::File::create("/dev/full").unwrap());
    assert!(command.output().unwrap().status.success());
    assert!(folder.path().join("run/vae/model.safetensors").is_file());
}

#[cfg(unix)]
#[test]
fn a_running_training_refuses_others_saves_when_asked_and_stops_when_told() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let args =
        VAE.replace("-o {}", "") + " --max-steps 1000 --save-every 9999 --sample-every 0 -t 1";
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    let data = WORLD.pictures().display().to_string();
    command.args(args.split_whitespace().map(|arg| arg.replace("{}", &data)));
    command.arg("-o").arg(&run);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut wait_for = |text: &str| {
        let found = said.find(|line| line.as_ref().unwrap().contains(text));
        found
            .unwrap_or_else(|| panic!("it ends without `{text}`"))
            .unwrap()
    };
    wait_for("train vae 100/1000");
    let resume = args.replace("-t 1", "") + " --resume -o {}";
    let error = failure(1, &resume, &[&WORLD.pictures(), &run]);
    let expected = format!("is in use: process {} trains there", child.id());
    assert!(error.contains(&expected), "{error}");
    let signal = |name: &str| {
        let mut kill = Command::new("kill");
        let status = kill.args([name, &child.id().to_string()]).status();
        assert!(status.unwrap().success());
    };
    signal("-USR1");
    wait_for("saving a checkpoint");
    signal("-TERM");
    wait_for("stopping after this step");
    let last = wait_for("stopped at step");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(last.contains("go on with --resume latest"), "{last}");
    let saved = fs::read_dir(run.join("checkpoint")).unwrap().count();
    assert_eq!(saved, 2, "one when it was asked to, one at its end");
}

/// Trains until so many steps are done, then stops it as a user does.
#[cfg(unix)]
fn stopped(args: &str, paths: &[&Path], at: &str) {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let mut paths = paths.iter();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    for arg in args.split_whitespace() {
        match arg {
            "{}" => command.arg(paths.next().unwrap()),
            arg => command.arg(arg),
        };
    }
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains(at)), "no {at}");
    let kill = Command::new("kill").arg(child.id().to_string()).status();
    assert!(kill.unwrap().success());
    assert!(said.all(|line| line.is_ok()));
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[cfg(unix)]
#[test]
fn a_stopped_run_draws_from_its_newest_whole_checkpoint_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let end = "--max-steps 1000 --save-every 50 --keep-last 2 --sample-every 0 -t 1";
    let ar = AR.replace("--enc 16,1,2", "--enc 16,1,2 --experts 1-in-2");
    let ar = format!("{ar} {end}").replace("--epochs 9", "--epochs 99999");
    stopped(
        &ar,
        &[&WORLD.pictures(), &WORLD.vae(), &at("ar")],
        "train ar 100/1000",
    );
    let dit = "train dit --data {} --img-size 16 --patch 4 --size 16,2,2 --experts 2-in-4 --batch-size 3 \
               --epochs 99999 -o {}";
    let dit = format!("{dit} {end}");
    stopped(&dit, &[&WORLD.pictures(), &at("dit")], "train dit 100/1000");
    for (kind, run) in [("ar", at("ar")), ("dit", at("dit"))] {
        assert_eq!(
            stdout("classes -m {}", &[&run]),
            "0\tdisc\n1\tsquare\n",
            "{kind}"
        );
        stdout("inspect {}", &[&run]);
        stdout("inspect {}", &[&run.join("model")]);
        let mut files: Vec<_> = fs::read_dir(run.join("checkpoint"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let draw = |options: &str, model: &Path| {
            let out = folder.path().join("out");
            let args = format!("generate -m {{}} -c disc --overwrite -o {{}} {options}");
            let said = stderr(&args, &[model, &out]);
            (said, fs::read(out.join("00000.png")).unwrap())
        };
        let newest = files.last().unwrap();
        let (said, of_run) = draw("", &run);
        let expected = format!("averaged weights of {}", newest.display());
        assert!(said.contains(&expected), "{said}");
        assert_eq!(draw("", newest).1, of_run);
        assert_eq!(draw("--weights ema", &run.join("model")).1, of_run);
        let (said, raw) = draw("--weights raw", &run);
        let expected = format!("raw weights of {}", newest.display());
        assert!(said.contains(&expected), "{said}");
        assert_ne!(raw, of_run);
        for (part, whole) in [(run.clone(), "of-run"), (run.join("model"), "of-model")] {
            let whole = at(&format!("{kind}-{whole}"));
            stdout("convert {} -o {}", &[&part, &whole]);
            assert_eq!(draw("", &whole).1, of_run);
        }
        fs::write(newest, "cut").unwrap();
        let (said, _) = draw("", &run);
        let older = files[0].display().to_string();
        assert!(said.contains(&older), "{said}");
        // As a run of an older version, which has no model until it ends.
        fs::remove_dir_all(run.join("model")).unwrap();
        for args in ["generate -m {} -o {}", "classes -m {}"] {
            let paths: [&Path; 2] = [&run, &at("out")];
            let error = failure(1, args, &paths[..args.matches("{}").count()]);
            assert!(error.contains("this run has not ended"), "{error}");
            assert!(error.contains(&older), "{error}");
            assert!(error.contains("--resume latest"), "{error}");
        }
        fs::remove_dir_all(run.join("checkpoint")).unwrap();
        fs::create_dir(run.join("checkpoint")).unwrap();
        let error = failure(1, "classes -m {}", &[&run]);
        assert!(error.contains("expected a whole checkpoint"), "{error}");
    }
    let error = failure(1, "classes -m {}", &[WORLD.vae().parent().unwrap()]);
    assert!(error.contains("kind of the run"), "{error}");
}

#[test]
fn raw_weights_of_a_run_are_those_of_its_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |options: &str, name: &str, model: &Path| {
        let out = folder.path().join(name);
        let args = format!("generate -m {{}} -c disc -o {{}} {options}");
        let said = stderr(&args, &[model, &out]);
        (said, fs::read(out.join("00000.png")).unwrap())
    };
    for run in [&WORLD.run(), &crate::dit::RUN.1] {
        let name = |kind: &str| format!("{}-{kind}", run.file_name().unwrap().display());
        let (said, averaged) = draw("", &name("averaged"), run);
        assert!(!said.contains("weights of"), "{said}");
        assert_eq!(
            draw("--weights ema", &name("ema"), &run.join("model")).1,
            averaged
        );
        let (said, raw) = draw("--weights raw", &name("raw"), run);
        assert!(said.contains("raw weights of"), "{said}");
        assert_ne!(raw, averaged);
    }
}
