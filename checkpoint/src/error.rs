//! What can go wrong with a weights file. Every message names the file and the fault.

use std::path::{Path, PathBuf};

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
    /// A part of the file is not what the format wants there.
    #[error("{}: {what} is {found}, expected {expected}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// The part that is wrong.
        what: String,
        /// What a good file has there.
        expected: String,
        /// What this one has.
        found: String,
    },
    /// A file that should hold JSON does not.
    #[error("{}: not the JSON expected there", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What the JSON parser said.
        source: serde_json::Error,
    },
    /// The file is of no format that is read here.
    #[error("{}: not a weights file: expected {expected}, found {found}", file.display())]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The formats that are read.
        expected: &'static str,
        /// What the file looks like.
        found: String,
    },
    /// A pickle is an object of a class that would have to be run, or asks for one that means harm.
    #[error(
        "{}: refused: its pickle asks for the class `{class}`, which is not among those that weights are made of",
        file.display()
    )]
    Refused {
        /// The file.
        file: PathBuf,
        /// `module.name`
        class: String,
    },
    /// Bytes are not those that were written.
    #[error("{}: {what} is damaged: its checksum is {found:08x}, expected {expected:08x}", file.display())]
    Checksum {
        /// The file.
        file: PathBuf,
        /// The part that is damaged.
        what: String,
        /// The checksum that the file states.
        expected: u32,
        /// The checksum of what it holds.
        found: u32,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<tessera_files::Error> for Error {
    fn from(error: tessera_files::Error) -> Self {
        Self::Io {
            what: error.what,
            file: error.path,
            source: error.source,
        }
    }
}

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
        what: impl Into<String>,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Format {
            file: file.into(),
            what: what.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}
