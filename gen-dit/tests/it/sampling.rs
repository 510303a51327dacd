//! What the sampler promises: an image depends on its own request alone.

use super::{devices, reference::host, tiny};
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array4, Axis};
use std::ops::ControlFlow;
use tessera_backend::{Rng, UnknownClass, transfers};
use tessera_gen_dit::{
    Ddpm, DenoisingStep, Dit, DitConfig, EasyCache, Error, ImageRequest, Process, SampleConfig,
};
use tessera_moe::{Mode, RouterTrace, Usage};
use tessera_weights::Weight;

fn go(_: DenoisingStep) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn generate(model: &Dit, requests: &[ImageRequest], config: &SampleConfig) -> Array4<f32> {
    model.generate(requests, config, &mut go).unwrap()
}

fn bits(images: &Array4<f32>, image: usize) -> Vec<u32> {
    let image = images.index_axis(Axis(0), image);
    image.iter().map(|value| value.to_bits()).collect()
}

/// Every way to use a model: with the thresholds where scores lie, so that some tokens have experts and others have
/// none.
fn models() -> Vec<(&'static str, Dit)> {
    let make = |(name, config): (_, DitConfig)| {
        let model = tiny::model(&config);
        match &config.moe {
            Some(moe) if moe.threshold => (name, calibrated(model)),
            _ => (name, model),
        }
    };
    tiny::all().into_iter().map(make).collect()
}

fn calibrated(model: Dit) -> Dit {
    let x = Rng::new(1, 1).normal_tensor([16, 3, 8, 8], &model.device());
    model.calibrated(&[(x, vec![2; 16])], 0).unwrap()
}

#[test]
fn an_image_of_a_batch_equals_the_same_image_alone() {
    for (name, model) in models() {
        for (steps, scale) in [(4, 2.5), (6, 1.0), (1, 4.0)] {
            let config = tiny::sampling(steps, scale);
            let requests = tiny::requests(5);
            let batch = generate(&model, &requests, &config);
            for (image, request) in requests.iter().enumerate() {
                let alone = generate(&model, &[*request], &config);
                assert!(
                    bits(&alone, 0) == bits(&batch, image),
                    "{name}, {steps} steps, scale {scale}: image {image}"
                );
            }
            let turned: Vec<_> = requests.iter().rev().copied().collect();
            let turned = generate(&model, &turned, &config);
            assert_eq!(bits(&turned, 4), bits(&batch, 0), "{name}");
            assert_ne!(bits(&batch, 0), bits(&batch, 1), "{name}");
        }
    }
}

/// Wide enough for every product to be cut into the blocks and threads of a real model.
#[test]
fn an_image_of_a_batch_equals_the_same_image_alone_at_a_real_width() {
    let sized = DitConfig {
        input_size: 16,
        num_classes: 5,
        hidden_size: 256,
        depth: 1,
        num_heads: 4,
        ..DitConfig::xl_2()
    };
    for config in [
        sized.clone(),
        tiny::race(sized.clone(), true),
        tiny::race(sized, false),
    ] {
        let model = tiny::model(&config);
        let requests = tiny::requests(4);
        let batch = generate(&model, &requests, &tiny::sampling(2, 2.5));
        for image in [0, 3] {
            let alone = generate(&model, &requests[image..=image], &tiny::sampling(2, 2.5));
            assert!(bits(&alone, 0) == bits(&batch, image), "{:?}", config.moe);
        }
    }
}

