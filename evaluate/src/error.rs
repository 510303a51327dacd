//! What can go wrong in evaluating pictures.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file.
    #[error("{}: cannot read", file.display())]
    Read {
        /// The file.
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
    /// A file that should hold JSON does not.
    #[error("{}: not the configuration of a classifier", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the JSON parser said.
        source: serde_json::Error,
    },
    /// A value of a configuration has no meaning.
    #[error("{field} = {found}: {expected}")]
    Config {
        /// The field of [`ClassifierConfig`](crate::ClassifierConfig).
        field: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// Images are not what the classifier takes.
    #[error("images are {found:?}, expected {expected:?} (channels, height, width)")]
    ImageShape {
        /// Channels, height and width wanted.
        expected: [usize; 3],
        /// Those of the images.
        found: [usize; 3],
    },
    /// A picture's features are NaN or infinite: so is the picture.
    #[error("feature {column} of picture {row} is not finite")]
    NonFiniteFeature {
        /// The picture, from 0.
        row: usize,
        /// The feature, from 0.
        column: usize,
    },
    /// What is compared does not fit together.
    #[error("{what} is {found}, expected {expected}")]
    Mismatch {
        /// The part that is wrong.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Weights and classifier do not fit each other.
    #[error(transparent)]
    Weights(#[from] tessera_weights::Error),
    /// A file could not be written.
    #[error(transparent)]
    Checkpoint(#[from] tessera_checkpoint::Error),
    /// A picture could not be read.
    #[error(transparent)]
    Pictures(#[from] tessera_pictures::Error),
    /// The classifier could not be trained.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Train(#[from] tessera_train::Error),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
