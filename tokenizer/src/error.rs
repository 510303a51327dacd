//! What can go wrong, said with the file, the fault, what was expected and what was found.

use std::path::{Path, PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in reading, writing, comparing or tokenizing pictures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such file.
    #[error("{}: no such file", path.display())]
    Missing {
        /// The file asked for.
        path: PathBuf,
    },
    /// A folder was given where a picture belongs.
    #[error("{}: is a folder, expected a picture file", path.display())]
    IsFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The file is already there and overwriting was not asked for.
    #[error("{}: already exists", path.display())]
    Exists {
        /// The file in the way.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("{}: cannot read", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("{}: cannot write", path.display())]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The content is no picture of a kind that is read here, whatever the name's extension says.
    #[error("{}: expected {expected}, found {found}", path.display())]
    NotAPicture {
        /// The file.
        path: PathBuf,
        /// The formats that would have done.
        expected: &'static str,
        /// What its first bytes are.
        found: String,
    },
    /// The file ends before the picture does.
    #[error("{}: truncated {format}: expected {expected}, found {found}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The format it is in.
        format: &'static str,
        /// What the format still owes.
        expected: String,
        /// Where the file ends.
        found: String,
    },
    /// The header announces more pixels than this crate will allocate.
    #[error("{}: announces {height}x{width} px (height x width), expected at most {limit_px} px in all", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Announced height in pixels.
        height: usize,
        /// Announced width in pixels.
        width: usize,
        /// The most pixels that are read.
        limit_px: usize,
    },
    /// The file is of a known format but its content is broken.
    #[error("{}: broken {format}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// The format it is in.
        format: &'static str,
        /// The decoder's reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The text chunks of a PNG are broken.
    #[error("{}: broken PNG", path.display())]
    DecodeText {
        /// The file.
        path: PathBuf,
        /// The decoder's reason.
        #[source]
        source: png::DecodingError,
    },
    /// The PNG encoder refused.
    #[error("{}: cannot encode as PNG", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// The encoder's reason.
        #[source]
        source: png::EncodingError,
    },
    /// A piece of metadata that PNG has no place for.
    #[error("metadata {keyword:?}: expected {expected}")]
    Metadata {
        /// Its keyword.
        keyword: String,
        /// What PNG asks of it.
        expected: &'static str,
    },
    /// A picture has another size or another number of channels than the operation needs.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The argument at fault.
        what: &'static str,
        /// The shape that was needed.
        expected: String,
        /// The shape that was given.
        found: String,
    },
    /// The sizes of a VAE do not describe a network.
    #[error("VAE configuration: {field}: expected {expected}, found {found}")]
    VaeConfig {
        /// The field at fault.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A VAE's configuration file is not the JSON of one.
    #[error("{}: not a VAE configuration", path.display())]
    VaeConfigFile {
        /// The file.
        path: PathBuf,
        /// The JSON parser's reason.
        #[source]
        source: serde_json::Error,
    },
    /// The sizes of a tiny autoencoder do not describe a network.
    #[error("tiny autoencoder configuration: {field}: expected {expected}, found {found}")]
    TinyConfig {
        /// The field at fault.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A tokenizer's configuration file is not the JSON of one.
    #[error("{}: not a tokenizer configuration", path.display())]
    TokenizerConfigFile {
        /// The file.
        path: PathBuf,
        /// The JSON parser's reason.
        #[source]
        source: serde_json::Error,
    },
    /// A tokenizer's configuration is of a kind that is not known here.
    #[error("{}: kind of the tokenizer: expected {expected:?} or none, found {found:?}", path.display())]
    TokenizerKind {
        /// The file.
        path: PathBuf,
        /// The kind that is known.
        expected: &'static str,
        /// The kind it gives.
        found: String,
    },
    /// Weights without a configuration do not tell what network they are of.
    #[error("{}: not the weights of a tokenizer: `{name}` is {found}, expected {expected}", file.display())]
    Infer {
        /// The file of the weights; empty if they were made in memory.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Not even a tile of two by two latents fits.
    #[error(
        "no room for a tile: tensors of at most {bytes} bytes are allowed, {needed} are needed; give more --max-vram, or another --device"
    )]
    NoRoom {
        /// Most bytes that a tensor may have.
        bytes: u64,
        /// What the smallest tile needs.
        needed: u64,
    },
    /// Tiles that a picture cannot be cut into.
    #[error("tiling: {field}: expected {expected}, found {found}")]
    Tiling {
        /// The field at fault.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: usize,
    },
    /// Weights could not be read, written or fitted to a network.
    #[error(transparent)]
    Weights(#[from] tessera_train::Error),
    /// An image whose sides the tokenizer cannot halve as often as it must.
    #[error(
        "image of {height_px}x{width_px} px (height x width): expected sides that are multiples of {multiple_of}"
    )]
    ImageSize {
        /// Its height.
        height_px: usize,
        /// Its width.
        width_px: usize,
        /// What both must be multiples of.
        multiple_of: usize,
    },
    /// A value that is NaN or infinite, where a picture must be finite.
    #[error("{what}: value {value} at [channel, row, column] = {index:?} is not finite")]
    NotFinite {
        /// The argument at fault.
        what: &'static str,
        /// The first such value.
        value: f32,
        /// Where it stands.
        index: [usize; 3],
    },
}

impl Error {
    /// A reading fault of `path`, with the two that users meet most told apart.
    pub(crate) fn reading(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::Missing { path },
            std::io::ErrorKind::IsADirectory => Self::IsFolder { path },
            _ => Self::ReadFile { path, source },
        }
    }
}
