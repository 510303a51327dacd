//! Writing a model's folder as one thing, and knowing by the weights of its parts that they belong together.

use super::card::ModelCard;
use super::run::CARD_FILE;
use crate::error::{Error, Result};
use crate::identity::digest_of;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use tessera_checkpoint::{CONFIG_FILE, Existing, weights_in, write_folder_atomically};
use tessera_quantize::Calibration;
use tessera_tokenizer::LATENTS_FILE;
use tessera_weights::{WeightDtype, Weights};

/// The folder of the tokenizer.
pub(crate) const VAE: &str = "vae";
/// What was measured on the tokenizer's latents.
pub(crate) const CALIBRATION: &str = "calibration.json";
/// What the card calls the weights that lie in the folder itself.
const GENERATOR: &str = "generator";

/// Whether an entry of a folder, by its name, is what a model writes: a judge is the user's.
pub(crate) fn is_ours(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let weights = name.starts_with("model") && name.contains(".safetensors");
    weights || [CARD_FILE, CONFIG_FILE, CALIBRATION, LATENTS_FILE, VAE].contains(&&*name)
}

/// Writes a model's folder: all that `fill` writes and the card, or nothing.
pub(super) fn write(
    folder: &Path,
    card: ModelCard,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    write_folder_atomically(folder, Existing::Replace, is_ours, |aside| {
        fill(aside)?;
        seal(aside, card)
    })
}

/// The same for a model whose generator's weights are still in the checkpoints of a run. A model that is there whole
/// stays.
pub(super) fn write_unfinished(
    folder: &Path,
    card: ModelCard,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    match weights_in(folder) {
        Some(_) => Ok(()),
        None => write(folder, card, fill),
    }
}

/// Writes the card of a folder whose parts are all there.
pub(crate) fn seal(folder: &Path, card: ModelCard) -> Result<()> {
    let mut parts = BTreeMap::new();
    for (part, inner) in [(GENERATOR, folder.to_owned()), (VAE, folder.join(VAE))] {
        if weights_in(&inner).is_some() {
            parts.insert(part.into(), digest_of(&Weights::read_model(inner, None)?)?);
        }
    }
    card.with_parts(parts).save(folder)
}

/// How the weights of a tokenizer are stored beside a generator's: 8 bits would cost its pictures 0.9 dB (TAEF2, the
/// mean of six photographs: 31.15 to 30.26 dB).
pub(crate) fn of_tokenizer(dtype: WeightDtype) -> WeightDtype {
    match dtype {
        WeightDtype::Int8 => WeightDtype::F16,
        other => other,
    }
}

/// Writes what was measured on the latents of the tokenizer, whose weights are stored as `dtype`.
pub(crate) fn save_calibration(
    calibration: Calibration,
    folder: &Path,
    dtype: WeightDtype,
) -> Result<()> {
    let saved = Calibration {
        // Rounded weights are known by something else.
        vae: calibration.vae.filter(|_| dtype == WeightDtype::F32),
        ..calibration
    };
    Ok(saved.save(folder.join(CALIBRATION))?)
}

/// Refuses a model's folder in which a part was exchanged, as opening it does.
///
/// # Errors
/// [`Error::Exchanged`]; when a file cannot be read.
pub fn require_parts(folder: &Path) -> Result<()> {
    let card = ModelCard::read(folder)?;
    if card.parts().contains_key(GENERATOR) && weights_in(folder).is_some() {
        let digest = digest_of(&Weights::read_model(folder, None)?)?;
        require_generator(card.parts(), &digest)?;
    }
    require_vae(folder, card.parts())
}

/// Refuses a generator whose weights, known by `digest`, are not those that the card was written for.
pub(super) fn require_generator(parts: &BTreeMap<String, String>, digest: &str) -> Result<()> {
    require("the weights of the generator", parts.get(GENERATOR), digest)
}

/// Refuses a tokenizer whose weights are not those that the card of its folder was written for.
pub(super) fn require_vae(folder: &Path, parts: &BTreeMap<String, String>) -> Result<()> {
    let expected = parts.get(VAE);
    if expected.is_none() {
        return Ok(());
    }
    let found = digest_of(&Weights::read_model(folder.join(VAE), None)?)?;
    require("the weights of the tokenizer", expected, &found)
}

fn require(what: &'static str, expected: Option<&String>, found: &str) -> Result<()> {
    match expected {
        Some(expected) if expected != found => Err(Error::Exchanged {
            what,
            expected: expected.clone(),
            found: found.into(),
        }),
        _ => Ok(()),
    }
}