/// The sampler again, out of one evaluation and one step of the chain: noise of each image from stream 1 of its seed.
#[test]
fn the_sampler_is_what_its_parts_are() {
    for (name, model) in models() {
        let config = model.config().clone();
        let (requests, sampling) = (tiny::requests(3), tiny::sampling(5, 3.0));
        let mut streams: Vec<_> = requests.iter().map(|r| Rng::new(r.seed, 1)).collect();
        let mut draw = || {
            let image = |rng: &mut Rng| (0..192).map(|_| rng.normal()).collect::<Vec<_>>();
            let values = streams.iter_mut().flat_map(image).collect::<Vec<_>>();
            Tensor::<4>::from_data(TensorData::new(values, [3, 3, 8, 8]), &model.device())
        };
        let mut x = draw();
        let with: Vec<_> = requests.iter().map(|request| request.class).collect();
        let chain = Ddpm::new(5);
        for step in (0..5).rev() {
            let time = match config.process {
                Process::Ddpm => chain.time(step) as f32,
                Process::Flow => 1000.0 * (step + 1) as f32 / 5.0,
            };
            let ask = |labels: &[Option<usize>]| {
                model.forward(x.clone(), &[time; 3], labels, &mut RouterTrace::off())
            };
            let (with, without) = (ask(&with), ask(&[None; 3]).narrow(1, 0, 3));
            let guided = without.clone() + (with.clone().narrow(1, 0, 3) - without) * 3.0;
            x = match config.process {
                Process::Ddpm => {
                    let variance = Some(with.narrow(1, 3, 3));
                    chain.step(x, guided, variance, (step > 0).then(&mut draw), step)
                }
                Process::Flow => x - guided * 0.2,
            };
        }
        let found = generate(&model, &requests, &sampling);
        let expected = host(x);
        let most = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-5 * most, "{name}: {a} {b}");
        }
    }
}

/// A velocity of nothing leaves the noise as it was.
#[test]
fn a_new_flow_leaves_the_noise_of_the_seed() {
    let model = tiny::flow(tiny::config()).init(0, &Device::flex());
    let images = generate(&model, &tiny::requests(2), &tiny::sampling(7, 2.0));
    for (image, request) in tiny::requests(2).iter().enumerate() {
        let mut rng = Rng::new(request.seed, 1);
        for value in images.index_axis(Axis(0), image) {
            assert_eq!(*value, rng.normal());
        }
    }
}

#[test]
fn one_seed_gives_one_image_and_another_seed_another() {
    for (name, model) in models() {
        let draw = |seed| {
            let request = ImageRequest {
                class: Some(1),
                seed,
            };
            generate(&model, &[request], &tiny::sampling(3, 2.0))
        };
        assert_eq!(draw(5), draw(5), "{name}");
        assert_ne!(draw(5), draw(6), "{name}");
    }
}

/// For an image of any class both branches are one, whatever the scale; the guided path only rounds otherwise.
#[test]
fn guidance_has_nothing_to_say_without_a_class() {
    for (name, model) in models() {
        let request = |class| [ImageRequest { class, seed: 9 }];
        let draw = |class, scale| generate(&model, &request(class), &tiny::sampling(4, scale));
        assert_eq!(draw(None, 4.0), draw(None, 1.0), "{name}");
        assert_ne!(draw(Some(1), 4.0), draw(Some(1), 1.0), "{name}");
        // A scale of 0 is the model without the class, though the variance is the class's.
        if !model.config().learn_sigma {
            assert_eq!(draw(Some(1), 0.0), draw(None, 1.0), "{name}");
        }
    }
}

#[test]
fn a_model_on_an_autodiff_device_samples_the_same() {
    for (name, config) in tiny::all() {
        let tracked = tiny::model_on(&config, &Device::flex().autodiff());
        let (requests, sampling) = (tiny::requests(2), tiny::sampling(3, 2.0));
        let expected = generate(&tiny::model(&config), &requests, &sampling);
        assert_eq!(generate(&tracked, &requests, &sampling), expected, "{name}");
    }
}

#[test]
fn every_step_is_told_with_its_time_and_its_routes() {
    for (name, model) in models() {
        let mut times = Vec::new();
        let layers = model.config().moe.as_ref().map_or(0, |_| 2);
        let (requests, sampling) = (tiny::requests(2), tiny::sampling(4, 2.0));
        let images = model.generate_traced(&requests, &sampling, &mut |info, trace| {
            times.push(info.time);
            assert_eq!((info.step, info.steps), (times.len(), 4));
            assert_eq!(trace.layers.len(), layers);
            for layer in &trace.layers {
                assert_eq!(layer.mask.shape(), [4, 16, 6], "two images, twice");
            }
            ControlFlow::Continue(())
        });
        let images = images.unwrap();
        assert!(images.iter().all(|value| value.is_finite()));
        let untraced = generate(&model, &requests, &sampling);
        assert!(
            (0..2).all(|image| bits(&images, image) == bits(&untraced, image)),
            "{name}"
        );
        match model.config().process {
            Process::Ddpm => assert_eq!(times, [999.0, 666.0, 333.0, 0.0], "{name}"),
            Process::Flow => assert_eq!(times, [1000.0, 750.0, 500.0, 250.0], "{name}"),
        }
    }
}

