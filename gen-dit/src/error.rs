//! What can go wrong in the diffusion transformer.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of [`DitConfig`](crate::DitConfig) that no model can have.
    #[error("diffusion transformer config: `{field}` must be {expected}, found {found}")]
    Config {
        /// The field.
        field: &'static str,
        /// What it must satisfy.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A name that is no preset's.
    #[error(
        "architecture `{found}`: expected dit-SIZE/PATCH or race-dit-SIZE/PATCH-KinE, with SIZE one of s, b, m, l, xl, such as \
        dit-xl/2 or race-dit-b/2-4in32"
    )]
    Preset {
        /// The name.
        found: String,
    },
    /// The experts' part of the config.
    #[error(transparent)]
    Moe(#[from] tessera_moe::Error),
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
        expected: String,
        /// What it is.
        found: String,
    },
    /// A class the model was not made for.
    #[error("image {image}: class {found} does not exist, the model has {num_classes} classes (0 to {})", num_classes - 1)]
    UnknownClass {
        /// Index of the image in the batch.
        image: usize,
        /// The class asked for.
        found: usize,
        /// Classes of the model.
        num_classes: usize,
    },
    /// The model produced NaN or an infinity.
    #[error("step {step} of {steps}: the latents of image {image} are not finite")]
    NonFinite {
        /// The step, from 1.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// Index of the image in the batch.
        image: usize,
    },
    /// The caller's progress function asked to stop.
    #[error("cancelled after step {step} of {steps}")]
    Cancelled {
        /// The last step that was done, from 1.
        step: usize,
        /// Steps in all.
        steps: usize,
    },
    /// A model without experts was asked for what only experts have.
    #[error("the model has no experts: its blocks are dense")]
    Dense,
    /// Weights whose names and shapes do not tell what they are of.
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
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A `config.json` that is none.
    #[error("{} is not the config of a diffusion transformer", path.display())]
    ConfigJson {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Weights that cannot be read, or do not fit.
    #[error(transparent)]
    Weights(#[from] tessera_weights::Error),
    /// A file could not be written.
    #[error(transparent)]
    Checkpoint(#[from] tessera_checkpoint::Error),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
