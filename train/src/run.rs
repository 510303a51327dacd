//! The loop: batches, steps, metrics and checkpoints, so that a run can stop anywhere and go on as if it had not.

use crate::checkpoint::TrainState;
use crate::config::{StepPlan, TrainConfig};
use crate::ema::Ema;
use crate::error::{BoxError, Error, Result};
use crate::losses::LossValues;
pub use crate::losses::Losses;
use crate::optim::Grads;
use crate::ranks::{Ranks, Share};
use crate::run_folder::RunFolder;
use burn::module::Module;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tessera_backend::{Rng, autocast, streams};
use tessera_weights::with_buffers;

/// What a model is trained on and for. All that is random derives from the [`Rng`] given, never from elsewhere.
pub trait Objective<M: Module>: Sync {
    /// A batch as it leaves the host; prepared on another thread while the step before it runs.
    type Batch: Send;

    /// How many examples there are.
    fn examples(&self) -> usize;

    /// The batch of these examples.
    ///
    /// # Errors
    /// Whatever reading the examples may give; it ends the run.
    fn batch(&self, indices: &[usize], rng: Rng) -> Result<Self::Batch, BoxError>;

    /// The losses of a model on a share of a batch. What is random is drawn as for the whole of it, so that any number
    /// of ranks trains as one does.
    ///
    /// # Errors
    /// Whatever the model may give; it ends the run.
    fn losses(
        &self,
        model: &M,
        batch: Self::Batch,
        share: Share,
        rng: Rng,
    ) -> Result<Losses, BoxError>;
}

/// One step, as told to an [`Observer`].
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// The epoch of this step, from 1.
    pub epoch: u64,
    /// What was minimized, before the step.
    pub loss: f32,
    /// The other losses, by name.
    pub parts: Vec<(&'static str, f32)>,
    /// The learning rate of the step.
    pub lr: f64,
    /// The L2 norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Examples per second over the last few steps.
    pub images_per_second: f64,
    /// Time until the last step at this rate.
    pub eta: Duration,
}

/// Whoever watches a run: progress bars, sample grids, Ctrl-C.
pub trait Observer<M> {
    /// After every step. `Break` saves a checkpoint and ends the run.
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        let _ = report;
        ControlFlow::Continue(())
    }

    /// Whether a step in progress should be given up, and the run end where it was before it. Asked between the parts
    /// of a batch.
    fn stops(&self) -> bool {
        false
    }

    /// Whether a checkpoint should be saved after this step, and the run go on. Asked after every step.
    fn saves(&mut self) -> bool {
        false
    }

    /// Whether [`on_epoch`](Self::on_epoch) is of use at the end of that epoch, counted from 1.
    fn watches(&self, epoch: u64) -> bool {
        let _ = epoch;
        true
    }

    /// After every epoch that is watched and at the end of the run, with the model and its average outside autodiff.
    /// The checkpoint of that step is on disk, so nothing is lost here. `Break` ends the run.
    ///
    /// # Errors
    /// Whatever went wrong; it ends the run.
    fn on_epoch(&mut self, epoch: u64, model: &M, ema: &M) -> Result<ControlFlow<()>, BoxError> {
        let _ = (epoch, model, ema);
        Ok(ControlFlow::Continue(()))
    }

    /// When a run goes on at the end of a watched epoch: it may have been killed or stopped before
    /// [`on_epoch`](Self::on_epoch) was done.
    ///
    /// # Errors
    /// Whatever went wrong; it ends the run.
    fn on_resume(&mut self, epoch: u64, model: &M, ema: &M) -> Result<ControlFlow<()>, BoxError> {
        let _ = (epoch, model, ema);
        Ok(ControlFlow::Continue(()))
    }
}

/// Watches nothing.
impl<M> Observer<M> for () {}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// The observer asked to stop; the run can be resumed.
    Stopped,
}

/// What a run leaves, outside autodiff. The same is in the run's last checkpoint.
#[derive(Debug, Clone)]
pub struct Trained<M> {
    /// The model.
    pub model: M,
    /// Its average, for sampling.
    pub ema: M,
    /// Steps done.
    pub step: u64,
    /// How the run ended.
    pub outcome: Outcome,
}

/// Trains `model`, which is on an autodiff device, from where `run` stands: from its latest checkpoint if it has
/// one, from the weights given if not. Checkpoint 0 is written before the first step, so that every run that began
/// can be resumed.
///
/// A resumed run gives the weights of an uninterrupted one bit for bit on the same device with the same number of
/// threads.
///
/// # Errors
/// A configuration without meaning, a file that cannot be written, a loss or gradient that is not finite, or what
/// `objective` and `observer` give. The last checkpoint stays.
pub fn train<M: Module, O: Objective<M>>(
    model: M,
    objective: &O,
    config: &TrainConfig,
    run: RunFolder,
    observer: &mut dyn Observer<M>,
) -> Result<Trained<M>> {
    train_on(&Ranks::alone(), model, objective, config, run, observer)
}

