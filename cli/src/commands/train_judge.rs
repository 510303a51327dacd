//! `tessera train judge`.

use super::training::Flow;
use super::training::run::{self, Pictures};
use super::training::watch::{Shows, Watching};
use crate::args::{DataArgs, Global, MOST_STEPS, RunArgs, within};
use crate::progress::{Cadence, Progress};
use crate::{data, interrupt, output};
use anyhow::{Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use std::ops::ControlFlow;
use tessera::WeightDtype;
use tessera::evaluate::{Classifier, ClassifierConfig, classifier_recipe, train_classifier};
use tessera::pictures::dataset::Split;
use tessera::train::{Ranks, StepReport, TrainConfig};

/// Train the classifier that `tessera eval` judges generated pictures with.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  \
    tessera train judge --data fashion-mnist/ --img-size 32 --channels 1 -o runs/judge")]
pub struct TrainJudge {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Passes over the data; the recipe's own unless given.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = within(1..=MOST_STEPS))]
    epochs: Option<u64>,
    /// Steps of the whole run, whatever --epochs says; --epochs decides its end unless given.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = within(1..=MOST_STEPS))]
    max_steps: Option<u64>,
    /// Decides weights, order and augmentation.
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    #[arg(value_parser = within(0..=u64::MAX))]
    seed: u64,
}

#[derive(Serialize)]
struct RunConfig<'a> {
    kind: &'static str,
    classifier: &'a ClassifierConfig,
    training: &'a TrainConfig,
    data: &'a Pictures,
}

impl TrainJudge {
    /// Trains, prints the share of the test set it classifies as labeled, and leaves it in `OUTPUT/model`.
    ///
    /// # Errors
    /// Bad data, a loss that is not finite, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        let ranks = Ranks::alone();
        let entry = run::enter(&ranks, &self.run)?;
        let train = data::open(&self.data, Split::Train, global.quiet)?;
        let test = data::open(&self.data, Split::Test, global.quiet)?;
        let config = ClassifierConfig::small(
            self.data.channels,
            self.data.img_size,
            train.class_names().len(),
        );
        let recipe = classifier_recipe(self.seed);
        let training = TrainConfig {
            epochs: self.epochs.unwrap_or(recipe.epochs),
            max_steps: self.max_steps,
            ..recipe
        };
        ensure!(
            train.len() >= training.batch_size,
            "{}: {} pictures to train on, expected {} at least: a step takes so many",
            self.data.data.display(),
            train.len(),
            training.batch_size
        );
        let total = training
            .plan(train.len())
            .map_err(run::in_words)?
            .total_steps;
        let run_config = RunConfig {
            kind: "judge",
            classifier: &config,
            training: &training,
            data: &Pictures::of(&*train)?,
        };
        let run = run::open(&ranks, entry, &run_config, &training, global.quiet)?;
        let _lock = run.lock();
        let cadence = Cadence {
            sample_every: 0,
            quiet: global.quiet,
        };
        let progress = Progress::new("train judge", "steps", total, global.quiet);
        let mut watch = Watching::new(Losses, progress, cadence);
        let saving = interrupt::Saving::begin();
        let (classifier, accuracy) = train_classifier(
            &*train,
            &*test,
            &config,
            &training,
            run,
            &mut watch,
            device.burn(),
        )?;
        drop(saving);
        watch.finish();
        if interrupt::requested() {
            bail!("stopped; go on with --resume latest");
        }
        let folder = self.run.output.join("model");
        classifier.save_dir(&folder, WeightDtype::F16)?;
        output::note(format_args!(
            "{:.2} % of {} test images classified as labeled",
            100.0 * accuracy,
            test.len()
        ));
        output::text(folder.display())?;
        Ok(())
    }
}

/// Shows the loss alone.
struct Losses;

impl Shows<Classifier> for Losses {
    fn line(&self, report: &StepReport) -> String {
        format!("loss {:.4}", report.loss)
    }

    fn at_end_of(&self, _: u64, _: Cadence) -> bool {
        false
    }

    fn is_shown(&self, _: u64, _: Cadence) -> bool {
        true
    }

    fn show(&mut self, _: u64, _: &Classifier, _: Cadence) -> Flow {
        Ok(ControlFlow::Continue(()))
    }
}
