//! How a model is trained, apart from what the model is and what its loss is.

use crate::error::{Error, Result};
use crate::optim::AdamWConfig;
use crate::schedule::{Decay, Schedule};
use serde::{Deserialize, Serialize};
use tessera_backend::ComputePrecision;

/// The settings of a run; the defaults are TokenBridge's (arXiv 2503.16430, table 4), with a batch and a length
/// for one small machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Examples per optimizer step.
    pub batch_size: usize,
    /// Parts that a batch is split into to save memory; divides `batch_size`.
    pub grad_accum: usize,
    /// Passes over the data, unless `max_steps` is given.
    pub epochs: u64,
    /// Steps of the whole run, which then decide its end alone.
    pub max_steps: Option<u64>,
    /// The highest learning rate, for this batch size (see [`scaled_lr`](crate::scaled_lr)).
    pub lr: f64,
    /// Where the cosine ends.
    pub min_lr: f64,
    /// Epochs of linear growth of the learning rate; may be a fraction.
    pub warmup_epochs: f64,
    /// What follows the warm-up.
    pub decay: Decay,
    /// Decoupled weight decay of matrices, embeddings and tokens (not of biases and norms).
    pub weight_decay: f64,
    /// Decay of AdamW's first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The largest norm that all gradients together may have.
    pub grad_clip: Option<f64>,
    /// What of the averaged weights a late step keeps.
    pub ema_decay: f64,
    /// Steps between checkpoints; 0 saves at the end of every epoch.
    pub save_every: u64,
    /// Checkpoints kept.
    pub keep_last: usize,
    /// Steps between lines of `metrics.jsonl`.
    pub log_every: u64,
    /// Decides the order of the data and everything random in the loss.
    pub seed: u64,
    /// What linear maps are multiplied in; weights, their averages and all else are f32 (see
    /// [`autocast`](tessera_backend::autocast)).
    // Left out where it is what all runs had before there was a choice: so they go on.
    #[serde(skip_serializing_if = "is_f32")]
    pub precision: ComputePrecision,
}

fn is_f32(precision: &ComputePrecision) -> bool {
    *precision == ComputePrecision::F32
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch_size: 64,
            grad_accum: 1,
            epochs: 100,
            max_steps: None,
            lr: 1e-4,
            min_lr: 0.0,
            warmup_epochs: 1.0,
            decay: Decay::Cosine,
            weight_decay: 0.02,
            betas: [0.9, 0.95],
            eps: 1e-8,
            grad_clip: Some(1.0),
            ema_decay: 0.9999,
            save_every: 0,
            keep_last: 2,
            log_every: 10,
            seed: 0,
            precision: ComputePrecision::F32,
        }
    }
}

/// The length of a run, in steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepPlan {
    /// Whole batches in one pass over the data; the rest of a pass is left out.
    pub steps_per_epoch: u64,
    /// Steps of linear growth of the learning rate.
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
}

impl StepPlan {
    /// The epoch, from 1, that a step is in.
    pub(crate) fn epoch(&self, step: u64) -> u64 {
        step.div_ceil(self.steps_per_epoch)
    }

    /// Whether an epoch, or the run, ends after so many steps.
    pub(crate) fn epoch_ends(&self, steps: u64) -> bool {
        steps.is_multiple_of(self.steps_per_epoch) || steps == self.total_steps
    }

    /// Refuses a run that would end before the steps it has done.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub(crate) fn require_beyond(&self, done: u64, config: &TrainConfig) -> Result<()> {
        let (field, found) = match config.max_steps {
            Some(steps) => ("max_steps", steps),
            None => ("epochs", config.epochs),
        };
        require(done <= self.total_steps, field, found, || {
            format!(
                "the run has done {done} steps, which is more than the {} of its end",
                self.total_steps
            )
        })
    }
}

impl TrainConfig {
    /// The length of a run over so many examples.
    ///
    /// # Errors
    /// [`Error::Config`] when a setting has no meaning, or one batch is more than all examples.
    pub fn plan(&self, examples: usize) -> Result<StepPlan> {
        self.validate()?;
        let steps_per_epoch = (examples / self.batch_size) as u64;
        require(steps_per_epoch > 0, "batch_size", self.batch_size, || {
            format!("must be at most the number of examples, {examples}")
        })?;
        let epochs = self.epochs.saturating_mul(steps_per_epoch);
        Ok(StepPlan {
            steps_per_epoch,
            warmup_steps: (self.warmup_epochs * steps_per_epoch as f64).round() as u64,
            total_steps: self.max_steps.unwrap_or(epochs),
        })
    }

    /// Refuses ranks whose shares of a batch, or of its parts, would not be equal.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub(crate) fn require_shares(&self, ranks: usize) -> Result<()> {
        let part = self.batch_size / self.grad_accum;
        require(
            part.is_multiple_of(ranks),
            "batch_size",
            self.batch_size,
            || {
                format!(
                    "must be a multiple of {}, the parts of a batch times the ranks that share it",
                    self.grad_accum * ranks
                )
            },
        )
    }

    /// The learning rate over a run of that length.
    pub fn schedule(&self, plan: &StepPlan) -> Schedule {
        Schedule {
            peak: self.lr,
            min: self.min_lr,
            warmup_steps: plan.warmup_steps,
            total_steps: plan.total_steps,
            decay: self.decay,
        }
    }

    /// The constants of the optimizer.
    pub fn adamw(&self) -> AdamWConfig {
        AdamWConfig {
            betas: self.betas,
            eps: self.eps,
            weight_decay: self.weight_decay,
            grad_clip: self.grad_clip,
        }
    }

    /// Refuses settings that have no meaning.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn validate(&self) -> Result<()> {
        let whole =
            |ok, field, found: usize| require(ok, field, found, || "must be 1 or more".into());
        whole(self.batch_size > 0, "batch_size", self.batch_size)?;
        whole(self.epochs > 0, "epochs", self.epochs as usize)?;
        whole(self.max_steps != Some(0), "max_steps", 0)?;
        whole(self.keep_last > 0, "keep_last", self.keep_last)?;
        whole(self.log_every > 0, "log_every", self.log_every as usize)?;
        require(
            self.grad_accum > 0 && self.batch_size.is_multiple_of(self.grad_accum),
            "grad_accum",
            self.grad_accum,
            || format!("must divide batch_size, {}", self.batch_size),
        )?;
        let not_negative = [
            ("lr", self.lr),
            ("min_lr", self.min_lr),
            ("warmup_epochs", self.warmup_epochs),
            ("weight_decay", self.weight_decay),
            ("eps", self.eps),
        ];
        for (field, value) in not_negative {
            let ok = value.is_finite() && value >= 0.0;
            require(ok, field, value, || "must be 0 or more".into())?;
        }
        let shares = [
            ("betas[0]", self.betas[0]),
            ("betas[1]", self.betas[1]),
            ("ema_decay", self.ema_decay),
        ];
        for (field, value) in shares {
            let ok = (0.0..1.0).contains(&value);
            require(ok, field, value, || {
                "must be at least 0 and less than 1".into()
            })?;
        }
        let clip = self.grad_clip.unwrap_or(1.0);
        require(clip > 0.0, "grad_clip", clip, || {
            "must be more than 0".into()
        })
    }
}

fn require(
    ok: bool,
    field: &'static str,
    found: impl ToString,
    expected: impl FnOnce() -> String,
) -> Result<()> {
    match ok {
        true => Ok(()),
        false => Err(Error::Config {
            field,
            found: found.to_string(),
            expected: expected(),
        }),
    }
}
