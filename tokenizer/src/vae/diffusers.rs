//! The same autoencoder under the names that diffusers has for it (`AutoencoderKL`).

use super::config::KlVaeConfig;
use super::infer::NORM_GROUPS;
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
        sizes: DiffusersSizes,
        latents: Option<LatentScale>,
    },
    /// `AutoencoderTiny`
    Tiny,
}

/// What shapes do not tell of a KL-VAE's sizes; what diffusers' `config.json` does not tell either is the released
/// VAEs'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiffusersSizes {
    /// Groups of every group normalization.
    pub norm_groups: Option<usize>,
    /// Side in px of the images that it was made for.
    pub resolution: Option<usize>,
}

/// The fields of an `AutoencoderKL` that matter here.
#[derive(Deserialize)]
struct Fields {
    norm_num_groups: Option<usize>,
    sample_size: Option<Value>,
    scaling_factor: Option<f32>,
    shift_factor: Option<f32>,
    latents_mean: Option<Vec<f32>>,
    latents_std: Option<Vec<f32>>,
}

impl Fields {
    /// The statistics of the latents: `latents_mean` and `latents_std` are of each channel, the rest is of all.
    /// Refuses, in words, what cannot be divided by.
    fn latents(&self) -> std::result::Result<Option<LatentScale>, String> {
        let Some(factor) = self.scaling_factor else {
            return Ok(None);
        };
        let [mean, std] = [(&self.latents_mean, 0.0), (&self.latents_std, 1.0)].map(
            |(values, none): (&Option<Vec<f32>>, f32)| match values.as_deref() {
                None | Some([]) => vec![none],
                Some([first, others @ ..]) if others.iter().all(|value| value == first) => {
                    vec![*first]
                }
                Some(values) => values.to_vec(),
            },
        );
        let channels = mean.len().max(std.len());
        if ![mean.len(), std.len()]
            .iter()
            .all(|count| [1, channels].contains(count))
        {
            return Err(format!("{} and {} values", mean.len(), std.len()));
        }
        let of = |values: &[f32], channel| values[if values.len() == 1 { 0 } else { channel }];
        let shift = self.shift_factor.unwrap_or(0.0);
        let mean: Vec<f32> = (0..channels).map(|at| of(&mean, at) + shift).collect();
        let scale: Vec<f32> = (0..channels).map(|at| factor / of(&std, at)).collect();
        let no_scale = |scale: &&f32| !(scale.is_finite() && **scale > 0.0);
        let no_mean = |mean: &&f32| !mean.is_finite();
        match scale.iter().find(no_scale).or(mean.iter().find(no_mean)) {
            Some(bad) => Err(bad.to_string()),
            None => Ok(Some(LatentScale {
                mean: mean.into(),
                scale: scale.into(),
            })),
        }
    }

