//! What the system refused, under the name that the user gave.

use crate::temporary::final_path;
use std::io;
use std::path::{Path, PathBuf};

/// The system refused a file or a folder.
#[derive(Debug)]
pub struct Error {
    /// What was being done, such as `cannot write`.
    pub what: &'static str,
    /// The file or folder that was to be; never a temporary name.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn of(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = final_path(path);
        move |source| Self { what, path, source }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.what, self.path.display())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
