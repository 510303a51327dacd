//! What training shares; the step of each model lives with the model.
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
pub mod data;
mod ema;
mod error;
mod files;
mod optim;
mod run;
mod run_folder;
mod safetensors_file;
mod schedule;
pub mod weights;

pub use config::{Plan, TrainConfig};
pub use ema::Ema;
pub use error::{BoxError, Error, Result};
pub use files::write_atomically;
pub use optim::{AdamW, AdamWConfig, Grads, StepInfo};
pub use run::{
    FIRST_TRAINING_STREAM, Losses, Objective, Observer, Outcome, StepReport, Trained, train,
};
pub use run_folder::{RunFolder, Start};
pub use schedule::{Decay, Schedule, scaled_lr};
pub use weights::{Mismatch, Weight, WeightDtype, Weights};
