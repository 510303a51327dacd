//! How a forward pass routes, and what it did in every layer.

use crate::Winners;
use burn::tensor::Tensor;

/// How tokens get their experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By racing in the batch, as in training.
    Race,
    /// As at inference: by the layer's threshold, or image by image if it has none. No token depends on another image.
    Alone,
}

/// What one layer did.
#[derive(Debug, Clone)]
pub struct LayerTrace {
    /// The router's logits, `[batch, seq, experts]`, with their gradient.
    pub logits: Tensor<3>,
    /// Who won.
    pub winners: Winners,
    /// The router's guess of the target, `[batch, seq, target]`, where the layers race and have a head for it.
    pub target: Option<Tensor<3>>,
}

/// Goes through a model with its activations and collects what the layers did, in their order.
#[derive(Debug)]
pub struct Trace {
    mode: Mode,
    keep: bool,
    /// Of every layer with experts.
    pub layers: Vec<LayerTrace>,
}

impl Trace {
    /// Routes by `mode`, and collects.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            keep: true,
            layers: Vec::new(),
        }
    }

    /// Routes as at inference and collects nothing.
    pub fn off() -> Self {
        Self {
            keep: false,
            ..Self::new(Mode::Alone)
        }
    }

    /// How it routes.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it collects what layers do.
    pub(crate) fn collects(&self) -> bool {
        self.keep
    }

    pub(crate) fn push(&mut self, layer: LayerTrace) {
        if self.keep {
            self.layers.push(layer);
        }
    }
}
