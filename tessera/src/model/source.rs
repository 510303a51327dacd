//! Where a model is, and which of its weights are meant.

use super::run;
use crate::error::Result;
use std::path::{Path, PathBuf};
use tessera_weights::{Loaded, Weights, Which};

/// What is in the names of the heads by which a router guesses a target in training.
const TARGET_HEAD: &str = ".router.target.";

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
    /// The run's checkpoint that holds the weights, in place of the model's folder.
    pub(crate) checkpoint: Option<PathBuf>,
    pub(crate) told: Option<fn(&Path, Which)>,
}

impl Source<'_> {
    /// A model's folder, a run's folder, a released checkpoint, or `org/name` in the hub's cache.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: Some(model.into()),
            ..Self::default()
        }
    }

    /// The model that is built in: photographs of clothes at 64 px.
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
            checkpoint: self.checkpoint,
            told: self.told,
        }
    }

    /// Hears which checkpoint of a run is drawn with, where it is one: the run has not ended, or its raw weights are
    /// meant.
    pub fn on_checkpoint(mut self, told: Option<fn(&Path, Which)>) -> Self {
        self.told = told;
        self
    }

    /// Sets where the weights of a model's folder are.
    pub(crate) fn at(&mut self, checkpoint: Option<PathBuf>, folder: &Path) {
        match &checkpoint {
            Some(file) => {
                let which = self.which.unwrap_or(Which::Ema);
                self.which = Some(which);
                if let Some(told) = self.told {
                    told(file, which);
                }
            }
            // What a run ends with is the average, and all there is in its file.
            None if run::around(folder).is_some() => self.which = None,
            None => {}
        }
        self.checkpoint = checkpoint;
    }

    /// The weights of the model in `folder`. A run's checkpoint also holds heads that only training needs.
    pub(crate) fn weights_of(&self, folder: &Path) -> Result<Weights> {
        let Some(file) = &self.checkpoint else {
            return Ok(Weights::read_model(folder, self.which)?);
        };
        let mut weights = Weights::read_model(file, self.which)?;
        without_targets(&mut weights);
        Ok(weights)
    }
}

/// Removes the heads that only training needs.
pub(crate) fn without_targets(weights: &mut Weights) {
    let names = weights.iter().map(|(name, _)| name.to_owned());
    let of_training: Vec<String> = names.filter(|name| name.contains(TARGET_HEAD)).collect();
    for name in &of_training {
        weights.take(name);
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
