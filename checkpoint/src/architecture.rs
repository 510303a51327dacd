//! What a file of weights is of, by the names of its tensors: so that a wrong file is called what it is.

use std::collections::BTreeSet;
use std::fmt;

/// What weights are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Model, averages and moments of a training run of this workspace.
    RunCheckpoint,
    /// The autoregressive generator of TokenBridge.
    TokenBridge,
    /// MAR, whose head is a diffusion loss.
    Mar,
    /// A VQGAN.
    Vqgan,
    /// A KL-VAE under latent diffusion's names.
    KlVae,
    /// A KL-VAE under the names of diffusers.
    AutoencoderKl,
    /// A tiny autoencoder under the names of diffusers.
    AutoencoderTiny,
    /// A tiny autoencoder under its own names.
    TinyAutoencoder,
    /// The encoder of one alone.
    TinyEncoder,
    /// The decoder of one alone.
    TinyDecoder,
    /// A diffusion transformer, dense or with experts.
    Dit,
    /// The classifier that pictures are evaluated with.
    Classifier,
    /// Latents that were encoded before.
    LatentCache,
    /// Discrete tokens of pictures.
    Tokens,
    /// A whole Stable Diffusion checkpoint.
    StableDiffusion,
    /// The UNet of a diffusion model.
    Unet,
    /// VAR.
    Var,
    /// LlamaGen.
    LlamaGen,
    /// The transformer of FLUX.
    Flux,
    /// A CLIP text encoder.
    Clip,
    /// A ResNet.
    ResNet,
}

/// Names that each must begin one of the tensors' names. The first architecture that fits counts.
pub(crate) const SIGNATURES: &[(Architecture, &[&str])] = &[
    (
        Architecture::RunCheckpoint,
        &["model.", "exp_avg.", "exp_avg_sq."],
    ),
    (
        Architecture::TokenBridge,
        &["fake_latent", "mask_token", "channel_heads.0."],
    ),
    (
        Architecture::Mar,
        &["fake_latent", "mask_token", "diffloss."],
    ),
    (
        Architecture::Vqgan,
        &["encoder.down.0.", "decoder.up.0.", "quantize."],
    ),
    (
        Architecture::KlVae,
        &["encoder.down.0.", "decoder.up.0.", "post_quant_conv."],
    ),
    (
        Architecture::AutoencoderKl,
        &["encoder.down_blocks.0.", "decoder.up_blocks.0."],
    ),
    (
        Architecture::AutoencoderTiny,
        &["encoder.layers.0.", "decoder.layers.0."],
    ),
    (
        Architecture::TinyAutoencoder,
        &["encoder.1.conv.0.", "decoder.3.conv.0."],
    ),
    (Architecture::TinyEncoder, &["0.weight", "1.conv.0.", "14."]),
    (Architecture::TinyDecoder, &["1.weight", "3.conv.0.", "19."]),
    (
        Architecture::Dit,
        &[
            "x_embedder.proj.",
            "t_embedder.mlp.",
            "y_embedder.",
            "blocks.0.adaLN_modulation.",
        ],
    ),
    (
        Architecture::Classifier,
        &["conv_in.", "stages.0.", "project.", "head."],
    ),
    (Architecture::LatentCache, &["moments", "labels"]),
    (Architecture::Tokens, &["ids"]),
    (
        Architecture::StableDiffusion,
        &["model.diffusion_model.", "first_stage_model."],
    ),
    (
        Architecture::Unet,
        &["time_embedding.", "down_blocks.0.", "mid_block."],
    ),
    (
        Architecture::Var,
        &["lvl_embed.", "word_embed.", "blocks.0."],
    ),
    (
        Architecture::LlamaGen,
        &["cls_embedding.", "tok_embeddings.", "layers.0."],
    ),
    (
        Architecture::Flux,
        &["double_blocks.0.", "single_blocks.0."],
    ),
    (Architecture::Clip, &["text_model.encoder."]),
    (
        Architecture::ResNet,
        &["layer1.0.conv1.", "layer4.0.conv1.", "fc."],
    ),
];