#[test]
fn routes_of_given_latents_are_those_of_inference() {
    for (name, model) in models() {
        let x = Rng::new(2, 2).normal_tensor([3, 3, 8, 8], &model.device());
        let labels = [Some(1), None, Some(4)];
        let routed = model.route(x.clone(), &labels, 300.0, 11);
        if model.config().moe.is_none() {
            assert!(matches!(routed, Err(Error::Dense)), "{name}");
            let error = model.calibrated(&[], 0).unwrap_err();
            assert!(matches!(error, Error::Dense), "{error}");
            continue;
        }
        let trace = routed.unwrap();
        assert_eq!((trace.mode(), trace.layers.len()), (Mode::Inference, 2));
        // Noise has a seed per image.
        let second = model.route(x.narrow(0, 1, 1), &labels[1..2], 300.0, 12);
        for (all, one) in trace.layers.iter().zip(second.unwrap().layers) {
            let usage = Usage::of(&all.mask);
            assert!(usage.mean_active() > 0.0, "{name}");
            assert_eq!(&all.mask.as_slice()[96..192], one.mask.as_slice(), "{name}");
        }
    }
}

fn with_nan(model: &Dit, name: &str, at: usize) -> Dit {
    let mut weights = model.weights();
    let weight = weights.take(name).unwrap();
    let mut values = weight.values().unwrap().into_owned();
    values[at] = f32::NAN;
    weights.insert(name, Weight::new(weight.shape(), values));
    let config = model.config();
    Dit::from_weights(config, weights, &model.device(), &mut |_| ()).unwrap()
}

fn non_finite(model: &Dit, requests: &[ImageRequest]) -> [usize; 3] {
    let sampling = tiny::sampling(3, 2.0);
    match model.generate(requests, &sampling, &mut go).unwrap_err() {
        Error::NonFinite { step, steps, image } => [step, steps, image],
        error => panic!("{error}"),
    }
}

#[test]
fn a_model_that_is_not_finite_is_an_error_with_its_step_and_image() {
    for (name, model) in models() {
        let broken = with_nan(&model, "final_layer.linear.bias", 2);
        assert_eq!(non_finite(&broken, &tiny::requests(2)), [1, 3, 0], "{name}");
        // The row of class 2, which the third image alone is of.
        let broken = with_nan(&model, "y_embedder.embedding_table.weight", 2 * 24);
        generate(&broken, &tiny::requests(2), &tiny::sampling(3, 2.0));
        assert_eq!(non_finite(&broken, &tiny::requests(3)), [1, 3, 2], "{name}");
        let text = Error::NonFinite {
            step: 1,
            steps: 3,
            image: 2,
        };
        assert_eq!(
            text.to_string(),
            "step 1 of 3: the latents of image 2 are not finite"
        );
    }
}

#[test]
fn guidance_that_leaves_every_scale_is_an_error_and_no_flat_picture() {
    for (name, model) in models() {
        for scale in [1e12, 1e30] {
            let sampling = tiny::sampling(3, scale);
            match model.generate(&tiny::requests(2), &sampling, &mut go) {
                Err(Error::Large { step: 1, size, .. }) => assert!(size > 1e4, "{name}"),
                other => panic!("{name} at {scale}: {other:?}"),
            }
        }
    }
}

/// A score that is NaN reaches no threshold, and an expert that is left out would hide it.
#[test]
fn a_router_that_is_not_finite_is_an_error() {
    for (name, model) in models() {
        if model.config().moe.is_some() {
            for weight in ["gate.bias", "fc1.weight"] {
                let weight = format!("blocks.1.moe.router.{weight}");
                let broken = with_nan(&model, &weight, 1);
                assert_eq!(non_finite(&broken, &tiny::requests(2)), [1, 3, 0], "{name}");
            }
        }
    }
}

/// Bit for bit: predictions that are never reused are those of the model.
#[test]
fn a_cache_that_reuses_nothing_changes_nothing() {
    for (name, model) in models() {
        let requests = tiny::requests(3);
        let exact = tiny::sampling(9, 2.0);
        let cached = exact.clone().easy(EasyCache { threshold: 0.0 });
        let [exact, cached] =
            [exact, cached].map(|sampling| generate(&model, &requests, &sampling));
        assert!(
            (0..3).all(|image| bits(&exact, image) == bits(&cached, image)),
            "{name}"
        );
    }
}

