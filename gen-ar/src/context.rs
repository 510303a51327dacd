//! State of one forward pass through the backbone, beside the activations.

use crate::{Dropout, GenArConfig};
use tessera_backend::Rng;
use tessera_moe::{Mode, RouterTrace};

/// What a forward pass drops, and how its tokens are routed to experts.
#[derive(Debug)]
pub struct ForwardContext<'a> {
    /// Dropout.
    pub dropout: Dropout<'a>,
    /// The routers of all layers with experts, the encoder's before the decoder's.
    pub trace: RouterTrace,
}

impl ForwardContext<'static> {
    /// Inference: no dropout, and no image's routes depend on another image.
    pub fn inference() -> Self {
        Self {
            dropout: Dropout::off(),
            trace: RouterTrace::off(),
        }
    }

    /// No dropout, and tokens race within the batch: the cutoffs that thresholds are calibrated from.
    pub(crate) fn racing() -> Self {
        Self {
            dropout: Dropout::off(),
            trace: RouterTrace::new(Mode::Race),
        }
    }
}

impl<'a> ForwardContext<'a> {
    /// Training: the config's dropout with masks from `rng`, and tokens race within the batch.
    pub fn training(config: &GenArConfig, rng: &'a mut Rng) -> Self {
        Self {
            dropout: Dropout::training(config, rng),
            trace: RouterTrace::new(Mode::Race),
        }
    }
}