/// [`train`] on many ranks, which all call it with the same arguments. The first alone writes files, and is asked by
/// [`Observer::on_epoch`]; all stop when one is told to.
///
/// # Errors
/// As `train`; and when a rank failed, or the shares of a batch are not equal.
pub fn train_on<M: Module, O: Objective<M>>(
    ranks: &Ranks,
    model: M,
    objective: &O,
    config: &TrainConfig,
    run: RunFolder,
    observer: &mut dyn Observer<M>,
) -> Result<Trained<M>> {
    let plan = config.plan(objective.examples())?;
    config.require_shares(ranks.share().of)?;
    ranks.meet()?; // What the first rank removed or wrote in the folder is seen by all.
    let state = match run.latest()? {
        Some((step, file)) => {
            plan.require_beyond(step, config)?;
            let state = TrainState::load(model, config, &run, step, &file)?;
            if ranks.first() {
                // A kill may have come after a checkpoint and before the removal of those that it follows.
                run.prune(config.keep_last)?;
            }
            state
        }
        None => {
            let state = TrainState::new(model, config);
            ranks.meet()?; // All have seen that there is none.
            if ranks.first() {
                state.save(&run, config, &plan)?;
            }
            state
        }
    };
    let (sender, batches) = sync_channel(1);
    let first = state.step;
    std::thread::scope(|scope| {
        scope.spawn(move || prepare(objective, config, &plan, first, &sender));
        let clock = Clock::default();
        let mut training = Training {
            ranks,
            objective,
            config,
            plan,
            run,
            batches,
            clock,
        };
        training.steps(state, observer)
    })
}

/// Sends every batch from step `first` on, until the last one or until nobody wants more.
fn prepare<M: Module, O: Objective<M>>(
    objective: &O,
    config: &TrainConfig,
    plan: &StepPlan,
    first: u64,
    sender: &SyncSender<Result<O::Batch, BoxError>>,
) {
    let mut epoch_order = (u64::MAX, Vec::new());
    let parts = config.grad_accum as u64;
    for step in first..plan.total_steps {
        let epoch = step / plan.steps_per_epoch;
        if epoch_order.0 != epoch {
            let mut rng = streams::EPOCH_ORDER.of(config.seed, epoch);
            epoch_order = (epoch, rng.permutation(objective.examples()));
        }
        let start = (step % plan.steps_per_epoch) as usize * config.batch_size;
        let indices = &epoch_order.1[start..start + config.batch_size];
        let indices = indices.chunks(config.batch_size / config.grad_accum);
        for (number, indices) in (step * parts..).zip(indices) {
            let batch = objective.batch(indices, streams::BATCH.of(config.seed, number));
            if sender.send(batch).is_err() {
                return;
            }
        }
    }
}

/// Whether the end of an epoch is told of as it comes, or because a run goes on there.
#[derive(Clone, Copy)]
enum Told {
    First,
    Again,
}

struct Training<'a, O, B> {
    ranks: &'a Ranks,
    objective: &'a O,
    config: &'a TrainConfig,
    plan: StepPlan,
    run: RunFolder,
    batches: Receiver<Result<B, BoxError>>,
    clock: Clock,
}

