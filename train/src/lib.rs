//! The training loop and nothing else: run, optimizer, averaged weights, schedules, ranks, run folder, cached latents.
//! The loss of each model lives with the model, as an [`Objective`].
//!
//! The recipe is TokenBridge's (arXiv 2503.16430, table 4): AdamW without decay of biases and norms, a linear
//! warm-up and half a cosine, a clip of the global gradient norm, and sampling from averaged weights.
//!
//! A run can be killed at any instant and resumed: it ends with the bytes of one that was not.
//!
//! ```text
//! RUN/config.json                              what the run was started with, and a mark of it
//! RUN/metrics.jsonl                            {"step","epoch","split","loss","lr","grad_norm","img_s",…}
//! RUN/validation.jsonl                         {"epoch","split",…}: losses on what is held out
//! RUN/checkpoint/step-00001234.safetensors     model., ema., exp_avg. and exp_avg_sq. tensors
//! ```
//!
//! API boundary: this crate knows modules by their parameters and data by indices. It knows no model, decodes no
//! picture, draws no progress and reads no arguments.
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
mod ema;
mod error;
mod latents;
mod lock;
mod losses;
mod optim;
mod ranks;
mod run;
mod run_config;
mod run_folder;
mod schedule;
mod validation;

pub use config::{StepPlan, TrainConfig};
pub use ema::Ema;
pub use error::{BoxError, Error, Result};
pub use latents::{LatentCache, LatentKind, LatentPrecision};
pub use lock::RunLock;
pub use optim::{AdamW, AdamWConfig, Grads, OptimizerStep};
pub use ranks::{Ranks, Share};
pub use run::{Losses, Objective, Observer, Outcome, StepReport, Trained, train, train_on};
pub use run_config::{Changes, Difference};
pub use run_folder::{LATENTS_FILE, RunEntry, RunFolder, Start, newest_whole};
pub use schedule::{Decay, Schedule, scaled_lr};
pub use validation::ValidationLog;