/// Each picture decides for itself, so it is the same alone and in a batch, bit for bit; what is reused is not asked of
/// the model.
#[test]
fn a_picture_reuses_predictions_whatever_others_do() {
    for (name, model) in models() {
        let requests = tiny::requests(4);
        let sampling = tiny::sampling(40, 2.0).easy(EasyCache { threshold: 0.3 });
        let mut asked = Vec::new();
        let count = &mut |step: DenoisingStep| {
            asked.push(step.asked);
            ControlFlow::Continue(())
        };
        let all = model.generate(&requests, &sampling, count).unwrap();
        assert!(asked.iter().sum::<usize>() < 4 * 40, "{name}: {asked:?}");
        // The first 15 and the last 5 of 100 steps ask.
        assert!(
            asked[..6]
                .iter()
                .chain(&asked[38..])
                .all(|&asked| asked == 4),
            "{name}: {asked:?}"
        );
        for (image, request) in requests.iter().enumerate() {
            let alone = generate(&model, &[*request], &sampling);
            assert_eq!(bits(&alone, 0), bits(&all, image), "{name}");
        }
    }
}

#[test]
fn progress_can_stop_the_work() {
    for (_, model) in models() {
        let stop = &mut |info: DenoisingStep| match info.step {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let stopped = model.generate(&tiny::requests(1), &tiny::sampling(5, 1.0), stop);
        let error = stopped.unwrap_err();
        assert!(
            matches!(error, Error::Cancelled { step: 2, steps: 5 }),
            "{error}"
        );
        // Too late to stop.
        model
            .generate(&tiny::requests(1), &tiny::sampling(2, 1.0), stop)
            .unwrap();
    }
}

#[test]
fn requests_and_options_out_of_range_are_refused() {
    let model = tiny::model(&tiny::config());
    let good = tiny::requests(1);
    let unknown = ImageRequest {
        class: Some(5),
        seed: 0,
    };
    let error = model
        .generate(&[good[0], unknown], &tiny::sampling(2, 1.0), &mut go)
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::UnknownClass(UnknownClass {
                image: 1,
                found: 5,
                classes: 5
            })
        ),
        "{error}"
    );
    assert!(error.to_string().contains("0 to 4"), "{error}");
    for (steps, scale, expected) in [
        (0, 1.0, "steps"),
        (1001, 1.0, "steps"),
        (5, -0.1, "cfg_scale"),
        (5, f32::NAN, "cfg_scale"),
        (5, f32::INFINITY, "cfg_scale"),
    ] {
        let config = tiny::sampling(steps, scale);
        let error = model.generate(&good, &config, &mut go).unwrap_err();
        assert!(
            matches!(error, Error::Sampling { option, .. } if option == expected),
            "{error}"
        );
    }
    for threshold in [-0.1, f32::NAN, f32::INFINITY] {
        let config = tiny::sampling(5, 1.0).easy(EasyCache { threshold });
        let error = model.generate(&good, &config, &mut go).unwrap_err();
        assert!(
            matches!(error, Error::Sampling { option, .. } if option == "threshold"),
            "{error}"
        );
    }
}

#[test]
fn no_requests_give_no_images() {
    for (name, model) in models() {
        for scale in [1.0, 2.0] {
            let images = generate(&model, &[], &tiny::sampling(2, scale));
            assert_eq!(images.dim(), (0, 3, 8, 8), "{name}");
        }
    }
}

/// A GPU waits whenever something is read from it: a step reads whether its latents are finite, and no layer reads
/// its scores.
#[test]
fn parity_of_what_crosses_while_thresholds_route() {
    for config in [tiny::config(), tiny::flow(tiny::config())] {
        let cpu = calibrated(tiny::model(&tiny::race(config, true)));
        for name in devices::names().iter().filter(|name| *name != "ndarray") {
            let device = devices::open(name);
            let model = Dit::from_weights(cpu.config(), cpu.weights(), &device, &mut |_| ());
            let model = model.unwrap();
            let (requests, sampling) = (tiny::requests(3), tiny::sampling(6, 2.5));
            let drawn = generate(&model, &requests, &sampling);
            let before = transfers();
            assert_eq!(generate(&model, &requests, &sampling), drawn, "on {name}");
            let reads = transfers().to_host - before.to_host;
            assert_eq!(reads, 6 + 1, "6 steps and the result, on {name}");
        }
    }
}
