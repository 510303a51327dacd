//! A backbone with experts: the invariants of the dense one, and how its thresholds are measured.

use super::devices;
use super::loss::tokens;
use super::tiny;
use burn::tensor::{Device, Int, Tensor};
use ndarray::{Array3, Axis};
use std::ops::ControlFlow;
use tessera_backend::{ComputePrecision, Rng, transfers};
use tessera_gen_ar::{
    BUFFERS, Error, GenAr, GenArConfig, ImageRequest, MaskPlan, TransformerConfig,
};
use tessera_moe::{MoeConfig, RoutingRule};
use tessera_weights::{WeightDtype, Weights};

fn moe() -> MoeConfig {
    MoeConfig {
        target_weight: 0.0,
        ..MoeConfig::k_in_e(2, 4)
    }
}

fn config() -> GenArConfig {
    GenArConfig {
        moe: Some(moe()),
        ..tiny::config()
    }
}

fn generate(model: &GenAr, requests: &[ImageRequest], steps: usize, scale: f32) -> Array3<u16> {
    let sampling = tiny::sampling(steps, scale, 1.0);
    let go = &mut |_: tessera_gen_ar::SamplingStep<'_>| ControlFlow::Continue(());
    model.generate(requests, &sampling, go).unwrap()
}

/// Tokens and labels of some batches.
fn batches(config: &GenArConfig, count: usize) -> Vec<(Tensor<3, Int>, Vec<usize>)> {
    let batch = || (tokens(config, 3, &Device::flex()), vec![0, 1, 2]);
    (0..count).map(|_| batch()).collect()
}

fn calibrated(config: &GenArConfig) -> GenAr {
    let model = tiny::model_on(config, &Device::flex());
    model.calibrated(&batches(config, 3), 1).unwrap()
}

#[test]
fn an_image_of_a_batch_equals_the_same_image_alone() {
    let size = TransformerConfig {
        width: 64,
        depth: 2,
        heads: 4,
    };
    let wide = GenArConfig {
        buffer_size: 5,
        class_num: 3,
        moe: Some(moe()),
        ..GenArConfig::new([6, 6], 8, 16, size, size)
    };
    for (config, image_count) in [(config(), 5), (wide, 4)] {
        for (threshold, rule) in [
            (true, RoutingRule::Race),
            (false, RoutingRule::Race),
            (false, RoutingRule::Expert),
        ] {
            let moe = MoeConfig {
                threshold,
                rule,
                ..moe()
            };
            let config = GenArConfig {
                moe: Some(moe),
                ..config.clone()
            };
            let model = calibrated(&config);
            let requests = tiny::requests(image_count);
            for (steps, scale) in [(6, 2.5), (3, 1.0)] {
                let batch = generate(&model, &requests, steps, scale);
                for (image, request) in requests.iter().enumerate() {
                    let alone = generate(&model, &[*request], steps, scale);
                    let same = batch.index_axis(Axis(0), image);
                    assert_eq!(alone.index_axis(Axis(0), 0), same, "{rule:?}, {threshold}");
                }
                assert_ne!(batch.index_axis(Axis(0), 0), batch.index_axis(Axis(0), 1));
            }
        }
    }
}

#[test]
fn a_saved_model_loads_as_it_was() {
    let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex());
    let model = calibrated(&config());
    model.save_dir(folder.path(), WeightDtype::F32).unwrap();
    let file = || std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let written = file();
    let loaded = GenAr::load_dir(folder.path(), &device).unwrap();
    assert_eq!(loaded.config(), &config());
    let requests = tiny::requests(2);
    let images = generate(&model, &requests, 4, 2.0);
    assert_eq!(generate(&loaded, &requests, 4, 2.0), images);
    loaded.save_dir(folder.path(), WeightDtype::F32).unwrap();
    assert!(file() == written);

    let shapes = model.shapes();
    let shape = |name: &str| shapes[name].clone();
    assert_eq!(shape("encoder_blocks.1.moe.router.fc1.weight"), [24, 24]);
    assert_eq!(shape("encoder_blocks.1.moe.router.gate.weight"), [4, 24]);
    assert_eq!(shape("decoder_blocks.0.moe.router.threshold"), [1]);
    assert_eq!(
        shape("decoder_blocks.1.moe.experts.fc1.weight"),
        [4, 32, 32]
    );
    let named = |part: &str| shapes.keys().any(|name| name.contains(part));
    assert!(!named("encoder_blocks.0.mlp") && named("channel_blocks.0.mlp"));
    assert!(!named("target"));
    let elements: usize = shapes
        .values()
        .map(|shape| shape.iter().product::<usize>())
        .sum();
    let buffers: usize = BUFFERS
        .iter()
        .map(|&name| shape(name).iter().product::<usize>())
        .sum();
    assert_eq!(
        model.num_trainable(),
        elements - buffers - 4,
        "less 4 thresholds"
    );
}

