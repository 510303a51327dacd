//! What can go wrong in the generator.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of [`GenArConfig`](crate::GenArConfig) that no model can have.
    #[error("generator config: `{field}` must be {expected}, found {found}")]
    Config {
        /// The field.
        field: &'static str,
        /// What it must satisfy.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The experts' part of the config.
    #[error(transparent)]
    Moe(#[from] tessera_moe::Error),
    /// What only a model with experts has.
    #[error("the model has no experts: its blocks are dense")]
    Dense,
    /// What a model cannot have when its tokens are dealt to ranks.
    #[error("tokens cannot be dealt to a grid of ranks with {what}")]
    Ranks {
        /// What it has.
        what: &'static str,
    },
    /// An option of [`SampleConfig`](crate::SampleConfig) out of its range.
    #[error("sampling option `{option}` must be {expected}, found {found}")]
    Sampling {
        /// The option.
        option: &'static str,
        /// What it must satisfy.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A class the model was not made for.
    #[error("image {image}: class {found} does not exist, the model has {class_num} classes (0 to {})", class_num - 1)]
    UnknownClass {
        /// Index of the image in the batch.
        image: usize,
        /// The class asked for.
        found: usize,
        /// Classes of the model.
        class_num: usize,
    },
    /// An order that is not a permutation of the positions, or not one order per image.
    #[error("generation orders: {expected} expected, found {found}")]
    Orders {
        /// What was needed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The model produced NaN or an infinity.
    #[error("step {step} of {steps}: the {what} are not finite")]
    NonFinite {
        /// The step, from 0.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// What is not finite.
        what: &'static str,
    },
    /// The caller's progress function asked to stop.
    #[error("cancelled after step {step} of {steps}")]
    Cancelled {
        /// The last step that was done, from 1.
        step: usize,
        /// Steps in all.
        steps: usize,
    },
    /// The values that the levels stand for are not one finite number per level.
    #[error("`{name}` must be {expected} finite values, found {found}")]
    Values {
        /// Their name in the checkpoint.
        name: &'static str,
        /// Levels of the config.
        expected: usize,
        /// What is there.
        found: String,
    },
    /// Weights without a config do not tell what model they are of.
    #[error("{}: not the weights of a generator: `{name}` is {found}, expected {expected}", file.display())]
    Infer {
        /// The file of the weights; empty if they were made in memory.
        file: PathBuf,
        /// The tensor.
        name: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A config file that is not JSON of a config.
    #[error("{} is not a generator's config", path.as_ref().map_or("the given JSON".into(), |p| format!("`{}`", p.display())))]
    ConfigJson {
        /// The file; none when the text came from memory.
        path: Option<PathBuf>,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A file could not be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Weights are missing, unexpected, misshapen or unreadable.
    #[error(transparent)]
    Weights(#[from] tessera_weights::Error),
    /// A file could not be written.
    #[error(transparent)]
    Checkpoint(#[from] tessera_checkpoint::Error),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
