//! Routing of a tiny diffusion transformer with random weights, from Rust.

use ndarray::Array4;
use std::ops::ControlFlow;
use tessera::gen_dit::{DitConfig, Process, SampleConfig};
use tessera::routing::{Report, Routing, RoutingPass, Source, Subject, TokenMaps};
use tessera::tokenizers::PixelTokenizer;
use tessera::{ComputePrecision, Device, DitCard, DitModel, Error};

const LAYERS: usize = 2;
const TOKENS: usize = 16;

/// Two layers over 4 x 4 tokens of gray pixels, with experts or without.
fn model(experts: Option<&str>) -> DitModel {
    let device = Device::cpu();
    let config = DitConfig {
        input_size: 8,
        patch_size: 2,
        in_channels: 1,
        hidden_size: 16,
        depth: LAYERS,
        num_heads: 2,
        num_classes: 3,
        learn_sigma: false,
        process: Process::Flow,
        moe: experts.map(|experts| experts.parse().unwrap()),
        ..DitConfig::xl_2()
    };
    DitModel {
        card: DitCard {
            schema: DitCard::SCHEMA.into(),
            name: "tiny".into(),
            img_size: 8,
            class_names: ["a", "b", "c"].map(String::from).into(),
            latent_mean: vec![0.0],
            latent_scale: vec![1.0],
            sampling: sampling(),
            parts: Default::default(),
        },
        tokenizer: Box::new(PixelTokenizer::new(1, device.burn())),
        transformer: config.init(0, device.burn()),
        digest: None,
        precision: ComputePrecision::F32,
        device,
    }
}

fn sampling() -> SampleConfig {
    SampleConfig::new(4, 2.0)
}

/// Three pictures of two classes, the first with its map.
fn subjects() -> [Subject; 3] {
    let mapped = Subject {
        maps: TokenMaps::Counted,
        ..Subject::new("first", Some(0))
    };
    [
        mapped,
        Subject::new("second", Some(2)),
        Subject::new("third", Some(2)),
    ]
}

fn go_on(_: RoutingPass) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn close(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < 1e-9,
        "found {found}, expected {expected}"
    );
}

/// Experts of a token, which are the same whatever they are summed over first.
fn check(report: &Report) {
    let mean = report.mean.mean_active;
    let means = |of: Vec<f64>| of.iter().sum::<f64>() / of.len() as f64;
    assert!(mean > 0.0 && mean <= 4.0);
    close(
        means(
            report
                .layers
                .iter()
                .map(|one| one.measures.mean_active)
                .collect(),
        ),
        mean,
    );
    close(
        means(report.times.iter().map(|one| one.mean_active).collect()),
        mean,
    );
    close(
        means(report.pictures.iter().map(|one| one.mean_active).collect()),
        mean,
    );
    assert!(
        report
            .times
            .is_sorted_by(|first, second| first.time < second.time)
    );
    for layer in &report.layers {
        assert_eq!(layer.load.len(), 4);
        close(layer.load.iter().sum(), 1.0);
    }
}

#[test]
fn routes_of_drawn_pictures_do_not_depend_on_the_batch() {
    let model = model(Some("2-in-4"));
    let subjects = subjects();
    let mut together = Routing::new(&model, 5).unwrap();
    let mut passes = Vec::new();
    let latents = together.draw(&subjects, &sampling(), &mut |pass| {
        passes.push(pass.pass);
        go_on(pass)
    });
    assert_eq!(latents.unwrap().dim(), (3, 1, 8, 8));
    assert_eq!(passes, [1, 2, 3, 4]);
    let mut alone = Routing::new(&model, 5).unwrap();
    for subject in subjects {
        alone.draw(&[subject], &sampling(), &mut go_on).unwrap();
    }
    let report = together.report(Source::Drawn(sampling()));
    assert_eq!(report, alone.report(Source::Drawn(sampling())));
    check(&report);
    assert_eq!((report.times.len(), report.layers.len()), (4, LAYERS));
    let seeds: Vec<_> = report.pictures.iter().map(|one| one.seed).collect();
    assert_eq!(seeds, [5, 6, 7]);
    let classes: Vec<_> = report
        .classes
        .iter()
        .map(|one| (&*one.name, one.pictures))
        .collect();
    assert_eq!(classes, [("a", 1), ("c", 2)]);
}

#[test]
fn a_map_has_the_mean_of_its_picture_and_only_those_asked_for_have_one() {
    let model = model(Some("2-in-4"));
    let mut routing = Routing::new(&model, 0).unwrap();
    let latents = Array4::from_shape_fn((3, 1, 8, 8), |(i, _, y, x)| {
        ((i + y * 8 + x) % 7) as f32 / 3.0 - 1.0
    });
    routing
        .noise(&subjects(), &latents, 6, &mut go_on)
        .expect("noised");
    let report = routing.report(Source::Pictures { times: 6 });
    check(&report);
    assert_eq!(report.times[0].time, 83.0);
    let bounds: Vec<_> = routing
        .time_parts()
        .into_iter()
        .map(|part| part.bounds())
        .collect();
    assert_eq!(bounds, [[0.0, 333.0], [333.0, 667.0], [667.0, 1000.0]]);
    let mean = |map: Vec<f64>| map.iter().sum::<f64>() / map.len() as f64;
    let all = routing.token_map(0, None);
    assert_eq!(all.len(), TOKENS);
    // A map counts per layer, as a picture's mean does.
    close(mean(all), report.pictures[0].mean_active);
    let parts = routing.time_parts().into_iter();
    let parts = parts.map(|part| mean(routing.token_map(0, Some(part))));
    // Two of the six times are in each part.
    close(mean(parts.collect()), report.pictures[0].mean_active);
    assert!(routing.token_map(1, None).is_empty());
}

#[test]
fn a_dense_model_is_refused_and_a_caller_can_stop() {
    let dense = Routing::new(&model(None), 0).unwrap_err();
    assert!(
        matches!(dense, Error::GenDit(tessera::gen_dit::Error::Dense)),
        "{dense}"
    );
    let mut routing = Routing::new(&model(Some("2-in-4")), 0).unwrap();
    let stopped = routing.noise(
        &subjects(),
        &Array4::zeros((3, 1, 8, 8)),
        6,
        &mut |pass| match pass.pass {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        },
    );
    assert!(
        matches!(
            stopped,
            Err(Error::Cancelled {
                done: 2,
                total: 6,
                ..
            })
        ),
        "{stopped:?}"
    );
    let broken = Array4::from_elem((1, 1, 8, 8), f32::NAN);
    let error = routing
        .noise(&[Subject::new("broken", None)], &broken, 6, &mut go_on)
        .unwrap_err();
    assert_eq!(error.to_string(), "at time 83 of broken");
    let Error::During { source, .. } = error else {
        panic!("{error}")
    };
    assert!(matches!(*source, Error::ScoreNotFinite { layer: 1 }));
}
