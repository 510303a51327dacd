//! What a search for weights finds.

use crate::tensor::StoredTensor;
use std::collections::BTreeMap;

/// Which weights of a training checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// As the last step left them.
    Raw,
    /// Their moving average, over what was not averaged (buffers).
    Ema,
}

impl Which {
    /// In a word, as on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ema => "ema",
        }
    }
}

/// The weights that were found in a checkpoint.
#[derive(Debug, Clone, Default)]
pub struct StateDict {
    /// Tensors by the names that the model has for them.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// What of a training checkpoint they are; `None` where the file is a bare state dict.
    pub which: Option<Which>,
    /// Where the raw weights are, as a path without its last dot; empty for the file itself and where there are none.
    pub path: String,
    /// Where the average is, if it was taken.
    pub average: Option<String>,
    /// The other parts of a training checkpoint, with how many tensors each has.
    pub left_out: BTreeMap<String, usize>,
    /// What these parts are, and why they are not used, as far as that is known.
    pub kinds: BTreeMap<String, String>,
}

/// Tensors by what their names are without wrappers.
pub(super) type Names<'a> = BTreeMap<String, &'a StoredTensor>;
