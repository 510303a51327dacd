//! What can go wrong in the diffusion transformer.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of [`DitConfig`](crate::DitConfig) is out of range.
    #[error("diffusion transformer config: `{field}` must be {expected}, found {found}")]
    Config {
        /// The field.
        field: &'static str,
        /// What it must satisfy.
        expected: String,
        /// What it is.
        found: String,
    },
    /// No preset has this name.
    #[error(
        "architecture `{found}`: expected dit-SIZE/PATCH or race-dit-SIZE/PATCH-KinE, with SIZE one of s, b, m, l, xl, \
        such as dit-xl/2 or race-dit-b/2-4in32"
    )]
    Preset {
        /// The name.
        found: String,
    },
    /// The config of the experts is out of range.
    #[error(transparent)]
    Moe(#[from] tessera_moe::Error),
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
        expected: String,
        /// What it is.
        found: String,
    },
    /// A request names a class that the model does not have.
    #[error(transparent)]
    UnknownClass(#[from] tessera_backend::UnknownClass),
    /// The model computed NaN or an infinity.
    #[error("step {step} of {steps}: the latents of image {image} are not finite")]
    NonFinite {
        /// The step, from 1.
        step: usize,
        /// Number of steps in total.
        steps: usize,
        /// Index of the image in the batch.
        image: usize,
    },
    /// The latents left every scale that a decoder makes a picture of.
    #[error(
        "step {step} of {steps}: the latents of image {image} grew to {size:.1e} on average, expected about 1: too \
         much guidance, or weights that do not fit"
    )]
    Large {
        /// The step, from 1.
        step: usize,
        /// Number of steps in total.
        steps: usize,
        /// Index of the image in the batch.
        image: usize,
        /// The mean of their magnitudes.
        size: f32,
    },
    /// The progress callback stopped the sampler.
    #[error("cancelled after step {step} of {steps}")]
    Cancelled {
        /// The last completed step, from 1.
        step: usize,
        /// Number of steps in total.
        steps: usize,
    },
    /// The model has no experts, which the call is about.
    #[error("the model has no experts: its blocks are dense")]
    Dense,
    /// No config could be inferred from the weights.
    #[error("{}: `{name}` must be {expected}, found {found}", file.display())]
    Infer {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Weights could not be read, or do not match the model.
    #[error(transparent)]
    Weights(#[from] tessera_weights::Error),
    /// A file could not be read or written, or is not the JSON of a config.
    #[error(transparent)]
    Checkpoint(#[from] tessera_checkpoint::Error),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
