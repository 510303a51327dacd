//! EfficientNet-Lite0 against PyTorch, with weights from a formula (`tests/fixtures/gen/effnet_lite0.py`).

use super::devices;
use burn::tensor::{Device, Tensor};
use std::path::Path;
use tessera_backend::{device_values, host_values};
use tessera_evaluate::{EffLite0, Error};
use tessera_pictures::{Channels, Pixels};
use tessera_weights::{Weight, Weights};

const SIDE: usize = 35;

fn golden() -> Weights {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    Weights::read(fixtures.join("effnet_lite0.safetensors")).unwrap()
}

/// `count` numbers in [-1, 1) that depend on the name and the place alone.
fn values(name: &str, count: usize) -> Vec<f32> {
    let hash = |seed: u32, byte: u8| (seed ^ u32::from(byte)).wrapping_mul(16_777_619);
    let seed = name.bytes().fold(2_166_136_261, hash);
    let value = |index: usize| {
        let mut x = (index as u32)
            .wrapping_mul(2_654_435_761)
            .wrapping_add(seed);
        for factor in [0x7feb_352d, 0x846c_a68b] {
            x = (x ^ (x >> 16)).wrapping_mul(factor);
        }
        x ^= x >> 16;
        (f64::from(x) / 2_f64.powi(31) - 1.0) as f32
    };
    (0..count).map(value).collect()
}

fn weight(name: &str, shape: &[usize]) -> Weight {
    let mut x = values(name, shape.iter().product());
    let (factor, shift) = match shape {
        [_, inputs @ ..] if !inputs.is_empty() => {
            let inputs: usize = inputs.iter().product();
            ((6.0 / inputs as f64).sqrt() as f32, 0.0)
        }
        _ if name.ends_with("running_var")
            || (name.contains("_bn") && name.ends_with("weight")) =>
        {
            (0.5, 1.0)
        }
        _ => (0.25, 0.0),
    };
    x.iter_mut().for_each(|x| *x = *x * factor + shift);
    Weight::new(shape, x)
}

/// All names and shapes of a checkpoint: the network says what it misses.
fn weights() -> Weights {
    let mut weights = Weights::default();
    let mut add = |name: String, shape: &[usize]| {
        weights.insert(name.clone(), weight(&name, shape));
    };
    let mut layer = |conv: &str, norm: &str, shape: [usize; 4]| {
        add(format!("{conv}.weight"), &shape);
        for name in ["weight", "bias", "running_mean", "running_var"] {
            add(format!("{norm}.{name}"), &shape[..1]);
        }
        add(format!("{norm}.num_batches_tracked"), &[]);
    };
    layer("_conv_stem", "_bn0", [32, 3, 3, 3]);
    layer("_conv_head", "_bn1", [1280, 320, 1, 1]);
    let stages = [
        (1, 3, 16),
        (2, 3, 24),
        (2, 5, 40),
        (3, 3, 80),
        (3, 5, 112),
        (4, 5, 192),
        (1, 3, 320),
    ];
    let (mut inputs, mut index) = (32, 0);
    for (repeats, kernel, outputs) in stages {
        for _ in 0..repeats {
            let name = |part: &str| format!("_blocks.{index}.{part}");
            let between = if index == 0 { inputs } else { 6 * inputs };
            if index > 0 {
                layer(
                    &name("_expand_conv"),
                    &name("_bn0"),
                    [between, inputs, 1, 1],
                );
            }
            layer(
                &name("_depthwise_conv"),
                &name("_bn1"),
                [between, 1, kernel, kernel],
            );
            layer(
                &name("_project_conv"),
                &name("_bn2"),
                [outputs, between, 1, 1],
            );
            (inputs, index) = (outputs, index + 1);
        }
    }
    add("_fc.weight".into(), &[1000, 1280]);
    add("_fc.bias".into(), &[1000]);
    weights
}

/// Within 2e-5 of the largest: sixteen blocks in f32 beside f64.
fn assert_golden<const D: usize>(name: &str, found: Tensor<D>, golden: &Weights) {
    let expected = golden.get(name).unwrap();
    assert_eq!(found.dims().as_slice(), expected.shape(), "{name}");
    let expected = expected.values().unwrap();
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let found = host_values(found.reshape([expected.len()]));
    let apart = found.iter().zip(&*expected).map(|(x, y)| (x - y).abs());
    let apart = apart.fold(0.0_f32, f32::max) / largest;
    println!("{name}: {apart:e}");
    assert!(apart < 2e-5, "{name}: {apart:e} of the largest apart");
}

#[test]
fn the_network_sees_what_pytorch_does() {
    let (weights, golden) = (weights(), golden());
    for name in devices::with_kernels() {
        let device = devices::open(&name);
        let network = EffLite0::from_weights(weights.clone(), &device).unwrap();
        let images = values("images", 2 * 3 * SIDE * SIDE);
        let images = device_values(images, [2, 3, SIDE, SIDE], &device);
        let (stages, features) = network.forward(images);
        for (index, stage) in stages.into_iter().enumerate() {
            assert_golden(&format!("stage.{index}"), stage.narrow(2, 0, 2), &golden);
        }
        assert_golden("features", features.clone(), &golden);
        assert_golden("logits", network.logits(features), &golden);
    }
}

#[test]
fn a_picture_is_no_distance_from_itself_and_looks_the_same_in_any_company() {
    let network = EffLite0::from_weights(weights(), &Device::flex()).unwrap();
    let picture = |name: &str, channels: Channels| {
        let samples = values(name, 40 * 30 * channels.count());
        let samples = samples.iter().map(|x| (127.5 * (x + 1.0)) as u8).collect();
        Pixels::new(40, 30, channels, samples).unwrap()
    };
    let gray = picture("gray", Channels::Gray);
    let colored = picture("colored", Channels::Rgb);
    let alone = network.view(std::slice::from_ref(&colored)).unwrap();
    let both = network.view(&[gray.clone(), colored.clone()]).unwrap();
    assert_eq!(alone.features.row(0), both.features.row(1));
    assert_eq!(both.distances(&both), [0.0, 0.0]);
    let other = network
        .view(&[gray.to_channels(Channels::Rgb), gray])
        .unwrap();
    let [same, apart] = both.distances(&other).try_into().unwrap();
    assert!(
        same == 0.0 && (0.01..4.0).contains(&apart),
        "{same} {apart}"
    );
}

#[test]
fn weights_of_another_network_are_refused_by_name() {
    let device = Device::flex();
    let refused = |weights| match EffLite0::from_weights(weights, &device) {
        Err(error @ Error::Weights(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let mut wider = weights();
    wider.insert(
        "_conv_stem.weight",
        Weight::new([48, 3, 3, 3], vec![0.0; 48 * 27]),
    );
    let said = refused(wider);
    assert!(
        said.contains("_conv_stem.weight") && said.contains("48"),
        "{said}"
    );
    let mut with_attention = weights();
    with_attention.insert(
        "_blocks.0._se_reduce.weight",
        Weight::new([8], vec![0.0; 8]),
    );
    let said = refused(with_attention);
    assert!(said.contains("_blocks.0._se_reduce.weight"), "{said}");
    assert!(refused(Weights::default()).contains("_blocks.0._bn1.bias"));
}
