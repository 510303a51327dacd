//! What can go wrong with a chart.

use std::path::PathBuf;

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A fault in drawing or writing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that no chart is written under.
    #[error("{}: charts are written as SVG; expected a name that ends in .svg", path.display())]
    Ending {
        /// The name.
        path: PathBuf,
    },
    /// A value that no axis can show.
    #[error("a chart of a value that is not finite ({value})")]
    NotFinite {
        /// The value.
        value: f64,
    },
    /// A chart whose parts have no room.
    #[error("cannot draw {}: {cause}", path.display())]
    Draw {
        /// The file that was to be.
        path: PathBuf,
        /// What plotters says.
        cause: String,
    },
    /// The file could not be written.
    #[error(transparent)]
    File(#[from] tessera_files::Error),
    /// A sheet that is no picture.
    #[error(transparent)]
    Pictures(#[from] tessera_pictures::Error),
}
