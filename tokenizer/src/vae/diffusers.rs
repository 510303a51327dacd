//! The same autoencoder under the names that diffusers has for it (`AutoencoderKL`).

use super::config::KlVaeConfig;
use super::model::KlVae;
use crate::open::LatentScale;
use crate::{Error, Result};
use burn::tensor::Device;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use tessera_weights::{Weight, Weights};

/// What `config.json` of diffusers says that the weights do not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Diffusers {
    /// `AutoencoderKL`
    Kl {
        norm_groups: Option<usize>,
        latents: Option<LatentScale>,
    },
    /// `AutoencoderTiny`
    Tiny,
}

/// The fields of an `AutoencoderKL` that matter here.
#[derive(Deserialize)]
struct Fields {
    norm_num_groups: Option<usize>,
    scaling_factor: Option<f32>,
    shift_factor: Option<f32>,
    latents_mean: Option<Vec<f32>>,
    latents_std: Option<Vec<f32>>,
}

impl Fields {
    /// What all channels have in common. `latents_mean` and `latents_std` are of each channel: where these differ,
    /// there is no one scale, and it must be measured.
    fn latents(&self) -> Option<LatentScale> {
        let one = |values: &Option<Vec<f32>>, none: f32| match values.as_deref() {
            None | Some([]) => Some(none),
            Some([first, others @ ..]) => {
                others.iter().all(|value| value == first).then_some(*first)
            }
        };
        let (mean, std) = (one(&self.latents_mean, 0.0)?, one(&self.latents_std, 1.0)?);
        let scale = self.scaling_factor? / std;
        let mean = mean + self.shift_factor.unwrap_or(0.0);
        scale.is_finite().then_some(LatentScale { mean, scale })
    }
}

impl Diffusers {
    pub(crate) fn parse(path: &Path, json: &Value) -> Result<Self> {
        let class = json["_class_name"].as_str().unwrap_or_default();
        match class {
            "AutoencoderTiny" => Ok(Self::Tiny),
            "AutoencoderKL" => {
                let fields =
                    Fields::deserialize(json).map_err(|source| Error::TokenizerConfigFile {
                        path: path.into(),
                        source,
                    })?;
                Ok(Self::Kl {
                    norm_groups: fields.norm_num_groups,
                    latents: fields.latents(),
                })
            }
            other => Err(Error::TokenizerKind {
                path: path.into(),
                expected: "AutoencoderKL or AutoencoderTiny",
                found: other.into(),
            }),
        }
    }

    /// Whether the names are diffusers'.
    pub(crate) fn named(weights: &Weights) -> bool {
        weights
            .get("encoder.down_blocks.0.resnets.0.conv1.weight")
            .is_some()
    }
}

impl KlVae {
    /// A network of weights under diffusers' names. Those of newer models lack the 1 x 1 convolutions around the
    /// latents, which are then the identity.
    ///
    /// # Errors
    /// When a tensor is missing, unexpected or misshapen: it is named as the reference names it.
    pub fn from_diffusers(
        weights: Weights,
        norm_groups: Option<usize>,
        device: &Device,
    ) -> Result<Self> {
        let weights = with_identities(with_reference_names(weights));
        let mut config = KlVaeConfig::infer(&weights)?;
        config.norm_groups = norm_groups.unwrap_or(config.norm_groups);
        Self::from_weights(&config, &weights, device)
    }

    /// The weights of the network alone: the loss of latent diffusion's trainer is saved beside it.
    pub(crate) fn without_training_parts(mut weights: Weights) -> Weights {
        weights.take_prefix("loss.");
        weights
    }
}

/// Translates every name, and the attention's maps from matrices to 1 x 1 convolutions.
fn with_reference_names(weights: Weights) -> Weights {
    let levels = (0..)
        .take_while(|level| {
            let name = format!("encoder.down_blocks.{level}.resnets.0.conv1.weight");
            weights.get(&name).is_some()
        })
        .count();
    let mut renamed = weights.emptied();
    for (name, weight) in weights.iter() {
        let reference = reference_name(name, levels);
        let weight = weight.clone();
        let weight = match *weight.shape() {
            [to, from] if is_projection(&reference) => weight
                .reshaped([to, from, 1, 1])
                .expect("as many values as before"),
            _ => weight,
        };
        renamed.insert(reference, weight);
    }
    renamed
}