/// The dense model and the one with experts do not take each other's weights, and weights alone are not enough.
#[test]
fn experts_need_the_config_that_says_so() {
    let (device, experts) = (Device::flex(), tiny::model_on(&config(), &Device::flex()));
    let error = GenAr::from_weights(&tiny::config(), experts.weights(), &device).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("decoder_blocks.0.mlp"), "{error}");
    let dense = tiny::model().weights();
    let error = GenAr::from_weights(&config(), dense, &device).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("decoder_blocks.0.moe"), "{error}");
    let error = GenArConfig::infer(&experts.weights()).unwrap_err();
    assert!(matches!(error, Error::Infer { .. }));
    let error = error.to_string();
    assert!(
        error.contains("moe.experts") && error.contains("config.json"),
        "{error}"
    );
}

#[test]
fn a_config_of_before_there_were_experts_is_a_dense_one() {
    let mut json = serde_json::to_value(tiny::config()).unwrap();
    assert!(json.get("moe").is_none());
    let dense: GenArConfig = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(dense, tiny::config());
    json["moe"] =
        serde_json::json!({ "experts": 4, "split": 2, "k": 2.0, "similarity_weight": 1e-4 });
    assert_eq!(
        serde_json::from_value::<GenArConfig>(json.clone()).unwrap(),
        config()
    );
    json["moe"]["shared"] = 1.into();
    let error = serde_json::from_value::<GenArConfig>(json).unwrap_err();
    assert!(error.to_string().contains("`shared`"), "{error}");
}

#[test]
fn experts_that_no_layer_can_have_are_refused_by_field() {
    let refused = |moe: MoeConfig| {
        let config = GenArConfig {
            moe: Some(moe),
            ..tiny::config()
        };
        config.validate().unwrap_err().to_string()
    };
    let error = refused(MoeConfig { split: 5, ..moe() });
    assert!(error.contains("`split`") && error.contains("48"), "{error}");
    // 2 · 24 = 48 divides by 3, the decoder's 2 · 32 = 64 does not.
    let error = refused(MoeConfig { split: 3, ..moe() });
    assert!(error.contains("`split`") && error.contains("64"), "{error}");
    let error = refused(MoeConfig::k_in_e(2, 4));
    assert!(error.contains("`moe.target_weight`"), "{error}");
}

