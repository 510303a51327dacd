//! Many ranks train as one does, and one of them writes.

use crate::rotation::{Rotation, config};
use crate::toy::Toy;
use burn::tensor::Device;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use tessera_attention2d::{Result, threads};
use tessera_train::{
    BoxError, Error, Observer, Outcome, Ranks, Start, StepReport, TrainConfig, train_on,
};
use tessera_weights::Weights;

type Flow = std::result::Result<ControlFlow<()>, BoxError>;

/// Stops after a step, and counts epochs.
#[derive(Default)]
struct Watcher {
    stop_after: Option<u64>,
    losses: Vec<f32>,
    epochs: usize,
}

impl Observer<Toy> for Watcher {
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.losses.push(report.loss);
        match self.stop_after {
            Some(step) if report.step >= step => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn on_epoch(&mut self, _: u64, _: &Toy, _: &Toy) -> Flow {
        self.epochs += 1;
        Ok(ControlFlow::Continue(()))
    }
}

/// What every rank saw, and how it ended. The last rank alone asks to stop.
fn run(
    folder: &Path,
    ranks: usize,
    start: Start,
    config: &TrainConfig,
    stop_after: Option<u64>,
) -> Result<Vec<(Watcher, Outcome, Vec<f32>)>> {
    threads::run(ranks, |comm| {
        let mut watcher = Watcher {
            stop_after: stop_after.filter(|_| comm.rank() + 1 == ranks),
            ..Watcher::default()
        };
        let ranks = Ranks::new(comm, 1).unwrap();
        let device = Device::flex().autodiff();
        let entry = ranks.enter(folder, start).unwrap();
        let run = ranks.open(entry, config).unwrap();
        let (model, data) = (Toy::new(&device), Rotation::on(&device));
        let trained = train_on(&ranks, model, &data, config, run, &mut watcher).unwrap();
        let weights = Weights::of(&trained.model);
        let weights = weights
            .iter()
            .flat_map(|(_, weight)| weight.values().unwrap().to_vec());
        Ok((watcher, trained.outcome, weights.collect()))
    })
}

#[test]
fn four_ranks_train_as_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let one = run(&path("one"), 1, Start::New, &config(), None).unwrap();
    let four = run(&path("four"), 4, Start::New, &config(), None).unwrap();
    for (watcher, outcome, weights) in &four {
        assert_eq!(*outcome, Outcome::Finished);
        assert_eq!(watcher.losses.len(), one[0].0.losses.len());
        for (found, expected) in watcher.losses.iter().zip(&one[0].0.losses) {
            assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
        }
        assert_eq!(*weights, four[0].2, "all ranks have the same bits");
    }
    let epochs: Vec<_> = four.iter().map(|rank| rank.0.epochs).collect();
    assert_eq!(
        epochs,
        [4, 0, 0, 0],
        "the first rank alone is told of epochs"
    );
    let lines = |name: &str| {
        fs::read_to_string(path(name).join("metrics.jsonl"))
            .unwrap()
            .lines()
            .count()
    };
    assert_eq!(lines("four"), lines("one"), "one rank writes");
}

#[test]
fn all_ranks_stop_where_one_is_told_to_and_go_on_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let whole = run(&path("whole"), 2, Start::New, &config(), None).unwrap();
    let stopped = run(&path("parts"), 2, Start::New, &config(), Some(7)).unwrap();
    for (watcher, outcome, _) in &stopped {
        assert_eq!((watcher.losses.len(), *outcome), (7, Outcome::Stopped));
    }
    let resumed = run(&path("parts"), 2, Start::Resume, &config(), None).unwrap();
    assert_eq!(resumed[0].2, whole[0].2);
    assert_eq!(resumed[1].2, whole[1].2);
}

#[test]
fn a_batch_that_ranks_cannot_share_evenly_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let texts = threads::run(3, |comm| {
        let ranks = Ranks::new(comm, 1).unwrap();
        let device = Device::flex().autodiff();
        let entry = ranks.enter(folder.path(), Start::New).unwrap();
        let run = ranks.open(entry, &config()).unwrap();
        let (model, data) = (Toy::new(&device), Rotation::on(&device));
        let error: Error = train_on(&ranks, model, &data, &config(), run, &mut ()).unwrap_err();
        Ok(error.to_string())
    });
    let text = texts.unwrap().remove(0);
    assert!(
        text.starts_with("batch_size = 8: must be a multiple of 6"),
        "{text}"
    );
}
