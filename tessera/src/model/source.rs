//! Where a model is, and which of its weights are meant.

use std::path::{Path, PathBuf};
use tessera_weights::{Loaded, Which};

/// What a user says of a model: where it is, its tokenizer, which of its weights.
///
/// ```
/// use tessera::Source;
///
/// let released = Source::new("checkpoint-last.pth").vae("kl16.ckpt");
/// let run = Source::new("runs/dit");
/// # let _ = (released, run);
/// ```
#[derive(Default)]
pub struct Source<'a> {
    pub(crate) model: Option<PathBuf>,
    pub(crate) vae: Option<PathBuf>,
    pub(crate) which: Option<Which>,
    pub(crate) progress: Option<&'a mut dyn FnMut(Loaded)>,
}

impl Source<'_> {
    /// A model's folder, a run's folder, a released checkpoint, or `org/name` in the hub's cache.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: Some(model.into()),
            ..Self::default()
        }
    }

    /// The model that is built in: Fashion-MNIST at 28 px.
    pub fn builtin() -> Self {
        Self::default()
    }

    /// [`new`](Self::new) for a path that a user gave, else [`builtin`](Self::builtin).
    pub fn of(model: Option<&Path>) -> Self {
        Self {
            model: model.map(Path::to_owned),
            ..Self::default()
        }
    }

    /// The tokenizer of a checkpoint that comes without one; in place of its own for a folder.
    pub fn vae(mut self, vae: impl Into<PathBuf>) -> Self {
        self.vae = Some(vae.into());
        self
    }

    /// Raw or averaged weights of a training checkpoint; averaged ones where there are any unless told.
    pub fn weights(mut self, which: impl Into<Option<Which>>) -> Self {
        self.which = which.into();
        self
    }

    /// Hears how many tensors of a large generator are loaded.
    pub fn on_progress(self, progress: &mut dyn FnMut(Loaded)) -> Source<'_> {
        Source {
            model: self.model,
            vae: self.vae,
            which: self.which,
            progress: Some(progress),
        }
    }
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("model", &self.model)
            .field("vae", &self.vae)
            .field("which", &self.which)
            .finish_non_exhaustive()
    }
}
