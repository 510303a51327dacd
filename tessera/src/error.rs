//! What can go wrong, said with the file, the fault, what was expected and what was found.

use crate::names::NameFault;
use std::path::{Path, PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A fault in opening or using a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// What was being done: `read`, `write`, `create this folder`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that should hold JSON of a kind does not.
    #[error("{}: not {what}", path.display())]
    Json {
        /// What a good file is, with its article.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {what}: expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The part that is wrong.
        what: &'static str,
        /// What a good file has there.
        expected: String,
        /// What this one has.
        found: String,
    },
    /// Levels are to be chosen by distributions, which the tokenizer does not give.
    #[error("levels by distributions: expected a KL-VAE, which gives them, found a {architecture}")]
    NoDistributions {
        /// What the tokenizer is.
        architecture: &'static str,
    },
    /// There is nothing at a path.
    #[error("{}: no such file or folder", path.display())]
    NoPath {
        /// The path.
        path: PathBuf,
    },
    /// A folder is of no known kind.
    #[error(
        "{}: expected model.json (a model), manifest.json (tokens), checkpoint/ and config.json (a run) or weights, \
        found none of them",
        path.display()
    )]
    UnknownFolder {
        /// The folder.
        path: PathBuf,
    },
    /// There is a folder where a file belongs.
    #[error("{}: expected {expected}, found a folder", path.display())]
    IsFolder {
        /// The folder.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// Pictures cannot be written under a name.
    #[error(transparent)]
    Name(#[from] NameFault),
    /// There is no model at a path.
    #[error("{}: no such model", path.display())]
    NoModel {
        /// The path.
        path: PathBuf,
    },
    /// A released checkpoint has no tokenizer, and none was given.
    #[error("{}: has no model.json, so it is no model folder; a released checkpoint comes without its tokenizer", path.display())]
    NoTokenizer {
        /// The checkpoint.
        path: PathBuf,
    },
    /// A run of an older version that has not ended has no model.
    #[error(
        "{}: this run has not ended, and there is no model yet; its newest whole checkpoint is {}",
        run.display(),
        newest.display()
    )]
    Unfinished {
        /// The run's folder.
        run: PathBuf,
        /// The file.
        newest: PathBuf,
    },
    /// There is no `model.json`, neither here nor beside it.
    #[error("{}: expected a model's or a run's folder, found no model.json", path.display())]
    NoCard {
        /// The file or folder.
        path: PathBuf,
    },
    /// A run has no checkpoint to draw with.
    #[error("{}: expected a whole checkpoint of the run, found none", run.display())]
    NoCheckpoint {
        /// The run's folder.
        run: PathBuf,
    },
    /// Files of the Hugging Face hub that its cache does not have.
    #[error("{name}: no such path, and not in the hub's cache at {}", cache.display())]
    NotInCache {
        /// `org/name`.
        name: String,
        /// The revision asked for; the main branch if none.
        revision: Option<String>,
        /// The file asked for; all of them if none.
        file: Option<PathBuf>,
        /// The cache.
        cache: PathBuf,
    },
    /// The parts of a model were not made for each other.
    #[error(
        "the parts of the model do not fit: {what} should be {expected}, the generator has {found}"
    )]
    Parts {
        /// What differs.
        what: &'static str,
        /// What the other parts ask for.
        expected: String,
        /// What the generator has.
        found: String,
    },
    /// A part of a model's folder was exchanged for another.
    #[error(
        "{what}: expected those that model.json was written with ({expected}), found others ({found})"
    )]
    Exchanged {
        /// The weights of which part.
        what: &'static str,
        /// What the card knows them by.
        expected: String,
        /// What those that are there are known by.
        found: String,
    },
    /// A picture was drawn by what is not this model.
    #[error("{}: {why}", file.display())]
    OtherModel {
        /// The picture.
        file: PathBuf,
        /// What differs.
        why: String,
    },
    /// A class id that the model does not have.
    #[error("class {found} does not exist: the model has classes 0 to {last}")]
    UnknownClassId {
        /// The id.
        found: usize,
        /// The last one there is.
        last: usize,
    },
    /// A class name that the model does not have.
    #[error("class `{found}` does not exist; the nearest are: {}", nearest.join(", "))]
    UnknownClass {
        /// The name.
        found: String,
        /// The nearest names with their ids, nearest first.
        nearest: Vec<String>,
    },
    /// A class name that several classes have, but for the case of its letters.
    #[error("class `{found}` is none of {} to the letter", names.join(", "))]
    AmbiguousClass {
        /// The name.
        found: String,
        /// Those it may be, with their ids.
        names: Vec<String>,
    },
    /// A name of no architecture.
    #[error("expected {}, dit-SIZE/PATCH or race-dit-SIZE/PATCH-KinE", known.join(", "))]
    UnknownPreset {
        /// Those of one size each.
        known: Vec<&'static str>,
    },
    /// A device does not compute with a data type.
    #[error("data type {found}: this device does not compute with it; expected {}", known.join(" or "))]
    DataType {
        /// The type asked for.
        found: String,
        /// Those that it computes with.
        known: Vec<String>,
    },
    /// A value that makes no sense.
    #[error("{what}: expected {expected}, found {found}")]
    Invalid {
        /// What it is of.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// What was being done when the cause happened.
    #[error("{what}")]
    During {
        /// `in FILE`, `after 3 of 8 images`.
        what: String,
        /// The cause.
        source: Box<Self>,
    },
    /// The caller stopped it.
    #[error("stopped after {done} of {total} {what}")]
    Cancelled {
        /// How many were done.
        done: usize,
        /// Of how many.
        total: usize,
        /// Of what: `images`, `pictures`.
        what: &'static str,
    },
    /// A rank drew less than its share of the pictures.
    #[error("{drawn} pictures of {of} were drawn")]
    Undrawn {
        /// How many it drew.
        drawn: usize,
        /// Its share.
        of: usize,
    },
    /// A model drew pictures that cannot be sent between ranks as equals.
    #[error("pictures of one model are of several sizes")]
    SeveralSizes,
    /// A router's score of a token and an expert is not finite.
    #[error("layer {layer}: a score is not finite")]
    ScoreNotFinite {
        /// The layer, from 1.
        layer: usize,
    },
    /// A file of safetensors cannot be made or read.
    #[error("{}: broken safetensors", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the format's parser said.
        source: safetensors::SafeTensorError,
    },
    /// A device cannot be opened.
    #[error(transparent)]
    Device(#[from] tessera_backend::Error),
    /// A weights file cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] tessera_checkpoint::Error),
    /// Weights and model do not fit each other.
    #[error(transparent)]
    Weights(#[from] tessera_weights::Error),
    /// A picture cannot be read, written or compared.
    #[error(transparent)]
    Pictures(#[from] tessera_pictures::Error),
    /// A tokenizer cannot be opened or used.
    #[error(transparent)]
    Tokenizer(#[from] tessera_tokenizer::Error),
    /// Latents or tokens cannot be quantized, restored or measured.
    #[error(transparent)]
    Quantize(#[from] tessera_quantize::Error),
    /// The autoregressive generator failed.
    #[error(transparent)]
    GenAr(#[from] tessera_gen_ar::Error),
    /// The diffusion transformer failed.
    #[error(transparent)]
    GenDit(#[from] tessera_gen_dit::Error),
    /// Pictures cannot be evaluated.
    #[error(transparent)]
    Evaluate(#[from] tessera_evaluate::Error),
    /// Ranks failed or do not agree.
    #[error(transparent)]
    Ranks(#[from] tessera_attention2d::Error),
    /// Training failed.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Train(#[from] tessera_train::Error),
}

impl Error {
    /// A fault of the system at a file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.into(),
            source,
        }
    }

    /// The same error, with what was being done before it.
    /// The error with the file or folder that it happened in, unless its own words name it.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        let path = path.display().to_string();
        match causes(&self).iter().any(|words| words.contains(&path)) {
            true => self,
            false => self.during(format!("in {path}")),
        }
    }

    pub(crate) fn during(self, what: impl Into<String>) -> Self {
        Self::During {
            what: what.into(),
            source: Box::new(self),
        }
    }
}

/// The words of an error and of its causes.
fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect()
}

/// An error and its causes in a line.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    causes(error).join(": ")
}

/// Reads a file of JSON; `what` is what it should be, with its article.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    path: &Path,
    what: &'static str,
) -> Result<T> {
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Json {
        what,
        path: path.into(),
        source,
    })
}
