//! Stopping anywhere and going on as if nothing had happened.

use crate::rotation::{Rotation, config};
use crate::toy::Toy;
use burn::tensor::Device;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tessera_train::{
    BoxError, Error, Observer, Outcome, RunFolder, Start, StepReport, TrainConfig, Trained,
    newest_whole, train,
};
use tessera_weights::Weights;

/// Stops after a step, and remembers what it was told.
#[derive(Default)]
pub struct Watcher {
    pub stop_after: Option<u64>,
    /// Stops while the end of an epoch is handled, as Ctrl-C in a sample grid does.
    pub stop_in_epoch: Option<u64>,
    /// Gives up the step after so many.
    pub stop_in_step: Option<usize>,
    /// Wants a checkpoint after that step.
    pub save_after: Option<u64>,
    /// The run, whose checkpoint must be there when an epoch's end is told of.
    pub folder: Option<PathBuf>,
    pub steps: Vec<StepReport>,
    pub epochs: Vec<u64>,
    pub resumed: Option<u64>,
}

impl Observer<Toy> for Watcher {
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.steps.push(report.clone());
        match self.stop_after {
            Some(step) if report.step >= step => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn stops(&self) -> bool {
        self.stop_in_step == Some(self.steps.len())
    }

    fn saves(&mut self) -> bool {
        self.save_after == self.steps.last().map(|report| report.step)
    }

    fn on_epoch(
        &mut self,
        epoch: u64,
        model: &Toy,
        ema: &Toy,
    ) -> Result<ControlFlow<()>, BoxError> {
        assert!(!model.first.weight.val().is_autodiff() && !ema.first.weight.val().is_autodiff());
        self.epochs.push(epoch);
        if let Some(folder) = &self.folder {
            let (step, _) = newest_whole(folder).unwrap().unwrap();
            assert_eq!(step, self.steps.last().unwrap().step, "it is on disk");
        }
        match self.stop_in_epoch == Some(epoch) {
            true => Ok(ControlFlow::Break(())),
            false => Ok(ControlFlow::Continue(())),
        }
    }

    fn on_resume(&mut self, epoch: u64, _: &Toy, _: &Toy) -> Result<ControlFlow<()>, BoxError> {
        self.resumed = Some(epoch);
        Ok(ControlFlow::Continue(()))
    }
}

pub fn run(
    folder: &Path,
    start: Start,
    config: &TrainConfig,
    watcher: &mut Watcher,
) -> Result<Trained<Toy>, Error> {
    let device = Device::flex().autodiff();
    let run = RunFolder::open(folder, config, start)?;
    train(
        Toy::new(&device),
        &Rotation::on(&device),
        config,
        run,
        watcher,
    )
}

pub fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder.join("checkpoint"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// The lines without the one field that is a time.
pub fn metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(
                line.as_object_mut()
                    .unwrap()
                    .remove("img_s")
                    .unwrap()
                    .as_f64()
                    .unwrap()
                    > 0.0
            );
            line
        })
        .collect()
}

#[test]
fn a_run_that_stops_at_any_step_ends_with_the_bytes_of_one_that_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let mut watcher = Watcher::default();
    let trained = run(&whole, Start::New, &config(), &mut watcher).unwrap();
    assert_eq!((trained.outcome, trained.step), (Outcome::Finished, 20));
    assert_eq!(watcher.epochs, [1, 2, 3, 4]);
    assert_eq!(watcher.steps.len(), 20);
    let (first, last) = (&watcher.steps[0], &watcher.steps[19]);
    println!("loss {} -> {}", first.loss, last.loss);
    assert!(
        last.loss < 0.5 * first.loss,
        "it learns: {} -> {}",
        first.loss,
        last.loss
    );
    assert_eq!((first.epoch, last.epoch, first.lr), (1, 4, 0.0));
    assert_eq!(
        last.parts.iter().map(|part| part.0).collect::<Vec<_>>(),
        ["mse", "token"]
    );
    let expected = fs::read(&checkpoints(&whole)[1]).unwrap();

    for stop_after in [1, 2, 3, 7, 10, 19] {
        let stopped = folder.path().join(format!("stopped-{stop_after}"));
        let mut watcher = Watcher {
            stop_after: Some(stop_after),
            ..Watcher::default()
        };
        let trained = run(&stopped, Start::New, &config(), &mut watcher).unwrap();
        assert_eq!(
            (trained.outcome, trained.step),
            (Outcome::Stopped, stop_after)
        );
        assert_eq!(watcher.steps.len() as u64, stop_after);
        let resumed = run(&stopped, Start::Resume, &config(), &mut Watcher::default()).unwrap();
        assert_eq!(resumed.outcome, Outcome::Finished);
        assert_eq!(checkpoints(&stopped).len(), 2);
        let found = fs::read(&checkpoints(&stopped)[1]).unwrap();
        assert!(
            found == expected,
            "stopped after {stop_after}: the last checkpoint differs"
        );
        assert_eq!(metrics(&stopped), metrics(&whole));
    }
}

