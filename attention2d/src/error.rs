//! What can go wrong between ranks.

/// Errors of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another rank ended, and with it the work of all.
    #[error("rank {rank} failed: {cause}")]
    Rank {
        /// The rank in the whole job.
        rank: usize,
        /// What it said, or what its panic said.
        cause: String,
    },
    /// Ranks came to one collective with different arguments.
    #[error("{operation}: rank {rank} has {found}, rank {of} has {expected}")]
    Disagreement {
        /// The collective, or what was compared.
        operation: String,
        /// The rank in the whole job that differs from the first of its group.
        rank: usize,
        /// What it has.
        found: String,
        /// The first rank of the group.
        of: usize,
        /// What that one has.
        expected: String,
    },
    /// A grid, a method or a setting that these ranks or this attention cannot have.
    #[error("{what} must be {expected}, found {found}")]
    Config {
        /// The setting.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// MPI was asked for and is not in this program, or could not be started.
    #[error("MPI: {0}")]
    Mpi(String),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn config(
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Config {
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}
