//! What was found, in lines for people.

use super::found::{Found, PictureFile};
use crate::model::{ArCard, DitCard, ModelCard};
use crate::params::ImageParams;

impl Found {
    /// In lines. What breaks a line is in names and texts of the file.
    pub fn describe(&self) -> Vec<String> {
        match self {
            Found::Model { info, weights } => {
                let mut lines = card(info);
                lines.extend(weights.iter().map(|(file, weights)| {
                    format!("{file}: {}, sha256 {}", weights.summary(), weights.sha256)
                }));
                lines
            }
            Found::Run {
                config,
                checkpoints,
                last_metrics,
            } => vec![
                format!(
                    "run of {}",
                    config["kind"].as_str().unwrap_or("unknown kind")
                ),
                format!("checkpoints: {}", checkpoints.join(", ")),
                format!("last metrics: {last_metrics}"),
                format!("config: {config:#}"),
            ],
            Found::Weights(weights) => weights.describe(),
            Found::Picture(PictureFile {
                width,
                height,
                channels,
                parameters,
                tessera,
                texts,
            }) => {
                let mut lines = vec![format!("PNG, {width}x{height} px, {channels} channel(s)")];
                lines.extend(parameters.clone());
                lines.extend(
                    (!tessera.is_null()).then(|| format!("{}: {tessera:#}", ImageParams::KEYWORD)),
                );
                lines.extend(texts.iter().map(|(key, text)| format!("{key}: {text}")));
                lines.extend((lines.len() == 1).then(|| "no metadata".into()));
                lines
            }
            Found::Calibration { calibration } => {
                vec![calibration.to_string().trim_end().into()]
            }
            Found::Tokens { manifest } => {
                let [height, width] = manifest.grid;
                let bits = manifest.quantizer.bits_in_words();
                vec![
                    format!(
                        "tokens of {} pictures in {} file(s)",
                        manifest.pictures.len(),
                        manifest.shards.len()
                    ),
                    format!(
                        "{height} x {width} tokens of {} dimensions, {bits} bits{}",
                        manifest.dimensions,
                        in_patches(manifest.patch_size)
                    ),
                    format!(
                        "model {}, vae sha256 {}",
                        manifest.model, manifest.vae_sha256
                    ),
                ]
            }
        }
    }
}

/// A model's card, in lines.
fn card(card: &ModelCard) -> Vec<String> {
    let count = card.class_names().len();
    let classes = format!("classes: {}", card.class_names().join(", "));
    let (head, quantizer, sampling) = match card {
        ModelCard::Ar(ArCard {
            name,
            img_size,
            picture_size,
            quantizer: spread,
            patch_size,
            sampling,
            ..
        }) => (
            format!(
                "model {name}: pictures of {picture_size} px (inside {img_size} px), {count} classes"
            ),
            Some(format!(
                "quantizer: {} bits over ±{}{}",
                spread.bits_in_words(),
                spread.range,
                in_patches(*patch_size)
            )),
            serde_json::to_string(sampling),
        ),
        ModelCard::Dit(DitCard {
            name,
            img_size,
            sampling,
            ..
        }) => (
            format!("diffusion transformer {name}: pictures of {img_size} px, {count} classes"),
            None,
            serde_json::to_string(sampling),
        ),
    };
    let mut lines = vec![head, classes];
    lines.extend(quantizer);
    lines.push(format!("sampling: {}", sampling.unwrap_or_default()));
    lines
}

/// What a line says of patches, where tokens are some.
fn in_patches(patch_size: usize) -> String {
    match patch_size {
        1 => String::new(),
        side => format!(", patches of {side} x {side} latents"),
    }
}