#[test]
fn a_checkpoint_holds_the_weights_the_average_and_both_moments() {
    let folder = tempfile::tempdir().unwrap();
    let trained = run(
        folder.path(),
        Start::New,
        &config(),
        &mut Watcher::default(),
    )
    .unwrap();
    let files = checkpoints(folder.path());
    let names: Vec<_> = files
        .iter()
        .map(|f| f.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["step-00000018.safetensors", "step-00000020.safetensors"]
    );
    let mut checkpoint = Weights::read(&files[1]).unwrap();
    let fields = checkpoint.metadata().clone();
    assert_eq!(fields["schema"], "tessera.checkpoint/v1");
    assert_eq!(
        (&*fields["step"], &*fields["epoch"], &*fields["seed"]),
        ("20", "4", "5")
    );
    assert_eq!(fields["config"].len(), 16);
    assert_eq!(checkpoint.len(), 4 * 7);
    same(
        &checkpoint.take_prefix("model."),
        &Weights::of(&trained.model),
    );
    same(&checkpoint.take_prefix("ema."), &Weights::of(&trained.ema));
    let shape = &checkpoint.get("exp_avg.first.weight").unwrap().shape();
    assert_eq!(shape, &[8, 3], "moments are laid out as their parameters");
}

/// Compares names and values: what was read knows its file, what is in memory has none.
fn same(a: &Weights, b: &Weights) {
    assert!(a.len() == b.len() && a.iter().eq(b.iter()));
}

#[test]
fn what_a_killed_run_leaves_behind_is_removed_and_its_metrics_are_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), Start::New, &config(), &mut Watcher::default()).unwrap();
    let mut watcher = Watcher {
        stop_after: Some(9),
        ..Watcher::default()
    };
    run(folder.path(), Start::New, &config(), &mut watcher).unwrap();
    // A kill after step 11: two more lines and half of a third, a checkpoint that was never renamed.
    let log = folder.path().join("metrics.jsonl");
    let mut text = fs::read_to_string(&log).unwrap();
    text.push_str("{\"step\":10,\"loss\":9}\n{\"step\":11,\"loss\":9}\n{\"step\":12,\"lo");
    fs::write(&log, text).unwrap();
    for name in [".tessera-tmp-abc", "checkpoint/.tessera-tmp-def"] {
        fs::write(folder.path().join(name), "half").unwrap();
    }
    run(
        folder.path(),
        Start::Resume,
        &config(),
        &mut Watcher::default(),
    )
    .unwrap();
    assert_eq!(metrics(folder.path()), metrics(whole.path()));
    assert_eq!(checkpoints(folder.path()).len(), 2);
    assert!(!folder.path().join(".tessera-tmp-abc").exists());
    let bytes = |folder: &Path| fs::read(&checkpoints(folder)[1]).unwrap();
    assert!(bytes(folder.path()) == bytes(whole.path()));

    fs::write(&log, b"{\"step\":1}\nnonsense\n\xff\n{\"step\":2}\n").unwrap();
    let run = RunFolder::open(folder.path(), &config(), Start::Resume).unwrap();
    assert_eq!(run.dropped_metrics(), [2, 3], "a log forbids nothing");
    let kept = fs::read_to_string(&log).unwrap();
    assert_eq!(kept, "{\"step\":1}\n{\"step\":2}\n");
}

#[test]
fn a_finished_run_resumes_into_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(
        folder.path(),
        Start::New,
        &config(),
        &mut Watcher::default(),
    )
    .unwrap();
    let mut watcher = Watcher::default();
    let again = run(folder.path(), Start::Resume, &config(), &mut watcher).unwrap();
    assert_eq!(
        (again.outcome, again.step, watcher.steps.len()),
        (Outcome::Finished, 20, 0)
    );
    assert_eq!(Weights::of(&again.ema), Weights::of(&first.ema));

    // As a kill leaves it between the last checkpoint and the removal of an old one.
    let whole = checkpoints(folder.path());
    let old = folder.path().join("checkpoint/step-00000012.safetensors");
    fs::copy(&whole[0], &old).unwrap();
    run(
        folder.path(),
        Start::Resume,
        &config(),
        &mut Watcher::default(),
    )
    .unwrap();
    assert_eq!(checkpoints(folder.path()), whole);
}

#[test]
fn a_folder_in_use_is_refused_and_overwriting_starts_over() {
    let folder = tempfile::tempdir().unwrap();
    run(
        folder.path(),
        Start::New,
        &config(),
        &mut Watcher::default(),
    )
    .unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    fs::create_dir(folder.path().join("model")).unwrap();
    let error = run(
        folder.path(),
        Start::New,
        &config(),
        &mut Watcher::default(),
    )
    .unwrap_err();
    assert!(matches!(error, Error::FolderNotEmpty { .. }), "{error}");
    let mut other = config();
    other.seed = 6;
    let mut watcher = Watcher {
        stop_after: Some(1),
        ..Watcher::default()
    };
    run(folder.path(), Start::Overwrite, &other, &mut watcher).unwrap();
    assert_eq!(metrics(folder.path()).len(), 1);
    assert_eq!(checkpoints(folder.path()).len(), 2);
    let model = folder.path().join("model");
    assert!(!model.exists(), "the old run's model is not the new one's");
    assert_eq!(
        fs::read_to_string(folder.path().join("notes.txt")).unwrap(),
        "mine"
    );
}

