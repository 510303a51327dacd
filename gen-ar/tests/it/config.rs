//! The paper's sizes, and what a config refuses.

use burn::module::Module;
use burn::tensor::Device;
use tessera_gen_ar::{Error, GenAr, GenArConfig, TransformerConfig, default_channel_order};
use tessera_moe::MoeConfig;

#[test]
fn the_presets_have_the_parameters_of_the_released_models() {
    let presets = [
        (GenArConfig::tokenbridge_b(), 218_024_704),
        (GenArConfig::tokenbridge_l(), 486_889_472),
        (GenArConfig::tokenbridge_h(), 910_040_576),
    ];
    for (config, parameters) in presets {
        let model = config.init(&vec![0.0; config.levels], 0, &Device::flex());
        assert_eq!(model.num_trainable(), parameters);
    }
}

#[test]
fn a_config_survives_json() {
    let config = GenArConfig::tokenbridge_l();
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<GenArConfig>(&json).unwrap(), config);
}

#[test]
fn a_config_that_no_model_can_have_is_refused_by_field() {
    let good = super::tiny::config();
    good.validate().unwrap();
    let refused = |change: fn(&mut GenArConfig)| {
        let mut config = good.clone();
        change(&mut config);
        match config.validate().unwrap_err() {
            Error::Config { field, .. } => field,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused(|c| c.grid = [0, 4]), "grid");
    assert_eq!(refused(|c| c.levels = 1), "levels");
    assert_eq!(refused(|c| c.channel_levels = vec![4, 4]), "channel_levels");
    assert_eq!(
        refused(|c| c.channel_levels = vec![4; c.token_embed_dim]),
        "channel_levels"
    );
    assert_eq!(refused(|c| c.dims_per_step = 0), "dims_per_step");
    assert_eq!(
        refused(|c| c.dims_per_step = c.token_embed_dim + 1),
        "dims_per_step"
    );
    assert_eq!(
        refused(|c| c.dec = TransformerConfig {
            width: 30,
            depth: 2,
            heads: 4
        }),
        "dec"
    );
    assert_eq!(refused(|c| c.ch.depth = 0), "ch");
    assert_eq!(
        refused(|c| c.channel_order = vec![0, 1, 2, 3, 3]),
        "channel_order"
    );
    assert_eq!(
        refused(|c| c.channel_order = vec![0, 1, 2, 3]),
        "channel_order"
    );
    assert_eq!(refused(|c| c.mask_ratio_min = f32::NAN), "mask_ratio_min");
    assert_eq!(refused(|c| c.attn_dropout = 1.0), "attn_dropout");
}

#[test]
fn the_default_order_is_the_papers_for_16_dimensions_only() {
    let mut sorted = default_channel_order(16);
    assert_eq!(sorted[..3], [8, 1, 10]);
    sorted.sort_unstable();
    assert_eq!(sorted, (0..16).collect::<Vec<_>>());
    assert_eq!(default_channel_order(3), [0, 1, 2]);
}

#[test]
fn weights_depend_on_the_seed_alone() {
    let config = super::tiny::config();
    let init = |seed| {
        config
            .init(&super::tiny::values(8), seed, &Device::flex())
            .weights()
    };
    assert_eq!(init(3), init(3));
    assert_ne!(init(3), init(4));
    let clone = config.init(&super::tiny::values(8), 3, &Device::flex());
    assert_eq!(clone.clone().valid().weights(), init(3));
}

#[test]
fn a_config_counts_what_its_model_has_without_making_it() {
    let dense = super::tiny::config();
    let experts = GenArConfig {
        moe: Some(MoeConfig {
            target_weight: 0.0,
            ..MoeConfig::k_in_e(2, 6)
        }),
        ..dense.clone()
    };
    let [_, widths, parallel] = super::tiny::configs();
    for config in [
        dense,
        experts,
        widths,
        parallel,
        GenArConfig::tokenbridge_h(),
    ] {
        let values = config.channel_levels.iter().sum::<usize>();
        let values = vec![0.0; values.max(config.levels)];
        let model = config.init(&values, 0, &Device::flex());
        assert_eq!(config.elements(), model.num_params() as u64, "{config:?}");
    }
}

#[test]
fn a_config_that_claims_more_than_its_weights_hold_is_refused_before_a_model_is_made() {
    let (good, weights) = (super::tiny::config(), super::tiny::model().weights());
    let refused = |change: fn(&mut GenArConfig)| {
        let mut config = good.clone();
        change(&mut config);
        let error = GenAr::from_weights(&config, weights.clone(), &Device::flex());
        error.unwrap_err().to_string()
    };
    for far in [
        refused(|c| c.enc.depth = 1 << 32),
        refused(|c| c.ch.depth = usize::MAX),
        refused(|c| c.grid = [1 << 40, 1 << 40]),
        refused(|c| c.class_num = 100_000_000),
        refused(|c| c.mlp_ratio = usize::MAX / 2),
    ] {
        assert!(
            far.starts_with("config.json: describes a model of "),
            "{far}"
        );
        assert!(
            far.contains("parameters; the file of weights holds "),
            "{far}"
        );
    }
    // No memory of the claimed size to look at it, either.
    assert!(refused(|c| c.token_embed_dim = 1 << 45).contains("channel_order"));
    // A little more is said by name and shape.
    let near = refused(|c| c.enc.depth += 1);
    assert!(near.contains("missing (`encoder_blocks.2."), "{near}");
}