    /// The side of `sample_size`, which is one number or that of each side.
    fn resolution(&self) -> Option<usize> {
        let side = |value: &Value| usize::try_from(value.as_u64()?).ok();
        match self.sample_size.as_ref()? {
            Value::Array(sides) => match &sides[..] {
                [height, width] if height == width => side(height),
                _ => None,
            },
            one => side(one),
        }
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
                    sizes: DiffusersSizes {
                        norm_groups: fields.norm_num_groups,
                        resolution: fields.resolution(),
                    },
                    latents: fields.latents().map_err(|found| Error::LatentStatistics {
                        path: path.into(),
                        expected: "as many finite numbers of each, and a scale above 0".into(),
                        found,
                    })?,
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
    /// When a tensor is missing, unexpected or misshapen: it is named as diffusers names it.
    pub fn from_diffusers(
        weights: Weights,
        sizes: &DiffusersSizes,
        device: &Device,
    ) -> Result<Self> {
        let names = Names::of(&weights);
        let weights = with_identities(with_reference_names(weights, names.levels));
        let network = || {
            let groups = sizes.norm_groups.unwrap_or(NORM_GROUPS);
            let mut config = KlVaeConfig::infer_with(groups, &weights)?;
            // Others are of pictures that this network has no latents of.
            if let Some(side) = sizes
                .resolution
                .filter(|side| config.fits_resolution(*side))
            {
                config = config.at_resolution(side);
            }
            Self::from_weights(&config, &weights, device)
        };
        network().map_err(|error| names.in_error(error))
    }

    /// The weights of the network alone: the loss of latent diffusion's trainer is saved beside it.
    pub(crate) fn without_training_parts(mut weights: Weights) -> Weights {
        weights.take_prefix("loss.");
        weights
    }
}

/// How a file has the names that the reference has, for what it lacks.
struct Names {
    levels: usize,
    /// Whether the attention's maps are called by words, as in older files.
    words: bool,
}

impl Names {
    fn of(weights: &Weights) -> Self {
        let level = |level: &usize| {
            let name = format!("encoder.down_blocks.{level}.resnets.0.conv1.weight");
            weights.get(&name).is_some()
        };
        Self {
            levels: (0..).take_while(level).count(),
            words: weights.iter().any(|(name, _)| name.contains(".query.")),
        }
    }

    /// An error with the file's names in the place of the reference's.
    fn in_error(&self, error: Error) -> Error {
        match error {
            Error::Weights(tessera_weights::Error::Mismatch(mut mismatch)) => {
                for missing in &mut mismatch.missing {
                    missing.name = self.of_diffusers(&missing.name);
                }
                Error::Weights(tessera_weights::Error::Mismatch(mismatch))
            }
            Error::Infer {
                file,
                name,
                expected,
                found,
            } => Error::Infer {
                file,
                name: self.of_diffusers(&name),
                expected,
                found,
            },
            other => other,
        }
    }

