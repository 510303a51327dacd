//! The gradients of a tensor's parts.

use burn::tensor::Tensor;
use std::sync::{Arc, Mutex, PoisonError};

/// The gradients of a tensor's equal parts, from one part's backward pass to the next, until that of the whole is made
/// of them.
#[derive(Debug, Clone)]
pub struct PartGradients(Arc<Mutex<Vec<Option<Tensor<4>>>>>);

impl PartGradients {
    /// Of so many parts.
    pub(crate) fn new(parts: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![None; parts])))
    }

    pub(crate) fn count(&self) -> usize {
        self.with(|gradients| gradients.len())
    }

    pub(crate) fn put(&self, part: usize, gradient: Tensor<4>) {
        self.with(|gradients| gradients[part] = Some(gradient));
    }

    /// All of them, each once; none of a part that the loss does not depend on.
    pub(crate) fn take(&self) -> Vec<Option<Tensor<4>>> {
        self.with(|gradients| gradients.iter_mut().map(Option::take).collect())
    }

    fn with<R>(&self, f: impl FnOnce(&mut Vec<Option<Tensor<4>>>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
