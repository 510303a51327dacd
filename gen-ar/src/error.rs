//! What can go wrong in the generator.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of [`GenArConfig`](crate::GenArConfig) is out of range.
    #[error("generator config: `{field}` must be {expected}, found {found}")]
    Config {
        /// The field.
        field: &'static str,
        /// What it must satisfy.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The config of the experts is out of range.
    #[error(transparent)]
    Moe(#[from] tessera_moe::Error),
    /// The model has no experts, which the call is about.
    #[error("the model has no experts: its blocks are dense")]
    Dense,
    /// The model has something that prevents sharding its tokens over ranks.
    #[error("tokens cannot be sharded over ranks with {what}")]
    Ranks {
        /// What prevents it.
        what: &'static str,
    },
    /// An option of [`SampleConfig`](crate::SampleConfig) is out of range.
    #[error("sampling option `{option}` must be {expected}, found {found}")]
    Sampling {
        /// The option.
        option: &'static str,
        /// What it must satisfy.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A request names a class that the model does not have.
    #[error(transparent)]
    UnknownClass(#[from] tessera_backend::UnknownClass),
    /// The generation orders are not one permutation of the positions per image.
    #[error("generation orders: {expected} expected, found {found}")]
    Orders {
        /// What was needed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The model computed NaN or an infinity.
    #[error("step {step} of {steps}: the {what} are not finite")]
    NonFinite {
        /// The step, from 0.
        step: usize,
        /// Number of steps in total.
        steps: usize,
        /// What is not finite.
        what: &'static str,
    },
    /// The progress callback stopped the sampler.
    #[error("cancelled after step {step} of {steps}")]
    Cancelled {
        /// The last completed step, from 1.
        step: usize,
        /// Number of steps in total.
        steps: usize,
    },
    /// The values of the levels are not one finite number per level.
    #[error("`{name}` must be {expected} finite values, found {found}")]
    Values {
        /// Their name in the checkpoint.
        name: &'static str,
        /// Levels of the config.
        expected: usize,
        /// What is there.
        found: String,
    },
    /// No config could be inferred from the weights.
    #[error("{}: not the weights of a generator: `{name}` is {found}, expected {expected}", file.display())]
    Infer {
        /// The weights file; empty for weights in memory.
        file: PathBuf,
        /// The tensor.
        name: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// JSON in memory is not a config.
    #[error("the given JSON is not a generator's config")]
    ConfigJson {
        /// The parser's error.
        source: serde_json::Error,
    },
    /// Weights are missing, unexpected, of a wrong shape or unreadable.
    #[error(transparent)]
    Weights(#[from] tessera_weights::Error),
    /// A file could not be read or written, or is not the JSON of a config.
    #[error(transparent)]
    Checkpoint(#[from] tessera_checkpoint::Error),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
