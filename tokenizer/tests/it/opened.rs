//! Tokenizers from the files that people have: diffusers' folders, single files, files of each half.

use burn::tensor::{Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use tessera_backend::Rng;
use tessera_tokenizer::{
    Error, ImageTokenizer, KlVae, KlVaeConfig, LatentScale, TinyAutoencoderConfig, open_tokenizer,
};
use tessera_weights::{Weight, WeightDtype, Weights};

/// Three levels of two widths, so that a level's number in diffusers' decoder is another, with shortcuts and attention.
fn vae() -> KlVae {
    let config = KlVaeConfig {
        attn_resolutions: vec![64],
        decoder_attn_resolutions: vec![64],
        norm_groups: 8,
        ..KlVaeConfig::small(3, 256, 32, &[1, 1, 2], 1, 4)
    };
    config.init(11, &Device::flex()).unwrap()
}

/// Diffusers' name of each tensor of [`vae`], written down by hand.
fn diffusers_name(name: &str) -> String {
    let table = [
        ("down.0.block.", "down_blocks.0.resnets."),
        ("down.1.block.", "down_blocks.1.resnets."),
        ("down.2.block.", "down_blocks.2.resnets."),
        (
            "down.2.attn.0.norm.",
            "down_blocks.2.attentions.0.group_norm.",
        ),
        ("down.2.attn.0.q.", "down_blocks.2.attentions.0.to_q."),
        ("down.2.attn.0.k.", "down_blocks.2.attentions.0.to_k."),
        ("down.2.attn.0.v.", "down_blocks.2.attentions.0.to_v."),
        (
            "down.2.attn.0.proj_out.",
            "down_blocks.2.attentions.0.to_out.0.",
        ),
        ("down.0.downsample.", "down_blocks.0.downsamplers.0."),
        ("down.1.downsample.", "down_blocks.1.downsamplers.0."),
        ("mid.block_1.", "mid_block.resnets.0."),
        ("mid.block_2.", "mid_block.resnets.1."),
        ("mid.attn_1.norm.", "mid_block.attentions.0.group_norm."),
        ("mid.attn_1.q.", "mid_block.attentions.0.query."),
        ("mid.attn_1.k.", "mid_block.attentions.0.key."),
        ("mid.attn_1.v.", "mid_block.attentions.0.value."),
        ("mid.attn_1.proj_out.", "mid_block.attentions.0.proj_attn."),
        ("up.0.block.", "up_blocks.2.resnets."),
        ("up.1.block.", "up_blocks.1.resnets."),
        ("up.2.block.", "up_blocks.0.resnets."),
        ("up.2.attn.0.norm.", "up_blocks.0.attentions.0.group_norm."),
        ("up.2.attn.1.norm.", "up_blocks.0.attentions.1.group_norm."),
        ("up.2.attn.0.q.", "up_blocks.0.attentions.0.to_q."),
        ("up.2.attn.0.k.", "up_blocks.0.attentions.0.to_k."),
        ("up.2.attn.0.v.", "up_blocks.0.attentions.0.to_v."),
        (
            "up.2.attn.0.proj_out.",
            "up_blocks.0.attentions.0.to_out.0.",
        ),
        ("up.2.attn.1.q.", "up_blocks.0.attentions.1.to_q."),
        ("up.2.attn.1.k.", "up_blocks.0.attentions.1.to_k."),
        ("up.2.attn.1.v.", "up_blocks.0.attentions.1.to_v."),
        (
            "up.2.attn.1.proj_out.",
            "up_blocks.0.attentions.1.to_out.0.",
        ),
        ("up.1.upsample.", "up_blocks.1.upsamplers.0."),
        ("up.2.upsample.", "up_blocks.0.upsamplers.0."),
        ("norm_out.", "conv_norm_out."),
        ("nin_shortcut.", "conv_shortcut."),
    ];
    table.iter().fold(name.to_owned(), |name, (ours, theirs)| {
        name.replace(ours, theirs)
    })
}

/// The weights as diffusers has them: other names, and attention's maps as matrices.
fn as_diffusers(vae: &KlVae, skip: &str) -> Weights {
    let mut renamed = Weights::default();
    for (name, weight) in Weights::of(vae)
        .iter()
        .filter(|(name, _)| skip.is_empty() || !name.contains(skip))
    {
        let name = diffusers_name(name);
        let matrix = name.contains(".attentions.") && weight.shape().len() == 4;
        let weight = match matrix {
            true => weight.clone().reshaped(&weight.shape()[..2]).unwrap(),
            false => weight.clone(),
        };
        renamed.insert(name, weight);
    }
    renamed
}

const CONFIG: &str = r#"{"_class_name": "AutoencoderKL", "norm_num_groups": 8, "scaling_factor": 0.5, "shift_factor": 0.25}"#;

fn save(folder: &Path, weights: &Weights, config: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let file = folder.join("diffusion_pytorch_model.safetensors");
    weights
        .write(file, BTreeMap::new(), WeightDtype::F32)
        .unwrap();
    std::fs::write(folder.join("config.json"), config).unwrap();
}

fn round_trip(tokenizer: &dyn ImageTokenizer, side: usize) -> Vec<f32> {
    let device = Device::flex();
    let images = Rng::new(5, 0).uniform_tensor([1, 3, side, side], &device) * 2.0 - 1.0;
    let latents: Tensor<4> = tokenizer.encode(images);
    tokenizer.decode(latents).into_data().iter().collect()
}

#[test]
fn an_autoencoder_under_diffusers_names_is_the_same_network() {
    let (folder, vae, device) = (tempfile::tempdir().unwrap(), vae(), Device::flex());
    let pipeline = folder.path().join("pipeline");
    save(&pipeline.join("vae"), &as_diffusers(&vae, ""), CONFIG);
    for path in [
        pipeline.clone(),
        pipeline.join("vae"),
        pipeline.join("vae/diffusion_pytorch_model.safetensors"),
    ] {
        let opened = open_tokenizer(&path, None, &device).unwrap();
        assert_eq!(
            opened.latents,
            Some(LatentScale {
                mean: vec![0.25].into(),
                scale: vec![0.5].into()
            }),
            "{}",
            path.display()
        );
        assert_eq!(
            round_trip(&*opened.tokenizer, 32),
            round_trip(&vae, 32),
            "{}",
            path.display()
        );
    }
}

/// Newer models have no convolutions around the latents, which is as if they were the identity.
#[test]
fn absent_convolutions_around_the_latents_are_the_identity() {
    let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex());
    let mut weights = Weights::of(&vae());
    for (name, channels) in [("quant_conv", 8), ("post_quant_conv", 4)] {
        let identity = (0..channels * channels)
            .map(|i| f32::from(i % (channels + 1) == 0))
            .collect();
        weights.insert(
            format!("{name}.weight"),
            Weight::new([channels, channels, 1, 1], identity),
        );
        weights.insert(
            format!("{name}.bias"),
            Weight::new([channels], vec![0.0; channels]),
        );
    }
    let expected = KlVae::from_weights(vae().config(), &weights, &device).unwrap();
    save(
        folder.path(),
        &as_diffusers(&expected, "quant_conv"),
        CONFIG,
    );
    let opened = open_tokenizer(folder.path(), None, &device).unwrap();
    assert_eq!(
        round_trip(&*opened.tokenizer, 16),
        round_trip(&expected, 16)
    );
}

