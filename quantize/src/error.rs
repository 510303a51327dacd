//! What can go wrong when latents are quantized or a calibration is measured, saved and loaded.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A quantizer was asked for an impossible number of bits.
    #[error("bits per dimension: expected 1 to 16, found {found}")]
    Bits {
        /// What was asked for.
        found: u8,
    },
    /// A number of a [`QuantizerConfig`](crate::QuantizerConfig) is out of its domain.
    #[error("quantizer setting `{field}`: expected {expected}, found {found}")]
    Setting {
        /// The setting, with its channel where it has one: `range`, `scale[3]`.
        field: String,
        /// The domain, in words.
        expected: &'static str,
        /// The number found.
        found: f32,
    },
    /// A table of reconstruction values does not hold 2, 4, … 65536 of them.
    #[error(
        "reconstruction values: expected a power of two from 2 to 65536 of them, found {found}"
    )]
    TableLength {
        /// How many there are.
        found: usize,
    },
    /// A table of reconstruction values does not rise strictly.
    #[error(
        "reconstruction_values[{index}]: expected a finite value above the one before it ({previous}), found {found}"
    )]
    TableOrder {
        /// The first value that breaks the order.
        index: usize,
        /// The value before it (-inf before the first).
        previous: f32,
        /// The value there.
        found: f32,
    },
    /// A table was paired with a configuration of another width.
    #[error("reconstruction values: expected 2^{bits} levels, found {found}")]
    TableBits {
        /// The bits of the configuration.
        bits: u8,
        /// The levels of the table.
        found: usize,
    },
    /// Two arrays, or an array and a setting, do not fit each other.
    #[error("{what}: expected {expected:?}, found {found:?}")]
    Shape {
        /// What was compared.
        what: &'static str,
        /// The size asked for.
        expected: Vec<usize>,
        /// The size found.
        found: Vec<usize>,
    },
    /// A latent is NaN or infinite.
    #[error(
        "latent at batch {batch}, channel {channel}, row {row}, column {column}: expected a finite number, found {found}"
    )]
    NonFinite {
        /// Image within the batch.
        batch: usize,
        /// Channel of the latent.
        channel: usize,
        /// Row of the latent map.
        row: usize,
        /// Column of the latent map.
        column: usize,
        /// The number found.
        found: f32,
    },
    /// An index names no level of the table.
    #[error(
        "index at batch {batch}, token {token}, channel {channel}: expected less than {levels}, found {found}"
    )]
    Index {
        /// Image within the batch.
        batch: usize,
        /// Token of the image (row · width + column).
        token: usize,
        /// Channel of the token.
        channel: usize,
        /// The index found.
        found: u16,
        /// How many levels there are.
        levels: usize,
    },
    /// A calibration was finished before it saw a latent.
    #[error("calibration: expected at least one latent, found none")]
    Empty,
    /// A channel has (next to) no spread, so that no scale brings it to unit variance.
    #[error(
        "channel {channel}: expected latents that vary, found {mean} everywhere (standard deviation {std:e})"
    )]
    ConstantChannel {
        /// The channel.
        channel: usize,
        /// Its mean.
        mean: f64,
        /// Its standard deviation.
        std: f64,
    },
    /// A file could not be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not a JSON object.
    #[error("{}: expected a JSON object", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser met, and where.
        source: serde_json::Error,
    },
    /// A field of a file is missing or has the wrong type.
    #[error("{}: field `{field}` is missing or malformed", path.display())]
    FieldType {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What was expected and found there.
        source: serde_json::Error,
    },
    /// A field of a file has a value that contradicts the rest.
    #[error("{}: field `{field}`: expected {expected}, found {found}", path.display())]
    FieldValue {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What would have been right.
        expected: String,
        /// What is there.
        found: String,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
