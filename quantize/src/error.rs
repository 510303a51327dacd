//! Errors of quantization, and of measuring, saving and loading a calibration.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The number of bits is out of range.
    #[error("bits per dimension: expected 1 to 16, found {found}")]
    Bits {
        /// The bits asked for.
        found: u8,
    },
    /// The widest dimension has other bits than the config's `bits`.
    #[error("`channel_bits`: expected the widest to have the {bits} of `bits`, found {widest}")]
    ChannelBits {
        /// The bits of the config.
        bits: u8,
        /// Those of the widest dimension.
        widest: u8,
    },
    /// No widths have the mean asked for.
    #[error("mean bits per dimension: expected {least} to {most}, found {found}")]
    MeanBits {
        /// The smallest mean.
        least: u8,
        /// The largest.
        most: u8,
        /// The mean asked for.
        found: f32,
    },
    /// A calibration lacks what widths are chosen by, as those of older versions do.
    #[error(
        "the calibration lacks {what}: it was measured by an older version, or on latents alone"
    )]
    NotMeasured {
        /// What is missing.
        what: &'static str,
    },
    /// A setting of a [`QuantizerConfig`](crate::QuantizerConfig) is out of range.
    #[error("quantizer setting `{field}`: expected {expected}, found {found}")]
    Setting {
        /// The setting, with its channel where it has one: `range`, `scale[3]`.
        field: String,
        /// The valid range, in words.
        expected: &'static str,
        /// The number found.
        found: f32,
    },
    /// The number of reconstruction values is not a power of two from 2 to 65536.
    #[error(
        "reconstruction values: expected a power of two from 2 to 65536 of them, found {found}"
    )]
    TableLength {
        /// Number of values.
        found: usize,
    },
    /// The reconstruction values are not strictly increasing.
    #[error(
        "reconstruction_values[{index}]: expected a finite value above the one before it ({previous}), found {found}"
    )]
    TableOrder {
        /// The index of the first value out of order.
        index: usize,
        /// The value before it (-inf before the first).
        previous: f32,
        /// The value there.
        found: f32,
    },
    /// The table and the config differ in bits.
    #[error("reconstruction values: expected 2^{bits} levels, found {found}")]
    TableBits {
        /// The bits of the configuration.
        bits: u8,
        /// The levels of the table.
        found: usize,
    },
    /// The shapes of two arrays, or of an array and a setting, do not match.
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
        "latent at batch {batch}, channel {channel}, row {row}, column {column}: expected a finite number, \
         found {found}"
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
    /// An index is not a level of the table.
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
        /// Number of levels.
        levels: usize,
    },
    /// A calibration was finished without any latents.
    #[error("calibration: expected at least one latent, found none")]
    Empty,
    /// A channel is constant, or nearly so, and no scale brings it to unit variance.
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
        /// The system's error.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file is not a JSON object.
    #[error("{}: expected a JSON object", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// A field of a file is missing or has the wrong type.
    #[error("{}: field `{field}` is missing or malformed", path.display())]
    FieldType {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// A field of a file has a value that contradicts the rest.
    #[error("{}: field `{field}`: expected {expected}, found {found}", path.display())]
    FieldValue {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// The valid values.
        expected: String,
        /// The value found.
        found: String,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