#[test]
fn what_is_missing_or_of_another_kind_is_named() {
    let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex());
    let mut weights = as_diffusers(&vae(), "");
    weights.take("decoder.conv_norm_out.bias");
    save(folder.path(), &weights, CONFIG);
    let error = open_tokenizer(folder.path(), None, &device)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`decoder.conv_norm_out.bias`") && error.contains("diffusion_pytorch_model"),
        "{error}"
    );

    save(folder.path(), &weights, r#"{"_class_name": "VQModel"}"#);
    let error = open_tokenizer(folder.path(), None, &device).unwrap_err();
    assert!(
        matches!(&error, Error::TokenizerKind { found, .. } if found == "VQModel"),
        "{error}"
    );

    let mut other = Weights::default();
    for name in [
        "x_embedder.proj.weight",
        "t_embedder.mlp.0.weight",
        "y_embedder.x",
        "blocks.0.adaLN_modulation.1.bias",
    ] {
        other.insert(name, Weight::new([1], vec![0.0]));
    }
    let file = folder.path().join("dit.safetensors");
    other
        .write(&file, BTreeMap::new(), WeightDtype::F32)
        .unwrap();
    let error = open_tokenizer(&file, None, &device)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("dit.safetensors") && error.contains("looks like a DiT"),
        "{error}"
    );
}