#[test]
fn experts_and_routers_are_trained_and_thresholds_measured() {
    let device = Device::flex().autodiff();
    let config = GenArConfig {
        moe: Some(MoeConfig {
            balance_weight: 1e-3,
            ..moe()
        }),
        attn_dropout: 0.1,
        proj_dropout: 0.1,
        ..tiny::config()
    };
    let model = tiny::model_on(&config, &device);
    let plan = MaskPlan::from_orders(vec![(0..12).collect(), (0..12).rev().collect()], 9);
    let losses = model.loss(
        tokens(&config, 2, &device),
        &[1, 2],
        &plan,
        &mut Rng::new(3, 3),
    );
    let value = |loss: &Tensor<1>| f64::from(loss.clone().into_scalar::<f32>());
    let parts: Vec<_> = losses.parts.iter().map(|part| part.0).collect();
    assert_eq!(parts, ["cross_entropy", "similarity", "balance"]);
    let [cross_entropy, similarity, balance] =
        [0, 1, 2].map(|part: usize| value(&losses.parts[part].1));
    let expected = cross_entropy + 4.0 * (1e-4 * similarity + 1e-3 * balance);
    let total = value(&losses.total);
    assert!((total - expected).abs() < 1e-5, "{total} and {expected}");
    let names: Vec<_> = losses.buffers.iter().map(|(name, _)| &**name).collect();
    let layers = [
        "encoder_blocks.0",
        "encoder_blocks.1",
        "decoder_blocks.0",
        "decoder_blocks.1",
    ];
    assert_eq!(
        names,
        layers.map(|layer| format!("{layer}.moe.router.threshold"))
    );
    assert!(
        losses
            .buffers
            .iter()
            .all(|(_, value)| value.is_finite() && *value != 0.0)
    );

    let gradients = super::reference::gradients(&model, losses.total);
    for name in Weights::shapes_of(&model)
        .into_keys()
        .filter(|name| name.contains(".moe."))
    {
        match gradients.get(&name) {
            None => assert!(name.ends_with(".threshold"), "{name} has no gradient"),
            Some(gradient) => {
                assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
                assert!(
                    gradient.iter().any(|&g| g != 0.0),
                    "{name} has a zero gradient"
                );
            }
        }
    }
}

/// With the thresholds of these very tokens the experts are, as at inference, about as busy as in the race.
#[test]
fn thresholds_are_measured_again_for_given_weights() {
    let config = config();
    let model = calibrated(&config);
    let threshold = |name: &str| {
        let weights = model.weights();
        weights.get(name).unwrap().values().unwrap()[0]
    };
    let found = [
        "encoder_blocks.0",
        "encoder_blocks.1",
        "decoder_blocks.0",
        "decoder_blocks.1",
    ]
    .map(|layer| threshold(&format!("{layer}.moe.router.threshold")));
    assert!(
        found.iter().all(|&t| t != 0.0 && t.is_finite()),
        "{found:?}"
    );
    assert_eq!(calibrated(&config).weights(), model.weights());
    let error = tiny::model()
        .calibrated(&batches(&config, 1), 1)
        .unwrap_err();
    assert!(matches!(error, Error::Dense), "{error}");
    let unmeasured = tiny::model_on(&config, &Device::flex());
    let same = unmeasured.clone().calibrated(&[], 1).unwrap();
    assert_eq!(same.weights(), unmeasured.weights());
}

/// In bf16 experts stay as they are while the linear maps around them, routers included, are narrowed.
#[test]
fn a_model_with_experts_draws_in_bf16() {
    let model = ComputePrecision::Bf16.apply(calibrated(&config()));
    let requests = tiny::requests(3);
    let batch = generate(&model, &requests, 4, 2.0);
    let alone = generate(&model, &requests[1..2], 4, 2.0);
    assert_eq!(alone.index_axis(Axis(0), 0), batch.index_axis(Axis(0), 1));
}

/// A threshold is one on the device: no layer waits for the host to say who goes to which expert.
#[test]
fn parity_of_a_model_with_experts_and_of_what_crosses_while_it_draws() {
    let cpu = calibrated(&config());
    let expected = generate(&cpu, &tiny::requests(3), 6, 2.5);
    for name in devices::names() {
        let device = devices::open(&name);
        let model = GenAr::from_weights(&config(), cpu.weights(), &device).unwrap();
        let drawn = generate(&model, &tiny::requests(3), 6, 2.5);
        let agree = drawn.iter().zip(&expected).filter(|(a, b)| a == b).count();
        assert!(
            agree * 100 >= expected.len() * 99,
            "{agree} of {} on {name}",
            expected.len()
        );
        let before = transfers();
        assert_eq!(generate(&model, &tiny::requests(3), 6, 2.5), drawn);
        let reads = transfers().to_host - before.to_host;
        // A CPU reads its own memory, and waits for nothing.
        if !["flex", "ndarray"].contains(&name.as_str()) {
            assert_eq!(reads, 2 * 6, "on {name}");
        }
    }
}
