//! What training shares: named weights, the optimizer, averages, schedules, run folders, the loop and data sets.
//! The step of each model lives with the model, as an [`Objective`].
//!
//! The recipe is TokenBridge's (arXiv 2503.16430, table 4): AdamW without decay of biases and norms, a linear
//! warm-up and half a cosine, a clip of the global gradient norm, and sampling from averaged weights.
//!
//! A run can be killed at any instant and resumed: it ends with the bytes of one that was not.
//!
//! ```text
//! RUN/config.json                              what the run was started with; resuming demands the same
//! RUN/metrics.jsonl                            {"step","epoch","split","loss","lr","grad_norm","img_s",…}
//! RUN/checkpoint/step-00001234.safetensors     model., ema., exp_avg. and exp_avg_sq. tensors
//! ```
//!
//! Weights go to files under their field names, in PyTorch's layout, and come back whole or not at all:
//!
//! ```
//! use burn::{nn::LinearConfig, tensor::Device};
//! use tessera_train::{WeightDtype, Weights};
//!
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("model.safetensors");
//! let model = LinearConfig::new(2, 3).init(&Device::flex());
//! Weights::of(&model).write(&file, [("epoch".into(), "7".into())].into(), WeightDtype::F32)?;
//!
//! let weights = Weights::read(&file)?;
//! let loaded = weights.apply(LinearConfig::new(2, 3).init(&Device::flex().autodiff()))?;
//! assert_eq!(Weights::of(&loaded).get("weight").unwrap().shape(), [3, 2]);
//! assert!(weights.apply(LinearConfig::new(2, 4).init(&Device::flex())).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`judge`] measures generated pictures by a classifier of the same data.
//!
//! Out of scope: decoding pictures, drawing progress, reading arguments; they belong to the program above.
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
pub mod data;
mod ema;
mod error;
mod json;
pub mod judge;
mod losses;
mod optim;
mod ranks;
mod run;
mod run_folder;
mod schedule;
pub mod weights;

pub use config::{Plan, TrainConfig};
pub use ema::Ema;
pub use error::{BoxError, Error, Result};
pub use json::write_json;
pub use optim::{AdamW, AdamWConfig, Grads, StepInfo};
pub use ranks::{Ranks, Share};
pub use run::{
    FIRST_TRAINING_STREAM, Losses, Objective, Observer, Outcome, StepReport, Trained, train,
    train_on,
};
pub use run_folder::{RunFolder, Start};
pub use schedule::{Decay, Schedule, scaled_lr};
pub use tessera_checkpoint::{Checkpoint, Which, write_atomically};
pub use weights::{Loaded, Mismatch, Weight, WeightDtype, Weights};