#[test]
fn two_files_of_a_tiny_autoencoder_are_found_by_their_common_name() {
    let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex());
    let tiny = TinyAutoencoderConfig::taesd().init(3, &device).unwrap();
    let mut weights = Weights::of(&tiny);
    for half in ["encoder", "decoder"] {
        let file = folder.path().join(format!("taesd_{half}.safetensors"));
        let half = weights.take_prefix(&format!("{half}."));
        half.write(file, BTreeMap::new(), WeightDtype::F32).unwrap();
    }
    for name in [
        "taesd.safetensors",
        "taesd_encoder.safetensors",
        "taesd_decoder.safetensors",
    ] {
        let opened = open_tokenizer(folder.path().join(name), None, &device).unwrap();
        assert_eq!(opened.files.len(), 2);
        assert_eq!(opened.latents, Some(LatentScale::UNIT));
        assert_eq!(round_trip(&*opened.tokenizer, 16), round_trip(&tiny, 16));
    }
    let opened = open_tokenizer(folder.path(), None, &device).unwrap();
    assert_eq!(opened.files.len(), 2, "the folder has both");
    std::fs::remove_file(folder.path().join("taesd_decoder.safetensors")).unwrap();
    for alone in [
        folder.path(),
        &folder.path().join("taesd_encoder.safetensors"),
    ] {
        let error = open_tokenizer(alone, None, &device)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("its decoder is missing, expected as"),
            "{error}"
        );
        assert!(error.contains("taesd_decoder.safetensors"), "{error}");
    }
    let error = open_tokenizer(folder.path().join("taesd.safetensors"), None, &device).unwrap_err();
    assert!(error.to_string().contains("taesd.safetensors"), "{error}");
}

#[test]
fn one_half_of_a_kl_vae_is_called_that_and_a_missing_tensor_by_its_name_in_the_file() {
    let (folder, vae, device) = (tempfile::tempdir().unwrap(), vae(), Device::flex());
    let refused = |name: &str, weights: &Weights| {
        let folder = folder.path().join(name);
        save(&folder, weights, CONFIG);
        open_tokenizer(&folder, None, &device)
            .unwrap_err()
            .to_string()
    };
    for (kept, other) in [("encoder", "decoder"), ("decoder", "encoder")] {
        for (name, mut whole) in [
            ("of-diffusers", as_diffusers(&vae, "")),
            ("ours", Weights::of(&vae)),
        ] {
            let half = whole.take_prefix(&format!("{kept}."));
            let mut prefixed = whole.emptied();
            prefixed.insert_prefixed(&format!("{kept}."), half.clone());
            for half in [prefixed, half] {
                let error = refused(&format!("{name}-{kept}"), &half);
                let expected =
                    format!("is the {kept} of a KL-VAE alone, expected one with its {other}");
                assert!(error.contains(&expected), "{error}");
            }
        }
    }
    let lacking = |name: &str| {
        let mut weights = as_diffusers(&vae, "");
        weights.take(name).unwrap();
        refused("lacking", &weights)
    };
    for name in [
        "decoder.up_blocks.2.resnets.0.conv1.weight",
        "encoder.down_blocks.2.attentions.0.group_norm.bias",
        "encoder.mid_block.resnets.1.conv2.bias",
        "encoder.conv_norm_out.weight",
    ] {
        let error = lacking(name);
        assert!(error.contains(&format!("1 missing (`{name}`")), "{error}");
    }
    assert!(lacking("encoder.conv_in.weight").contains("`encoder.conv_in.weight` is absent"));
}

#[test]
fn statistics_and_the_side_of_a_diffusers_config_are_those_of_the_tokenizer() {
    let (folder, vae, device) = (tempfile::tempdir().unwrap(), vae(), Device::flex());
    let weights = as_diffusers(&vae, "");
    let open = |fields: &str| {
        let config = CONFIG.replace("{\"_class", &format!("{{{fields}, \"_class"));
        save(folder.path(), &weights, &config);
        open_tokenizer(folder.path(), None, &device)
    };
    let opened = open(r#""latents_mean": [0.0, 1.0, 2.0, 3.0], "sample_size": 64"#).unwrap();
    let latents = opened.latents.unwrap();
    assert_eq!(*latents.mean, [0.25, 1.25, 2.25, 3.25]);
    assert_eq!(*latents.scale, [0.5; 4]);
    assert_eq!(opened.tokenizer.resolution(), Some(64));
    assert_eq!(round_trip(&*opened.tokenizer, 32), round_trip(&vae, 32));
    // No side that this network has latents of.
    let odd = open(r#""sample_size": 66"#).unwrap();
    assert_eq!(odd.tokenizer.resolution(), Some(256));
    let error = open(r#""latents_mean": [0.0, 1.0]"#)
        .unwrap_err()
        .to_string();
    let expected = "latents_std or scaling_factor: expected 4 values, one of each channel, found 2";
    assert!(error.ends_with(expected), "{error}");
}
