//! What the demo trains and measures, by data set.

pub mod clothing;
pub mod fashion;

use crate::step::Step;
pub use clothing::Clothing;
pub use fashion::{Fashion, Images};
use std::path::{Path, PathBuf};

/// The settings of a demo.
#[derive(Debug, Clone, PartialEq)]
pub enum Recipe {
    /// Gray pictures of 28 px and a tokenizer of their own.
    Fashion(Fashion),
    /// Photographs at 64 px and a tokenizer that exists.
    Clothing(Clothing),
}

impl Recipe {
    /// What the report calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Fashion(recipe) => recipe.name,
            Self::Clothing(_) => "clothing",
        }
    }

    /// The steps that make the models in `out`, from the data in `data`.
    pub fn training(&self, out: &Path, data: &Path, classes: &[String]) -> Vec<Step> {
        match self {
            Self::Fashion(recipe) => recipe.training(out, data, classes),
            Self::Clothing(recipe) => recipe.training(out, data),
        }
    }

    /// The steps that measure the models in `out` and draw their pictures.
    pub fn measuring(&self, out: &Path, data: &Path, classes: &[String]) -> Vec<Step> {
        match self {
            Self::Fashion(recipe) => recipe.measuring(out, data, classes),
            Self::Clothing(recipe) => recipe.measuring(out, data, classes),
        }
    }

    /// What the report shows of the measurements: a heading, and the name of the JSON.
    pub fn measured(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Fashion(_) => &[
                ("Generated pictures against real ones", "eval"),
                ("Reconstruction from quantized latents", "reconstruction"),
            ],
            Self::Clothing(_) => &[
                ("Generated pictures against real ones", "eval"),
                (
                    "Pictures of the diffusion transformer against real ones",
                    "eval-dit",
                ),
                ("Reconstruction from quantized latents", "reconstruction"),
            ],
        }
    }
}

/// `eval` of a model, whose JSON and pictures are at `out/name`.
fn evaluation(out: &Path, name: &str, model: &Path, data: &Path) -> Step {
    let json = out.join(name).with_added_extension("json");
    Step::new("eval", json.clone())
        .in_folder(&out.join(name))
        .flag("-m", model)
        .flag("--data", data)
        .words("--json")
        .printing_to(json)
}

/// The VAE of `train vae`.
pub fn vae_model(out: &Path) -> PathBuf {
    out.join("vae/vae")
}

/// The model of `train ar`.
pub fn model(out: &Path) -> PathBuf {
    out.join("ar/model")
}

/// What `train ar` and `train dit` write last into a model; they describe it when they begin.
pub fn weights(model: &Path) -> PathBuf {
    model.join("model.safetensors")
}

/// The model of `train dit`.
pub fn dit_model(out: &Path) -> PathBuf {
    out.join("dit/model")
}

/// The classifier of `train judge`.
pub fn judge_model(out: &Path) -> PathBuf {
    out.join("judge/model")
}

/// The folder for pictures of every class, beside each other.
pub fn all(out: &Path) -> PathBuf {
    out.join("all")
}

/// The folder for the pictures of a class.
pub fn samples(out: &Path, class: &str) -> PathBuf {
    out.join("samples").join(class.replace(' ', "-"))
}
