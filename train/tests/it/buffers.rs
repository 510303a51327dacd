//! Values that a loss measures instead of training them.

use crate::rotation::{Rotation, config};
use crate::toy::Toy;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use tessera_backend::{Rng, init::ParamInit};
use tessera_train::{
    BoxError, Losses, Objective, Observer, RunFolder, Share, Start, StepReport, Trained, train,
};
use tessera_weights::Weights;

/// A model with a number that no gradient reaches.
#[derive(Module, Debug)]
struct Gauged {
    toy: Toy,
    level: Param<Tensor<1>>,
}

impl Gauged {
    fn new(device: &Device) -> Self {
        Self {
            toy: Toy::new(device),
            level: ParamInit::new(0, device).buffer(&[0.0], [1]),
        }
    }
}

fn level(model: &Gauged) -> f32 {
    model.level.val().into_data().iter::<f32>().sum()
}

/// Measures, of each part of a batch, a value that follows from the last one: what is lost once is never right again.
struct Gauge {
    toy: Rotation,
    /// The level that each part found, and what it measured.
    seen: Mutex<Vec<(f32, f32)>>,
}

impl Objective<Gauged> for Gauge {
    type Batch = Vec<[f32; 3]>;

    fn examples(&self) -> usize {
        self.toy.examples()
    }

    fn batch(&self, indices: &[usize], rng: Rng) -> Result<Self::Batch, BoxError> {
        self.toy.batch(indices, rng)
    }

    fn losses(
        &self,
        model: &Gauged,
        batch: Self::Batch,
        share: Share,
        rng: Rng,
    ) -> Result<Losses, BoxError> {
        let (found, sample) = (level(model), 1.0 + batch[0][2]);
        let measured = 0.75 * found + 0.25 * sample;
        self.seen.lock().unwrap().push((found, measured));
        Ok(Losses {
            buffers: vec![("level".into(), measured)],
            ..self.toy.losses(&model.toy, batch, share, rng)?
        })
    }
}

struct StopAfter(u64);

impl Observer<Gauged> for StopAfter {
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        match report.step >= self.0 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

fn gauge(device: &Device) -> Gauge {
    Gauge {
        toy: Rotation::on(device),
        seen: Mutex::default(),
    }
}

fn run(folder: &Path, start: Start, stop_after: u64, gauge: &Gauge) -> Trained<Gauged> {
    let run = RunFolder::open(folder, &config(), start).unwrap();
    let model = Gauged::new(&gauge.toy.device);
    train(model, gauge, &config(), run, &mut StopAfter(stop_after)).unwrap()
}

#[test]
fn buffers_reach_the_model_and_its_average_as_the_mean_of_a_batch_s_parts() {
    let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex().autodiff());
    let gauge = gauge(&device);
    let trained = run(folder.path(), Start::New, u64::MAX, &gauge);
    let seen = gauge.seen.into_inner().unwrap();
    assert_eq!(seen.len(), 40, "20 steps of two parts");
    let mut expected = 0.0;
    for parts in seen.chunks(2) {
        assert!(parts.iter().all(|(found, _)| *found == expected));
        expected = (parts[0].1 + parts[1].1) / 2.0;
    }
    assert!(expected > 0.9, "it follows its samples: {expected}");
    assert_eq!([level(&trained.model), level(&trained.ema)], [expected; 2]);
    let weights = Weights::of(&trained.ema.toy);
    assert_ne!(
        weights,
        Weights::of(&trained.model.toy),
        "the rest is averaged"
    );
}

#[test]
fn buffers_survive_stopping_at_any_step() {
    let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex().autodiff());
    let last = |name: &str| {
        let file = "checkpoint/step-00000020.safetensors";
        fs::read(folder.path().join(name).join(file)).unwrap()
    };
    run(
        &folder.path().join("whole"),
        Start::New,
        u64::MAX,
        &gauge(&device),
    );
    for stop_after in [1, 4, 13] {
        let name = format!("stopped-{stop_after}");
        let stopped = folder.path().join(&name);
        run(&stopped, Start::New, stop_after, &gauge(&device));
        run(&stopped, Start::Resume, u64::MAX, &gauge(&device));
        assert!(last(&name) == last("whole"), "stopped after {stop_after}");
    }
}