impl<O, B> Training<'_, O, B> {
    fn steps<M>(
        &mut self,
        mut state: TrainState<M>,
        observer: &mut dyn Observer<M>,
    ) -> Result<Trained<M>>
    where
        M: Module,
        O: Objective<M, Batch = B>,
    {
        let (config, plan) = (self.config, self.plan);
        let mut outcome = Outcome::Finished;
        if state.step > 0 && plan.epoch_ends(state.step) {
            let stopped = self.told(plan.epoch(state.step), &state, observer, Told::Again)?;
            if stopped && state.step < plan.total_steps {
                outcome = Outcome::Stopped;
            }
        }
        while state.step < plan.total_steps && outcome == Outcome::Finished {
            let report;
            (state, report) = self.step(state, observer)?;
            let step = state.step;
            let Some(report) = report else {
                if self.ranks.first() && !self.run.checkpoint_file(step).exists() {
                    state.save(&self.run, config, &plan)?;
                }
                outcome = Outcome::Stopped;
                break;
            };
            let last = step == plan.total_steps;
            if self.ranks.first() && (last || step.is_multiple_of(config.log_every)) {
                self.run.log(&MetricsLine::of(&report))?;
            }
            let stops = observer.on_step(&report).is_break();
            let [mut stopped, saves] = self.ranks.any([stops, observer.saves()])?;
            let epoch_ends = plan.epoch_ends(step);
            let due = match config.save_every {
                0 => epoch_ends,
                every => step.is_multiple_of(every),
            };
            let watched = epoch_ends && observer.watches(report.epoch);
            if self.ranks.first() && (due || last || stopped || saves || watched) {
                state.save(&self.run, config, &plan)?;
            }
            if epoch_ends && !stopped {
                stopped = self.told(report.epoch, &state, observer, Told::First)?;
            }
            if stopped && !last {
                outcome = Outcome::Stopped;
            }
        }
        Ok(Trained {
            model: state.model.valid(),
            ema: state.ema.module,
            step: state.step,
            outcome,
        })
    }

    /// Tells of the end of an epoch whose checkpoint is on disk: the first rank, which alone draws. Whether the run is
    /// to end.
    fn told<M: Module>(
        &self,
        epoch: u64,
        state: &TrainState<M>,
        observer: &mut dyn Observer<M>,
        told: Told,
    ) -> Result<bool> {
        let mut stops = false;
        if self.ranks.first() && observer.watches(epoch) {
            let (model, ema) = (state.model.valid(), &state.ema.module);
            let flow = match told {
                Told::First => observer.on_epoch(epoch, &model, ema),
                Told::Again => observer.on_resume(epoch, &model, ema),
            };
            let flow = flow.map_err(|source| Error::Observer { epoch, source })?;
            stops = flow.is_break();
        }
        let [stops] = self.ranks.any([stops])?;
        Ok(stops)
    }

    /// One optimizer step: gradients of the whole batch, then AdamW, then the average. No report, and the state as it
    /// was, if the observer stops it.
    fn step<M>(
        &mut self,
        state: TrainState<M>,
        observer: &dyn Observer<M>,
    ) -> Result<(TrainState<M>, Option<StepReport>)>
    where
        M: Module,
        O: Objective<M, Batch = B>,
    {
        let started = Instant::now();
        let Some((losses, grads)) = self.gradients(&state.model, state.step, observer)? else {
            return Ok((state, None));
        };
        let TrainState {
            model,
            ema,
            mut optimizer,
            step,
        } = state;
        let lr = self.config.schedule(&self.plan).at(step);
        let (model, done) = optimizer.step(model, grads, lr)?;
        let ema = ema.update(&model, step);
        let model = with_buffers(model, &losses.buffers);
        let ema = Ema {
            module: with_buffers(ema.module, &losses.buffers),
            ..ema
        };

        let seconds = self.clock.tick(started.elapsed());
        let remaining = (self.plan.total_steps - step - 1) as f64;
        let report = StepReport {
            step: step + 1,
            total_steps: self.plan.total_steps,
            epoch: step / self.plan.steps_per_epoch + 1,
            loss: losses.total,
            parts: losses.parts,
            lr,
            grad_norm: done.grad_norm,
            images_per_second: self.config.batch_size as f64 / seconds,
            eta: Duration::try_from_secs_f64(remaining * seconds).unwrap_or(Duration::MAX),
        };
        let state = TrainState {
            model,
            ema,
            optimizer,
            step: step + 1,
        };
        Ok((state, Some(report)))
    }

    /// Mean losses and gradients of a batch, part by part; nothing if the observer stops between two parts.
    fn gradients<M>(
        &mut self,
        model: &M,
        step: u64,
        observer: &dyn Observer<M>,
    ) -> Result<Option<(LossValues, Grads)>>
    where
        M: Module,
        O: Objective<M, Batch = B>,
    {
        let failed = |source| Error::Objective {
            step: step + 1,
            source,
        };
        let parts = self.config.grad_accum as u64;
        let mut grads = Grads::default();
        let mut values = LossValues::default();
        for number in step * parts..(step + 1) * parts {
            if number > step * parts && self.ranks.any([observer.stops()])? == [true] {
                return Ok(None);
            }
            let batch = self.batches.recv();
            let batch = batch.expect("every step has its batch, unless preparing one panicked");
            let rng = streams::LOSS.of(self.config.seed, number);
            let share = self.ranks.share();
            let batch = batch.map_err(failed)?;
            let losses = autocast(self.config.precision, || {
                self.objective.losses(model, batch, share, rng)
            });
            let losses = losses.map_err(failed)?;
            values = values.plus(LossValues::read(&losses, step + 1)?);
            let mut gradients = (losses.total / parts as f64).backward();
            grads = grads.plus(Grads::of(model, &mut gradients));
        }
        let mean = self
            .ranks
            .mean(model, values.divided(parts as f32), grads)?;
        Ok(Some(mean))
    }
}

/// The rate of a run, smoothed over about ten steps. Sample grids and checkpoints do not count.
#[derive(Default)]
struct Clock {
    seconds_per_step: Option<f64>,
}

impl Clock {
    /// Seconds per step, after one that took `last`.
    fn tick(&mut self, last: Duration) -> f64 {
        let last = last.as_secs_f64().max(1e-9);
        let smooth = self
            .seconds_per_step
            .map_or(last, |before| 0.9 * before + 0.1 * last);
        *self.seconds_per_step.insert(smooth)
    }
}

/// A line of `metrics.jsonl`.
#[derive(Serialize)]
struct MetricsLine<'a> {
    step: u64,
    epoch: u64,
    split: &'static str,
    loss: f32,
    lr: f64,
    grad_norm: f64,
    img_s: f32,
    #[serde(flatten)]
    parts: BTreeMap<&'a str, f32>,
}

impl<'a> MetricsLine<'a> {
    fn of(report: &StepReport) -> MetricsLine<'_> {
        MetricsLine {
            step: report.step,
            epoch: report.epoch,
            split: "train",
            loss: report.loss,
            lr: report.lr,
            grad_norm: report.grad_norm,
            img_s: report.images_per_second as f32,
            parts: report.parts.iter().copied().collect(),
        }
    }
}
