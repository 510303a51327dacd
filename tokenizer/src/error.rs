//! What can go wrong with a tokenizer, said with the file, the fault, what was expected and what was found.

use std::path::{Path, PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in opening or using a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such file.
    #[error("{}: no such file", path.display())]
    Missing {
        /// The file asked for.
        path: PathBuf,
    },
    /// A file is one half of a tiny autoencoder, and the other is not beside it.
    #[error(
        "{}: is the {found} of a tiny autoencoder alone; its {missing} is missing, expected as {}",
        path.display(),
        other.display()
    )]
    HalfOfTiny {
        /// The file.
        path: PathBuf,
        /// The half that it is.
        found: &'static str,
        /// The other one.
        missing: &'static str,
        /// Where that is expected.
        other: PathBuf,
    },
    /// A file is one half of a KL-VAE.
    #[error(
        "{}: is the {found} of a KL-VAE alone, expected one with its {missing}",
        path.display()
    )]
    HalfOfKl {
        /// The file.
        path: PathBuf,
        /// The half that it is.
        found: &'static str,
        /// The other one.
        missing: &'static str,
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
    /// Pixels of a number of channels that no picture has.
    #[error("{}: channels of the pixels: expected 1 or 3, found {found}", path.display())]
    PixelChannels {
        /// The file.
        path: PathBuf,
        /// The number it gives.
        found: usize,
    },
    /// Statistics of latents that are none.
    #[error("{}: latents_mean, latents_std or scaling_factor: expected {expected}, found {found}", path.display())]
    LatentStatistics {
        /// The file.
        path: PathBuf,
        /// What they must be.
        expected: String,
        /// What they are.
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
        "no room for a tile: tensors of at most {bytes} bytes are allowed, {needed} are needed"
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
    /// A picture's latents are no whole patches.
    #[error(
        "image of {height_px}x{width_px} px (height x width): {}x{} latents, expected multiples of the patch size, \
        {patch_size}",
        latents[0],
        latents[1]
    )]
    PatchFit {
        /// The picture's height.
        height_px: usize,
        /// Its width.
        width_px: usize,
        /// Rows and columns of its latents.
        latents: [usize; 2],
        /// The side of a patch, in latents.
        patch_size: usize,
    },
    /// The side of a patch is none.
    #[error("patch size: expected 1 to {most}, found {found}")]
    PatchSize {
        /// The largest, in latents.
        most: usize,
        /// The one asked for.
        found: usize,
    },
    /// Weights and network do not fit each other.
    #[error(transparent)]
    Weights(#[from] tessera_weights::Error),
    /// A weights file or a configuration could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] tessera_checkpoint::Error),
}

impl Error {
    /// A fault in reading `path`, with a missing file told apart.
    pub(crate) fn reading(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::Missing { path },
            _ => Self::ReadFile { path, source },
        }
    }
}
