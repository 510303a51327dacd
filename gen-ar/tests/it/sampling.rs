//! What the sampler promises: an image depends on its own request alone.

use super::tiny;
use burn::tensor::Device;
use ndarray::Axis;
use proptest::prelude::*;
use std::ops::ControlFlow;
use tessera_backend::UnknownClass;
use tessera_gen_ar::{
    Error, GenAr, GenArConfig, ImageRequest, SampleConfig, SamplingStep, TransformerConfig,
};
use tessera_weights::Weight;

fn go(_: SamplingStep<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn generate(
    model: &GenAr,
    requests: &[ImageRequest],
    config: &SampleConfig,
) -> ndarray::Array3<u16> {
    model.generate(requests, config, &mut go).unwrap()
}

#[test]
fn an_image_of_a_batch_equals_the_same_image_alone() {
    let samplings = [
        tiny::sampling(5, 2.5, 1.0),
        tiny::sampling(12, 1.0, 0.9),
        tiny::sampling(1, 3.0, 1.3),
    ];
    let models = tiny::configs().map(|config| tiny::model_on(&config, &Device::flex()));
    for (model, config) in models
        .iter()
        .flat_map(|model| samplings.iter().map(move |config| (model, config)))
    {
        let requests = tiny::requests(4);
        let batch = generate(model, &requests, config);
        for ((.., dim), &index) in batch.indexed_iter() {
            assert!(usize::from(index) < model.config().levels_of(dim), "{dim}");
        }
        for (image, request) in requests.iter().enumerate() {
            let alone = generate(model, &[*request], config);
            assert_eq!(
                alone.index_axis(Axis(0), 0),
                batch.index_axis(Axis(0), image),
                "image {image}"
            );
        }
        assert_ne!(batch.index_axis(Axis(0), 0), batch.index_axis(Axis(0), 1));
    }
}

/// Wide enough for every product to be cut into the blocks and threads of a real model.
#[test]
fn an_image_of_a_batch_equals_the_same_image_alone_at_a_real_width() {
    let size = TransformerConfig {
        width: 256,
        depth: 1,
        heads: 8,
    };
    let config = GenArConfig {
        buffer_size: 16,
        ..GenArConfig::new([8, 8], 16, 64, size, size)
    };
    let model = tiny::model_on(&config, &Device::flex());
    let requests = tiny::requests(5);
    let batch = generate(&model, &requests, &tiny::sampling(3, 2.5, 1.0));
    for image in [0, 3] {
        let alone = generate(
            &model,
            &requests[image..=image],
            &tiny::sampling(3, 2.5, 1.0),
        );
        assert_eq!(
            alone.index_axis(Axis(0), 0),
            batch.index_axis(Axis(0), image)
        );
    }
}

#[test]
fn one_seed_gives_one_image_and_another_seed_another() {
    let (model, config) = (tiny::model(), tiny::sampling(4, 2.0, 1.0));
    let request = |seed| {
        [ImageRequest {
            class: Some(1),
            seed,
        }]
    };
    assert_eq!(
        generate(&model, &request(5), &config),
        generate(&model, &request(5), &config)
    );
    assert_ne!(
        generate(&model, &request(5), &config),
        generate(&model, &request(6), &config)
    );
}

/// For an image of any class both branches are one, whatever the scale; the guided path only rounds otherwise.
#[test]
fn guidance_has_nothing_to_say_without_a_class() {
    let model = tiny::model();
    let request = [ImageRequest {
        class: None,
        seed: 9,
    }];
    let single = generate(&model, &request, &tiny::sampling(6, 1.0, 0.0));
    assert_eq!(
        generate(&model, &request, &tiny::sampling(6, 4.0, 0.0)),
        single
    );
}

#[test]
fn the_likeliest_alone_is_greedy() {
    let model = tiny::model();
    let greedy = generate(&model, &tiny::requests(3), &tiny::sampling(6, 2.0, 0.0));
    let top_1 = SampleConfig {
        top_k: 1,
        ..tiny::sampling(6, 2.0, 1.0)
    };
    assert_eq!(generate(&model, &tiny::requests(3), &top_1), greedy);
    let top_p = SampleConfig {
        top_p: 1e-6,
        ..tiny::sampling(6, 2.0, 1.0)
    };
    assert_eq!(generate(&model, &tiny::requests(3), &top_p), greedy);
}

#[test]
fn a_model_on_an_autodiff_device_samples_the_same() {
    let (config, requests) = (tiny::sampling(4, 2.0, 1.0), tiny::requests(2));
    let tracked = tiny::model_on(&tiny::config(), &Device::flex().autodiff());
    assert_eq!(
        generate(&tracked, &requests, &config),
        generate(&tiny::model(), &requests, &config)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_step_adds_positions_and_keeps_those_there_are(
        steps in 1usize..20, guided in any::<bool>(), n in 1usize..4,
    ) {
        let mut last: Option<(ndarray::Array3<u16>, ndarray::Array2<bool>)> = None;
        let mut reports = 0;
        let config = tiny::sampling(steps, if guided { 2.0 } else { 1.0 }, 1.0);
        let images = tiny::model().generate(&tiny::requests(n), &config, &mut |info| {
            reports += 1;
            assert_eq!((info.step, info.steps), (reports, steps.min(12)));
            if let Some((canvas, known)) = &last {
                for ((image, position), known) in known.indexed_iter() {
                    let token = |of: ndarray::ArrayView3<u16>| of.slice(ndarray::s![image, position, ..]).to_owned();
                    assert!(!known || info.known[[image, position]]);
                    assert!(!known || token(info.canvas) == token(canvas.view()));
                }
                assert!(known.iter().filter(|&&k| k).count() < info.known.iter().filter(|&&k| k).count());
            }
            last = Some((info.canvas.to_owned(), info.known.to_owned()));
            ControlFlow::Continue(())
        }).unwrap();
        let (canvas, known) = last.unwrap();
        prop_assert!(known.iter().all(|&known| known));
        prop_assert_eq!(canvas, images.clone());
        prop_assert_eq!(reports, steps.min(12));
        prop_assert!(images.iter().all(|&index| index < 8));
    }
}

#[test]
fn more_tokens_than_the_head_takes_at_once_are_no_different() {
    // 30 images of 12 tokens in one step: 360 tokens, in two parts.
    let (model, config) = (tiny::model(), tiny::sampling(1, 1.0, 1.0));
    let requests = tiny::requests(30);
    let batch = generate(&model, &requests, &config);
    let alone = generate(&model, &requests[25..26], &config);
    assert_eq!(alone.index_axis(Axis(0), 0), batch.index_axis(Axis(0), 25));
}

#[test]
fn a_model_that_is_not_finite_is_an_error_with_its_step() {
    let (model, config) = (tiny::model(), tiny::config());
    for (name, expected) in [
        ("decoder_norm.weight", "features"),
        ("channel_heads.3.bias", "logits"),
    ] {
        let mut weights = model.weights();
        let weight = weights.take(name).unwrap();
        let mut values = weight.values().unwrap().into_owned();
        values[2] = f32::NAN;
        weights.insert(name, Weight::new(weight.shape(), values));
        let broken = GenAr::from_weights(&config, weights, &Device::flex()).unwrap();
        let error = broken
            .generate(&tiny::requests(1), &tiny::sampling(3, 2.0, 1.0), &mut go)
            .unwrap_err();
        assert!(
            matches!(error, Error::NonFinite { step: 0, steps: 3, what } if what == expected),
            "{error}"
        );
    }
}

#[test]
fn progress_can_stop_the_work() {
    let stop = &mut |info: SamplingStep<'_>| match info.step {
        2 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let error = tiny::model()
        .generate(&tiny::requests(1), &tiny::sampling(5, 1.0, 1.0), stop)
        .unwrap_err();
    assert!(
        matches!(error, Error::Cancelled { step: 2, steps: 5 }),
        "{error}"
    );
}

#[test]
fn requests_and_options_out_of_range_are_refused() {
    let model = tiny::model();
    let refused = |requests: &[ImageRequest], config: SampleConfig| {
        model.generate(requests, &config, &mut go).unwrap_err()
    };
    let good = tiny::requests(1);
    let error = refused(
        &[
            good[0],
            ImageRequest {
                class: Some(3),
                seed: 0,
            },
        ],
        SampleConfig::default(),
    );
    assert!(
        matches!(
            error,
            Error::UnknownClass(UnknownClass {
                image: 1,
                found: 3,
                classes: 3
            })
        ),
        "{error}"
    );
    for (config, expected) in [
        (
            SampleConfig {
                steps: 0,
                ..Default::default()
            },
            "steps",
        ),
        (
            SampleConfig {
                cfg_scale: f32::NAN,
                ..Default::default()
            },
            "cfg_scale",
        ),
        (
            SampleConfig {
                temperature: -1.0,
                ..Default::default()
            },
            "temperature",
        ),
        (
            SampleConfig {
                top_p: 0.0,
                ..Default::default()
            },
            "top_p",
        ),
    ] {
        let error = refused(&good, config);
        assert!(
            matches!(error, Error::Sampling { option, .. } if option == expected),
            "{error}"
        );
    }
    let orders = [vec![0; 12]];
    let error = model
        .generate_with_orders(&good, &orders, &SampleConfig::default(), &mut go)
        .unwrap_err();
    assert!(matches!(error, Error::Orders { .. }), "{error}");
    assert_eq!(
        generate(&model, &[], &SampleConfig::default()).dim(),
        (0, 12, 5)
    );
}

#[test]
fn the_first_position_switch_changes_the_draws() {
    let trained = GenArConfig {
        first_position: tessera_gen_ar::FirstPosition::AsTrained,
        ..tiny::config()
    };
    let trained = GenAr::from_weights(&trained, tiny::model().weights(), &Device::flex()).unwrap();
    let config = tiny::sampling(4, 2.0, 1.0);
    assert_ne!(
        generate(&trained, &tiny::requests(2), &config),
        generate(&tiny::model(), &tiny::requests(2), &config)
    );
}
