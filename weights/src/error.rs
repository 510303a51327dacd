//! What can go wrong between a file of weights and a model.

use crate::mismatch::Mismatch;
use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weights file is missing, damaged, or not a weights file.
    #[error(transparent)]
    Checkpoint(#[from] tessera_checkpoint::Error),
    /// A config describes a far larger model than its file of weights holds.
    #[error(
        "{}: describes a model of {claimed} parameters; {} holds {held}",
        config.display(),
        file.display()
    )]
    Claimed {
        /// The config.
        config: PathBuf,
        /// How many numbers the model has by its config; `u64::MAX` if that is not countable.
        claimed: u64,
        /// The file of the weights.
        file: PathBuf,
        /// How many numbers it holds.
        held: u64,
    },
    /// Weights and model do not have the same names and shapes.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
