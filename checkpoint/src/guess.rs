//! What a file of weights is of, by the names of its tensors: so that a wrong file is called what it is.

use std::collections::BTreeSet;

/// What each is called, and names that all must begin one of the tensors' names. The first that fits counts.
const SIGNATURES: &[(&str, &[&str])] = &[
    (
        "checkpoint of a run",
        &["model.", "exp_avg.", "exp_avg_sq."],
    ),
    (
        "TokenBridge generator",
        &["fake_latent", "mask_token", "channel_heads.0."],
    ),
    ("MAR generator", &["fake_latent", "mask_token", "diffloss."]),
    ("VQGAN", &["encoder.down.0.", "decoder.up.0.", "quantize."]),
    (
        "KL-VAE",
        &["encoder.down.0.", "decoder.up.0.", "post_quant_conv."],
    ),
    (
        "AutoencoderKL (diffusers)",
        &["encoder.down_blocks.0.", "decoder.up_blocks.0."],
    ),
    (
        "AutoencoderTiny (diffusers)",
        &["encoder.layers.0.", "decoder.layers.0."],
    ),
    (
        "tiny autoencoder",
        &["encoder.1.conv.0.", "decoder.3.conv.0."],
    ),
    (
        "encoder of a tiny autoencoder",
        &["0.weight", "1.conv.0.", "14."],
    ),
    (
        "decoder of a tiny autoencoder",
        &["1.weight", "3.conv.0.", "19."],
    ),
    (
        "DiT",
        &[
            "x_embedder.proj.",
            "t_embedder.mlp.",
            "y_embedder.",
            "blocks.0.adaLN_modulation.",
        ],
    ),
    ("judge", &["conv_in.", "stages.0.", "project.", "head."]),
    ("cached latents", &["moments", "labels"]),
    ("tokens", &["ids"]),
    (
        "Stable Diffusion checkpoint",
        &["model.diffusion_model.", "first_stage_model."],
    ),
    (
        "UNet of a diffusion model (diffusers)",
        &["time_embedding.", "down_blocks.0.", "mid_block."],
    ),
    ("VAR generator", &["lvl_embed.", "word_embed.", "blocks.0."]),
    (
        "LlamaGen generator",
        &["cls_embedding.", "tok_embeddings.", "layers.0."],
    ),
    (
        "FLUX transformer",
        &["double_blocks.0.", "single_blocks.0."],
    ),
    ("CLIP text encoder", &["text_model.encoder."]),
    ("ResNet", &["layer1.0.conv1.", "layer4.0.conv1.", "fc."]),
];

/// What the names give away, if anything.
pub fn guess<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    let names: BTreeSet<&str> = names.into_iter().collect();
    let begins = |start: &&str| {
        names
            .range(*start..)
            .next()
            .is_some_and(|name| name.starts_with(start))
    };
    SIGNATURES
        .iter()
        .find(|(_, starts)| starts.iter().all(begins))
        .map(|(what, _)| *what)
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
        assert_eq!(guess(dit), None, "a DiT has blocks");
        assert_eq!(
            guess(
                dit.into_iter()
                    .chain(["blocks.0.adaLN_modulation.1.weight"])
            ),
            Some("DiT")
        );
        let vae = [
            "encoder.down.0.block.0.conv1.weight",
            "decoder.up.0.block.0.conv1.weight",
        ];
        assert_eq!(
            guess(vae.into_iter().chain(["post_quant_conv.bias"])),
            Some("KL-VAE")
        );
        let vqgan = ["post_quant_conv.bias", "quantize.embedding.weight"];
        assert_eq!(guess(vae.into_iter().chain(vqgan)), Some("VQGAN"));
        assert_eq!(guess([]), None);
    }
}
