//! The errors of this crate.

/// An error of communication between ranks, or a configuration that they cannot have.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A rank failed, which ends the job on all ranks.
    #[error("rank {rank} failed: {cause}")]
    Rank {
        /// The rank, in the whole job.
        rank: usize,
        /// The text of its error or panic.
        cause: String,
    },
    /// A message has another size than its receiver expects: ranks called different collectives, or one with different
    /// arguments. [`Comm::enable_check`](crate::Comm::enable_check) finds out which.
    #[error(
        "rank {rank} failed: {cause}; turn on the check of collectives to see which one differs"
    )]
    Mismatch {
        /// The receiver, in the whole job.
        rank: usize,
        /// The sizes.
        cause: String,
    },
    /// Ranks called one collective with different arguments.
    #[error("{operation}: rank {rank} has {found}, rank {of} has {expected}")]
    Disagreement {
        /// The collective, or what was compared.
        operation: String,
        /// The first rank that differs, in the whole job.
        rank: usize,
        /// What this rank has.
        found: String,
        /// The rank that it was compared with.
        of: usize,
        /// What that rank has.
        expected: String,
    },
    /// A grid, method or other setting that does not fit the ranks or the attention.
    #[error("{what} must be {expected}, found {found}")]
    Config {
        /// The setting.
        what: &'static str,
        /// The values it can have.
        expected: String,
        /// The value it has.
        found: String,
    },
    /// The caller said to stop.
    #[error("stopped")]
    Stopped,
    /// MPI could not be started, or one of its calls failed.
    #[error("MPI: {0}")]
    Mpi(String),
}

/// The result type of this crate.
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