impl Architecture {
    /// The rank of what has no model here.
    pub(crate) const FOREIGN: u8 = 3;

    /// The order in which weights of several kinds in one file are taken.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::TokenBridge | Self::Dit => 0,
            Self::Classifier => 2,
            tokenizer if tokenizer.is_tokenizer() => 1,
            _ => Self::FOREIGN,
        }
    }

    /// Whether it is what a whole file is, and never a part of one.
    pub(crate) fn is_a_file(self) -> bool {
        matches!(
            self,
            Self::RunCheckpoint | Self::LatentCache | Self::Tokens | Self::StableDiffusion
        )
    }

    /// What the names of tensors give away, if anything.
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let names: BTreeSet<&str> = names.into_iter().collect();
        let begins = |start: &&str| {
            let mut after = names.range(*start..);
            after.next().is_some_and(|name| name.starts_with(start))
        };
        let fits = |(_, starts): &&(Self, &[&str])| starts.iter().all(begins);
        SIGNATURES
            .iter()
            .find(fits)
            .map(|(architecture, _)| *architecture)
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::RunCheckpoint => "checkpoint of a run",
            Self::TokenBridge => "TokenBridge generator",
            Self::Mar => "MAR generator",
            Self::Vqgan => "VQGAN",
            Self::KlVae => "KL-VAE",
            Self::AutoencoderKl => "AutoencoderKL (diffusers)",
            Self::AutoencoderTiny => "AutoencoderTiny (diffusers)",
            Self::TinyAutoencoder => "tiny autoencoder",
            Self::TinyEncoder => "encoder of a tiny autoencoder",
            Self::TinyDecoder => "decoder of a tiny autoencoder",
            Self::Dit => "DiT",
            Self::Classifier => "judge",
            Self::LatentCache => "cached latents",
            Self::Tokens => "tokens",
            Self::StableDiffusion => "Stable Diffusion checkpoint",
            Self::Unet => "UNet of a diffusion model (diffusers)",
            Self::Var => "VAR generator",
            Self::LlamaGen => "LlamaGen generator",
            Self::Flux => "FLUX transformer",
            Self::Clip => "CLIP text encoder",
            Self::ResNet => "ResNet",
        }
    }

    /// Whether it is a tokenizer that is known here, or a half of one.
    pub fn is_tokenizer(self) -> bool {
        matches!(
            self,
            Self::KlVae
                | Self::AutoencoderKl
                | Self::AutoencoderTiny
                | Self::TinyAutoencoder
                | Self::TinyEncoder
                | Self::TinyDecoder
        )
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// As its name.
impl serde::Serialize for Architecture {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_by_what_it_holds() {
        let dit = [
            "x_embedder.proj.weight",
            "t_embedder.mlp.0.weight",
            "y_embedder.embedding_table.weight",
        ];
        assert_eq!(Architecture::of_names(dit), None, "a DiT has blocks");
        assert_eq!(
            Architecture::of_names(
                dit.into_iter()
                    .chain(["blocks.0.adaLN_modulation.1.weight"])
            ),
            Some(Architecture::Dit)
        );
        let vae = [
            "encoder.down.0.block.0.conv1.weight",
            "decoder.up.0.block.0.conv1.weight",
        ];
        assert_eq!(
            Architecture::of_names(vae.into_iter().chain(["post_quant_conv.bias"])),
            Some(Architecture::KlVae)
        );
        let vqgan = ["post_quant_conv.bias", "quantize.embedding.weight"];
        assert_eq!(
            Architecture::of_names(vae.into_iter().chain(vqgan)),
            Some(Architecture::Vqgan)
        );
        assert_eq!(Architecture::of_names([]), None);
    }
}