fn is_projection(name: &str) -> bool {
    [".q.weight", ".k.weight", ".v.weight", ".proj_out.weight"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

/// The reference's name of a tensor. What is not known stays as it is, to be refused by its name.
fn reference_name(name: &str, levels: usize) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    // The decoder's blocks are counted from the lowest resolution, the reference's levels from the full one.
    let level = |block: &str| {
        let block: Option<usize> = block.parse().ok();
        block.and_then(|block| levels.checked_sub(block + 1))
    };
    let (place, rest) = match parts[..] {
        [half, "down_blocks", i, "resnets", j, ref rest @ ..] => {
            (format!("{half}.down.{i}.block.{j}"), rest)
        }
        [half, "down_blocks", i, "attentions", j, ref rest @ ..] => {
            (format!("{half}.down.{i}.attn.{j}"), rest)
        }
        [half, "down_blocks", i, "downsamplers", "0", ref rest @ ..] => {
            (format!("{half}.down.{i}.downsample"), rest)
        }
        [half, "mid_block", "resnets", "0", ref rest @ ..] => (format!("{half}.mid.block_1"), rest),
        [half, "mid_block", "resnets", "1", ref rest @ ..] => (format!("{half}.mid.block_2"), rest),
        [half, "mid_block", "attentions", "0", ref rest @ ..] => {
            (format!("{half}.mid.attn_1"), rest)
        }
        [half, "up_blocks", i, part, j, ref rest @ ..] => match (level(i), part) {
            (Some(i), "resnets") => (format!("{half}.up.{i}.block.{j}"), rest),
            (Some(i), "attentions") => (format!("{half}.up.{i}.attn.{j}"), rest),
            (Some(i), "upsamplers") if j == "0" => (format!("{half}.up.{i}.upsample"), rest),
            _ => return name.into(),
        },
        [half, "conv_norm_out", ref rest @ ..] => (format!("{half}.norm_out"), rest),
        _ => return name.into(),
    };
    let attention = place.contains("attn");
    let rest = match rest {
        ["conv_shortcut", end] => format!("nin_shortcut.{end}"),
        // Older files have the words, newer ones the letters.
        ["to_q" | "query", end] if attention => format!("q.{end}"),
        ["to_k" | "key", end] if attention => format!("k.{end}"),
        ["to_v" | "value", end] if attention => format!("v.{end}"),
        ["to_out", "0", end] | ["proj_attn", end] if attention => format!("proj_out.{end}"),
        ["group_norm", end] if attention => format!("norm.{end}"),
        other => other.join("."),
    };
    match rest.is_empty() {
        true => place,
        false => format!("{place}.{rest}"),
    }
}

/// Adds the 1 x 1 convolutions around the latents where they are absent.
fn with_identities(mut weights: Weights) -> Weights {
    for (name, latents) in [
        ("quant_conv", "encoder.conv_out.bias"),
        ("post_quant_conv", "decoder.conv_in.weight"),
    ] {
        // The bias has one axis, the weight has the channels it reads in its second.
        let channels = weights
            .get(latents)
            .and_then(|weight| match *weight.shape() {
                [channels] | [_, channels, ..] => Some(channels),
                _ => None,
            });
        let absent = weights.get(&format!("{name}.weight")).is_none()
            && weights.get(&format!("{name}.bias")).is_none();
        let Some(channels) = channels.filter(|_| absent) else {
            continue;
        };
        let mut identity = vec![0.0; channels * channels];
        identity
            .iter_mut()
            .step_by(channels + 1)
            .for_each(|one| *one = 1.0);
        weights.insert(
            format!("{name}.weight"),
            Weight::new([channels, channels, 1, 1], identity),
        );
        weights.insert(
            format!("{name}.bias"),
            Weight::new([channels], vec![0.0; channels]),
        );
    }
    weights
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn statistics_of_channels_are_used_where_they_are_one() {
        let latents = |json: Value| Fields::deserialize(&json).unwrap().latents();
        let scale = |mean, scale| Some(LatentScale { mean, scale });
        assert_eq!(latents(json!({"scaling_factor": 0.5})), scale(0.0, 0.5));
        let one =
            json!({"scaling_factor": 0.5, "latents_mean": [0.25, 0.25], "latents_std": [2.0, 2.0]});
        assert_eq!(latents(one), scale(0.25, 0.25));
        let several = json!({"scaling_factor": 0.5, "latents_mean": [0.25, 0.5]});
        assert_eq!(latents(several), None, "no one scale: it is measured");
        let null = json!({"scaling_factor": 0.5, "latents_mean": null, "latents_std": null});
        assert_eq!(latents(null), scale(0.0, 0.5));
    }
}