#[test]
fn there_is_no_resuming_without_a_run_a_checkpoint_or_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let resume =
        |config: &TrainConfig| RunFolder::open(folder.path(), config, Start::Resume).unwrap_err();
    let error = resume(&config()).to_string();
    assert!(error.ends_with("it has no config.json"), "{error}");

    RunFolder::open(folder.path(), &config(), Start::New).unwrap();
    let error = resume(&config()).to_string();
    assert!(error.ends_with("it has no checkpoint"), "{error}");

    let mut watcher = Watcher {
        stop_after: Some(1),
        ..Watcher::default()
    };
    run(folder.path(), Start::Overwrite, &config(), &mut watcher).unwrap();
    let mut changed = config();
    (changed.lr, changed.batch_size, changed.max_steps) = (0.5, 4, Some(3));
    let error = resume(&changed).to_string();
    let expected = "differs from the configuration given: batch_size: ran with 8, now 4; \
                    lr: ran with 0.05, now 0.5";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn a_checkpoint_of_another_run_or_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    run(
        folder.path(),
        Start::New,
        &config(),
        &mut Watcher::default(),
    )
    .unwrap();
    let mut changed = config();
    changed.seed = 6;
    run(other.path(), Start::New, &changed, &mut Watcher::default()).unwrap();
    let last = &checkpoints(folder.path())[1];
    fs::copy(&checkpoints(other.path())[1], last).unwrap();
    let resume = || {
        run(
            folder.path(),
            Start::Resume,
            &config(),
            &mut Watcher::default(),
        )
    };
    let error = resume().unwrap_err();
    assert!(
        error_text(&error).contains("the mark of the configuration"),
        "{error}"
    );

    let bytes = fs::read(last).unwrap();
    fs::write(last, &bytes[..bytes.len() / 2]).unwrap();
    match resume().unwrap_err() {
        Error::BadCheckpoint { file, older, .. } => {
            assert_eq!(file, checkpoints(folder.path())[1]);
            assert_eq!(older, Some(checkpoints(folder.path())[0].clone()));
            fs::remove_file(file).unwrap();
        }
        other => panic!("{other}"),
    }
    assert_eq!(resume().unwrap().step, 20, "from the one before");
}

fn error_text(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(error_text).unwrap_or_default();
    format!("{error}: {cause}")
}

#[test]
fn the_newest_whole_checkpoint_is_found_past_damaged_ones() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(newest_whole(&folder.path().join("absent")).unwrap(), None);
    run(
        folder.path(),
        Start::New,
        &config(),
        &mut Watcher::default(),
    )
    .unwrap();
    let files = checkpoints(folder.path());
    let newest = || newest_whole(folder.path()).unwrap();
    assert_eq!(newest(), Some((20, files[1].clone())));
    let mut bytes = fs::read(&files[1]).unwrap();
    *bytes.last_mut().unwrap() ^= 1; // as a bad disk does
    fs::write(&files[1], bytes).unwrap();
    assert_eq!(newest(), Some((18, files[0].clone())));
    fs::write(&files[0], "").unwrap();
    assert_eq!(newest(), None);
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_and_leaves_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex().autodiff();
    let open = |start| RunFolder::open(folder.path(), &config(), start).unwrap();
    let mut objective = Rotation::on(&device);
    objective.explodes = true;
    let error = train(
        Toy::new(&device),
        &objective,
        &config(),
        open(Start::New),
        &mut (),
    )
    .unwrap_err();
    match &error {
        Error::NonFinite { step: 1, what } => assert_eq!(what, "the loss `total`"),
        other => panic!("{other}"),
    }
    assert_eq!(checkpoints(folder.path()).len(), 1);
    objective.explodes = false;
    let trained = train(
        Toy::new(&device),
        &objective,
        &config(),
        open(Start::Resume),
        &mut (),
    )
    .unwrap();
    assert_eq!(trained.step, 20);
}

#[test]
fn a_batch_in_two_parts_takes_the_step_of_the_whole_batch() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex().autodiff();
    let trained = [1, 2].map(|grad_accum| {
        let mut config = config();
        (config.grad_accum, config.max_steps, config.warmup_epochs) = (grad_accum, Some(1), 0.0);
        let mut objective = Rotation::on(&device);
        objective.noise = 0.0; // whose streams go by part
        let folder = folder.path().join(grad_accum.to_string());
        let run = RunFolder::open(folder, &config, Start::New).unwrap();
        let trained = train(Toy::new(&device), &objective, &config, run, &mut ()).unwrap();
        Weights::of(&trained.model)
    });
    let start = Weights::of(&Toy::new(&device));
    for (name, whole) in trained[0].iter() {
        let parts = &trained[1].get(name).unwrap().values().unwrap();
        for (a, b) in whole.values().unwrap().iter().zip(parts.iter()) {
            assert!((a - b).abs() < 1e-4, "{name}: {a} and {b}");
        }
        assert_ne!(whole, start.get(name).unwrap(), "{name} moved");
    }
}