    /// Diffusers' name of a tensor: the inverse of [`reference_name`].
    fn of_diffusers(&self, name: &str) -> String {
        let parts: Vec<&str> = name.split('.').collect();
        let level = |level: &str| {
            let level: Option<usize> = level.parse().ok();
            level.and_then(|level| self.levels.checked_sub(level + 1))
        };
        let (place, rest) = match parts[..] {
            [half, "down", i, "block", j, ref rest @ ..] => {
                (format!("{half}.down_blocks.{i}.resnets.{j}"), rest)
            }
            [half, "down", i, "attn", j, ref rest @ ..] => {
                (format!("{half}.down_blocks.{i}.attentions.{j}"), rest)
            }
            [half, "down", i, "downsample", ref rest @ ..] => {
                (format!("{half}.down_blocks.{i}.downsamplers.0"), rest)
            }
            [half, "mid", "block_1", ref rest @ ..] => {
                (format!("{half}.mid_block.resnets.0"), rest)
            }
            [half, "mid", "block_2", ref rest @ ..] => {
                (format!("{half}.mid_block.resnets.1"), rest)
            }
            [half, "mid", "attn_1", ref rest @ ..] => {
                (format!("{half}.mid_block.attentions.0"), rest)
            }
            [half, "up", i, ref rest @ ..] => match (level(i), rest) {
                (Some(i), ["block", j, rest @ ..]) => {
                    (format!("{half}.up_blocks.{i}.resnets.{j}"), rest)
                }
                (Some(i), ["attn", j, rest @ ..]) => {
                    (format!("{half}.up_blocks.{i}.attentions.{j}"), rest)
                }
                (Some(i), ["upsample", rest @ ..]) => {
                    (format!("{half}.up_blocks.{i}.upsamplers.0"), rest)
                }
                _ => return name.into(),
            },
            [half, "norm_out", ref rest @ ..] => (format!("{half}.conv_norm_out"), rest),
            _ => return name.into(),
        };
        let attention = place.contains(".attentions.");
        let rest = match rest {
            ["nin_shortcut", end] => format!("conv_shortcut.{end}"),
            ["q", end] if attention && self.words => format!("query.{end}"),
            ["k", end] if attention && self.words => format!("key.{end}"),
            ["v", end] if attention && self.words => format!("value.{end}"),
            ["proj_out", end] if attention && self.words => format!("proj_attn.{end}"),
            [map @ ("q" | "k" | "v"), end] if attention => format!("to_{map}.{end}"),
            ["proj_out", end] if attention => format!("to_out.0.{end}"),
            ["norm", end] if attention => format!("group_norm.{end}"),
            other => other.join("."),
        };
        format!("{place}.{rest}")
    }
}

/// Translates every name, and the attention's maps from matrices to 1 x 1 convolutions.
fn with_reference_names(weights: Weights, levels: usize) -> Weights {
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
    fn statistics_of_channels_are_used() {
        let latents = |json: Value| Fields::deserialize(&json).unwrap().latents();
        let scale = |mean: &[f32], scale: &[f32]| {
            Ok(Some(LatentScale {
                mean: mean.to_vec().into(),
                scale: scale.to_vec().into(),
            }))
        };
        assert_eq!(latents(json!({})), Ok(None));
        assert_eq!(
            latents(json!({"scaling_factor": 0.5})),
            scale(&[0.0], &[0.5])
        );
        let one =
            json!({"scaling_factor": 0.5, "latents_mean": [0.25, 0.25], "latents_std": [2.0, 2.0]});
        assert_eq!(latents(one), scale(&[0.25], &[0.25]));
        let several =
            json!({"scaling_factor": 0.5, "latents_mean": [0.25, 0.5], "shift_factor": 1.0});
        assert_eq!(latents(several), scale(&[1.25, 1.5], &[0.5, 0.5]));
        let both =
            json!({"scaling_factor": 0.5, "latents_mean": [0.25, 0.5], "latents_std": [2.0, 4.0]});
        assert_eq!(latents(both), scale(&[0.25, 0.5], &[0.25, 0.125]));
        let null = json!({"scaling_factor": 0.5, "latents_mean": null, "latents_std": null});
        assert_eq!(latents(null), scale(&[0.0], &[0.5]));
        let zero = json!({"scaling_factor": 0.5, "latents_std": [2.0, 0.0]});
        assert!(latents(zero).is_err());
        let unlike = json!({"scaling_factor": 0.5, "latents_mean": [1.0, 2.0], "latents_std": [1.0, 2.0, 3.0]});
        assert_eq!(latents(unlike), Err("2 and 3 values".into()));
    }

    #[test]
    fn names_go_there_and_back() {
        let device = Device::flex();
        let config = KlVaeConfig {
            attn_resolutions: vec![64],
            decoder_attn_resolutions: vec![64],
            ..KlVaeConfig::small(3, 256, 8, &[1, 1, 2], 1, 4)
        };
        let shapes = Weights::shapes_of(&config.init(0, &device).unwrap());
        for words in [false, true] {
            let names = Names { levels: 3, words };
            for name in shapes.keys() {
                let there = names.of_diffusers(name);
                assert_eq!(reference_name(&there, 3), *name, "{there}");
            }
            assert_ne!(
                names.of_diffusers("encoder.mid.attn_1.q.bias"),
                "encoder.mid.attn_1.q.bias"
            );
        }
    }

    #[test]
    fn the_side_of_a_sample_is_a_number_or_two_equal_ones() {
        let side = |json: Value| Fields::deserialize(&json).unwrap().resolution();
        assert_eq!(side(json!({"sample_size": 64})), Some(64));
        assert_eq!(side(json!({"sample_size": [64, 64]})), Some(64));
        assert_eq!(side(json!({"sample_size": [64, 32]})), None);
        assert_eq!(side(json!({"sample_size": null})), None);
        assert_eq!(side(json!({})), None);
    }
}
