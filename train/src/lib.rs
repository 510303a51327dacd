//! What training shares.
#![forbid(unsafe_code)]

mod error;
mod files;
mod safetensors_file;
pub mod weights;

pub use error::{BoxError, Error, Result};
pub use files::write_atomically;
pub use weights::{Mismatch, Weight, WeightDtype, Weights};
