//! What goes through the backbone with its activations.

use crate::{Dropout, GenArConfig};
use tessera_backend::Rng;
use tessera_moe::{Mode, Trace};

/// One forward pass: what it drops, and how tokens get their experts, if there are any.
#[derive(Debug)]
pub struct Pass<'a> {
    /// Dropout.
    pub dropout: Dropout<'a>,
    /// The routes; of every layer with experts, the encoder's before the decoder's.
    pub trace: Trace,
}

impl Pass<'static> {
    /// As at inference: nothing is dropped, and no image's routes depend on another's.
    pub fn inference() -> Self {
        Self {
            dropout: Dropout::off(),
            trace: Trace::off(),
        }
    }

    /// Nothing is dropped, and experts race in the batch: for measuring where they do.
    pub(crate) fn racing() -> Self {
        Self {
            dropout: Dropout::off(),
            trace: Trace::new(Mode::Race),
        }
    }
}

impl<'a> Pass<'a> {
    /// As in training: the config's dropout with masks from `rng`, and experts race in the batch.
    pub fn training(config: &GenArConfig, rng: &'a mut Rng) -> Self {
        Self {
            dropout: Dropout::new(config.attn_dropout, config.proj_dropout, rng),
            trace: Trace::new(Mode::Race),
        }
    }
}
