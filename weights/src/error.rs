//! What can go wrong between a file of weights and a model.

use crate::mismatch::Mismatch;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weights file is missing, damaged, or not a weights file.
    #[error(transparent)]
    Checkpoint(#[from] tessera_checkpoint::Error),
    /// Weights and model do not have the same names and shapes.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
