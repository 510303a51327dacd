//! What a config says of the size of a KL-VAE, held against its weights.

use burn::module::Module;
use burn::tensor::Device;
use tessera_tokenizer::{KlVae, KlVaeConfig};
use tessera_weights::WeightDtype;

/// Two levels with attention at each of the places that can have one, on 16 px images.
fn tiny() -> KlVaeConfig {
    KlVaeConfig {
        attn_resolutions: vec![8],
        decoder_attn_resolutions: vec![16],
        ..KlVaeConfig::small(3, 16, 8, &[1, 2], 1, 4)
    }
}

#[test]
fn sizes_count_what_their_network_has_without_making_it() {
    for config in [
        KlVaeConfig::kl16(),
        tiny(),
        KlVaeConfig {
            attn_resolutions: vec![32, 8],
            decoder_attn_resolutions: vec![16, 8],
            ..KlVaeConfig::small(1, 32, 8, &[2, 1, 3], 3, 5)
        },
    ] {
        let network = config.init(0, &Device::flex()).unwrap();
        assert_eq!(config.elements().unwrap(), network.num_params() as u64);
    }
}

#[test]
fn sizes_that_claim_more_than_the_weights_hold_are_refused_before_a_network_is_made() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let vae = tiny().init(0, &device).unwrap();
    vae.save_dir(folder.path(), WeightDtype::F32).unwrap();
    let refused = |change: fn(&mut KlVaeConfig)| {
        let mut config = tiny();
        change(&mut config);
        let json = serde_json::to_vec(&config).unwrap();
        std::fs::write(folder.path().join("config.json"), json).unwrap();
        let error = KlVae::load_dir(folder.path(), &device).unwrap_err();
        error.to_string()
    };
    let held = vae.num_params();
    for far in [
        refused(|c| c.num_res_blocks = 65_536),
        refused(|c| c.num_res_blocks = usize::MAX),
        refused(|c| c.ch = 1 << 40),
        refused(|c| c.z_channels = 1 << 62),
    ] {
        let [config, weights] =
            ["config.json", "model.safetensors"].map(|name| folder.path().join(name));
        let start = format!("{}: describes a model of ", config.display());
        let end = format!("parameters; {} holds {held}", weights.display());
        assert!(far.starts_with(&start) && far.ends_with(&end), "{far}");
    }
    assert!(refused(|c| c.resolution = 1 << 40).contains("resolution: expected at most 16384"));
    let near = refused(|c| c.num_res_blocks = 2);
    assert!(near.contains("missing (`decoder.up.0.attn.2."), "{near}");
}
