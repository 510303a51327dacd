//! What can go wrong around training: files, weights that do not fit, run folders and numbers that explode.

use crate::run_config::Difference;
use std::path::{Path, PathBuf};

/// The error of code that lives above this crate (a picture decoder, a model's loss).
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file.
    #[error("{what} {}", file.display())]
    Io {
        /// What was being done, such as `cannot read`.
        what: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name promises.
    #[error("{}: {what} is {found}, expected {expected}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// The part that is wrong.
        what: &'static str,
        /// What a good file has there.
        expected: String,
        /// What this one has.
        found: String,
    },
    /// A weights file is missing, damaged, or not a weights file.
    #[error(transparent)]
    Checkpoint(#[from] tessera_checkpoint::Error),
    /// Weights and model do not fit each other.
    #[error(transparent)]
    Weights(#[from] tessera_weights::Error),
    /// A file that should hold JSON does not.
    #[error("{}, line {line}, is not the JSON expected there", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the JSON parser said.
        source: serde_json::Error,
    },
    /// Ranks that train together failed, or do not agree.
    #[error(transparent)]
    Ranks(#[from] tessera_attention2d::Error),
    /// The run folder holds something already.
    #[error("{} is not empty: resume the run that is there, or overwrite it", folder.display())]
    FolderNotEmpty {
        /// The run folder.
        folder: PathBuf,
    },
    /// There is nothing to resume.
    #[error("nothing to resume in {}: it has no {missing}", folder.display())]
    NothingToResume {
        /// The run folder.
        folder: PathBuf,
        /// What a resumable run has and this folder lacks.
        missing: &'static str,
    },
    /// The run was started with another configuration.
    #[error("{} differs from the configuration given: {}", file.display(), listed(differences))]
    ConfigChanged {
        /// The `config.json` of the run.
        file: PathBuf,
        /// The values that differ and must not.
        differences: Vec<Difference>,
    },
    /// Another process writes into the run folder.
    #[error("{} is in use: {} trains there", folder.display(), process(*pid))]
    InUse {
        /// The run folder.
        folder: PathBuf,
        /// The process, if it said so.
        pid: Option<u32>,
    },
    /// The checkpoint to go on from is damaged, or of another run.
    #[error("cannot go on from the latest checkpoint")]
    BadCheckpoint {
        /// The checkpoint.
        file: PathBuf,
        /// The newest other that is whole.
        older: Option<PathBuf>,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A value of the training configuration has no meaning.
    #[error("{field} = {found}: {expected}")]
    Config {
        /// The field of [`TrainConfig`](crate::TrainConfig).
        field: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// A loss or a gradient is NaN or infinite.
    #[error("{what} is not finite at step {step}; the last checkpoint is from before it")]
    NonFinite {
        /// The step that produced it, from 1.
        step: u64,
        /// The loss or the gradient, by name.
        what: String,
    },
    /// The model's own step failed.
    #[error("step {step} failed")]
    Objective {
        /// The step, from 1.
        step: u64,
        /// What the model said.
        source: BoxError,
    },
    /// Whoever watches the run failed, for example when writing samples.
    #[error("the end of epoch {epoch} could not be handled")]
    Observer {
        /// The epoch, from 1.
        epoch: u64,
        /// What the observer said.
        source: BoxError,
    },
}

/// At most five differences.
fn listed(differences: &[Difference]) -> String {
    let mut texts: Vec<String> = differences
        .iter()
        .take(5)
        .map(ToString::to_string)
        .collect();
    if let more @ 1.. = differences.len() - texts.len() {
        texts.push(format!("and {more} more"));
    }
    texts.join("; ")
}

fn process(pid: Option<u32>) -> String {
    pid.map_or("another process".into(), |pid| format!("process {pid}"))
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(what: &'static str, file: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            what,
            file: file.into(),
            source,
        }
    }

    pub(crate) fn format(
        file: &Path,
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Format {
            file: file.into(),
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}
