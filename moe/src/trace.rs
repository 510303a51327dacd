//! The routing mode of a forward pass, and the record of what the routers did.

use crate::RoutingMask;
use burn::tensor::Tensor;

/// How tokens are assigned to experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Training: tokens race within the batch.
    Race,
    /// Inference: by the layer's threshold or, without one, by a race within each image. No token depends on another
    /// image.
    Inference,
}

/// What the router of one layer did.
#[derive(Debug, Clone)]
pub struct LayerTrace {
    /// The router's logits, `[batch, seq, experts]`, with their gradient.
    pub logits: Tensor<3>,
    /// The experts of each token.
    pub mask: RoutingMask,
    /// The target head's prediction, `[batch, seq, target]`: in [`Mode::Race`], if the layer has that head.
    pub target: Option<Tensor<3>>,
}

/// Passed along with the activations: says how to route, and records what the routers did, layer by layer.
#[derive(Debug)]
pub struct RouterTrace {
    mode: Mode,
    recording: bool,
    /// The layers with experts, in the order of the forward pass. Empty if nothing is recorded.
    pub layers: Vec<LayerTrace>,
}

impl RouterTrace {
    /// Routes by `mode` and records every layer.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            recording: true,
            layers: Vec::new(),
        }
    }

    /// Routes by [`Mode::Inference`] and records nothing, so that thresholds are applied on the device.
    pub fn off() -> Self {
        Self {
            recording: false,
            ..Self::new(Mode::Inference)
        }
    }

    /// The routing mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether layers are recorded.
    pub(crate) fn records(&self) -> bool {
        self.recording
    }

    pub(crate) fn push(&mut self, layer: LayerTrace) {
        if self.recording {
            self.layers.push(layer);
        }
    }
}
