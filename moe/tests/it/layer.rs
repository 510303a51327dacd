//! The layer against every expert computing every token, and a picture alone against the same in a batch.

use crate::naive;
use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use tessera_backend::{Rng, init::ParamInit};
use tessera_moe::{Gate, Mode, Moe, MoeConfig, MoeWidths, RouterTrace, RoutingRule};

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The largest difference over the largest value expected.
fn relative(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let most = differences.fold(0.0_f32, |most, difference| match difference.is_nan() {
        true => f32::INFINITY,
        false => most.max(difference),
    });
    most / largest
}

/// Whose biases are not zero, as they are at first.
fn moe(config: &MoeConfig, [d_model, hidden]: [usize; 2], seed: u64, device: &Device) -> Moe {
    let init = &mut ParamInit::new(seed, device);
    let mut moe = Moe::init(
        config,
        MoeWidths {
            d_model,
            hidden,
            target: None,
        },
        init,
    );
    let narrow = hidden / config.split;
    moe.router.fc1.bias = Some(init.uniform([d_model], 0.3));
    moe.router.gate.bias = Some(init.uniform([config.experts], 0.3));
    moe.experts.fc1.bias = init.uniform([config.experts, narrow], 0.3);
    moe.experts.fc2.bias = init.uniform([config.experts, d_model], 0.3);
    moe
}

fn input(shape: [usize; 3], seed: u64, device: &Device) -> Tensor<3> {
    Rng::new(seed, 0).normal_tensor(shape, device)
}

/// The gradients of all trained parameters by name.
fn gradients(moe: &Moe, x: &Tensor<3>, loss: Tensor<1>) -> Vec<(&'static str, Vec<f32>)> {
    let grads = loss.backward();
    let bias =
        |map: &tessera_backend::nn::Linear| map.bias.as_ref().unwrap().val().grad(&grads).map(host);
    let gradients = [
        ("x", x.grad(&grads).map(host)),
        (
            "router.fc1.weight",
            moe.router.fc1.weight.val().grad(&grads).map(host),
        ),
        ("router.fc1.bias", bias(&moe.router.fc1)),
        (
            "router.gate.weight",
            moe.router.gate.weight.val().grad(&grads).map(host),
        ),
        ("router.gate.bias", bias(&moe.router.gate)),
        (
            "experts.fc1.weight",
            moe.experts.fc1.weight.val().grad(&grads).map(host),
        ),
        (
            "experts.fc1.bias",
            moe.experts.fc1.bias.val().grad(&grads).map(host),
        ),
        (
            "experts.fc2.weight",
            moe.experts.fc2.weight.val().grad(&grads).map(host),
        ),
        (
            "experts.fc2.bias",
            moe.experts.fc2.bias.val().grad(&grads).map(host),
        ),
    ];
    let there = |(name, gradient): (&'static str, Option<Vec<f32>>)| {
        let gradient = gradient.unwrap_or_else(|| panic!("{name} has no gradient"));
        (name, gradient)
    };
    gradients.into_iter().map(there).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// Output and every gradient to 1e-4 of the largest, for all gates and rules.
    #[test]
    fn output_and_gradients_are_those_of_the_naive_layer(
        batch in 1_usize..4,
        seq in 1_usize..7,
        d_model in 1_usize..20,
        experts in 1_usize..7,
        split in 1_usize..4,
        share in 0.1_f64..1.0,
        seed in any::<u64>(),
    ) {
        let device = Device::flex().autodiff();
        let shape = [batch, seq, experts];
        let tokens = batch * seq;
        for gate in Gate::ALL {
            for rule in RoutingRule::ALL {
                let k = share * experts as f64;
                let config = MoeConfig { experts, split, k, rule, gate, ..MoeConfig::k_in_e(1, 1) };
                let moe = moe(&config, [d_model, split * 5], seed, &device);
                let x = input([batch, seq, d_model], seed ^ 1, &device).require_grad();
                let weight = input([batch, seq, d_model], seed ^ 2, &device);
                let mut trace = RouterTrace::new(Mode::Race);
                let y = moe.forward(x.clone(), &mut trace);

                let flat = x.clone().reshape([tokens, d_model]);
                let logits = naive::logits(&moe, flat.clone());
                let traced = trace.layers[0].logits.clone();
                prop_assert!(relative(&host(traced.clone()), &host(logits.clone())) < 1e-4);
                let races = naive::races(rule, shape);
                let winning = (k * tokens as f64 / races as f64).round() as usize;
                // Ranked by the layer's own scores, because what rounds differently may rank differently.
                let ranked = host(gate.scores(traced));
                let mask = naive::winners(rule, &ranked, shape, winning);
                prop_assert_eq!(trace.layers[0].mask.as_slice(), &mask[..]);
                let scores = gate.scores(logits.reshape(shape)).reshape([tokens, experts]);
                let expected = naive::layer(&moe, flat, scores, &mask);

                let (found, naive) = (host(y.clone()), host(expected.clone()));
                prop_assert!(relative(&found, &naive) < 1e-4, "{:?} {:?}: {:?} and {:?}", gate, rule, found, naive);
                for (row, won) in found.chunks(d_model).zip(mask.chunks(experts)) {
                    prop_assert!(won.contains(&true) || row.iter().all(|&y| y == 0.0));
                }
                if winning == 0 {
                    continue; // Nothing was computed, so nothing has a gradient.
                }
                let loss = |y: Tensor<3>| (y * weight.clone()).sum();
                let found = gradients(&moe, &x, loss(y));
                let naive = gradients(&moe, &x, loss(expected.reshape([batch, seq, d_model])));
                for ((name, found), (_, naive)) in found.iter().zip(&naive) {
                    // What cancels, as in a router behind the softmax of one expert, is noise on both sides.
                    let error = relative(found, naive);
                    prop_assert!(
                        error < 1e-4 || found.iter().chain(naive).all(|g| g.abs() < 1e-6),
                        "{:?} {:?}: {} by {}", gate, rule, name, error
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_not_a_number_spreads_over_the_whole_race() {
    let device = Device::flex();
    let mut values = vec![0.5; 2 * 3 * 4];
    values[13] = f32::NAN;
    let x = Tensor::<3>::from_data(TensorData::new(values, [2, 3, 4]), &device);
    for (mode, threshold) in [(Mode::Race, true), (Mode::Inference, false)] {
        let config = MoeConfig {
            threshold,
            ..MoeConfig::k_in_e(1, 3)
        };
        let moe = moe(&config, [4, 8], 1, &device);
        let y = host(moe.forward(x.clone(), &mut RouterTrace::new(mode)));
        // Alone, the first image does not hear of the second, whose first token it is.
        let (first, second) = y.split_at(3 * 4);
        assert!(second[..4].iter().all(|y| y.is_nan()), "{mode:?}: {y:?}");
        let lost = first.iter().all(|y| y.is_nan());
        assert_eq!(lost, mode == Mode::Race, "{mode:?}: {y:?}");
        assert!(lost || first.iter().all(|y| y.is_finite()), "{y:?}");
    }
}

/// With a threshold no token hears of another, so only those that are not numbers are lost.
#[test]
fn a_threshold_lets_nothing_that_is_not_a_number_pass_unseen() {
    let device = Device::flex();
    let mut values = vec![0.5; 2 * 3 * 4];
    values[13] = f32::NAN;
    let x = Tensor::<3>::from_data(TensorData::new(values, [2, 3, 4]), &device);
    let moe = moe(&MoeConfig::k_in_e(1, 3), [4, 8], 1, &device).with_threshold(-9.0);
    let y = host(moe.forward(x, &mut RouterTrace::off()));
    assert!(y[12..16].iter().all(|y| y.is_nan()), "{y:?}");
}

/// Byte for byte, whatever stands beside the image, at a width of nothing in particular and at one that kernels block.
#[test]
fn an_image_alone_is_the_same_image_in_a_batch() {
    let device = Device::flex();
    for ([seq, d_model, hidden], experts) in [([5, 12, 24], 4), ([33, 64, 256], 8)] {
        for (threshold, rule) in [(true, RoutingRule::Race)]
            .into_iter()
            .chain(RoutingRule::ALL.map(|rule| (false, rule)))
        {
            let config = MoeConfig {
                threshold,
                rule,
                ..MoeConfig::k_in_e(2, experts)
            };
            let moe = moe(&config, [d_model, hidden], 3, &device).with_threshold(0.2);
            let images = input([6, seq, d_model], 4, &device);
            let whole = host(moe.forward(images.clone(), &mut RouterTrace::off()));
            assert!(whole.iter().any(|&y| y != 0.0) && whole.iter().all(|y| y.is_finite()));
            for (first, count) in [(0, 1), (3, 1), (5, 1), (1, 3), (2, 4)] {
                let part = images.clone().narrow(0, first, count);
                let part = host(moe.forward(part, &mut RouterTrace::off()));
                let size = seq * d_model;
                let same = &whole[first * size..(first + count) * size];
                assert_eq!(bits(&part), bits(same), "{rule:?}, {threshold}: {first}");
            }
        }
    }
}

/// Where nobody asks who won, the device finds out by itself.
#[test]
fn a_layer_computes_the_same_whether_its_trace_collects_or_not() {
    let device = Device::flex();
    for (threshold, gate) in [
        (0.2, Gate::Identity),
        (0.5, Gate::Sigmoid),
        (9.0, Gate::Softmax),
    ] {
        let config = MoeConfig {
            gate,
            ..MoeConfig::k_in_e(2, 4)
        };
        let layer = moe(&config, [8, 16], 3, &device).with_threshold(threshold);
        let x = input([2, 5, 8], 4, &device);
        let mut trace = RouterTrace::new(Mode::Inference);
        let collected = host(layer.forward(x.clone(), &mut trace));
        let pairs = trace.layers[0]
            .mask
            .as_slice()
            .iter()
            .filter(|&&won| won)
            .count();
        assert_eq!(pairs == 0, threshold == 9.0, "{gate:?}");
        assert_eq!(
            bits(&host(layer.forward(x, &mut RouterTrace::off()))),
            bits(&collected)
        );
    }
}

/// In training another image does change what an image gets: that is the race.
#[test]
fn a_race_is_one_of_the_whole_batch() {
    let device = Device::flex();
    let moe = moe(&MoeConfig::k_in_e(1, 4), [8, 16], 5, &device);
    let images = input([2, 6, 8], 6, &device);
    let winners = |images: Tensor<3>| {
        let mut trace = RouterTrace::new(Mode::Race);
        moe.forward(images, &mut trace);
        trace.layers.remove(0).mask
    };
    let (both, alone) = (winners(images.clone()), winners(images.narrow(0, 0, 1)));
    assert_ne!(both.as_slice()[..24], alone.as_slice()[..]);
    assert!(both.cutoff().is_some());
    let mut off = RouterTrace::off();
    moe.forward(input([1, 6, 8], 7, &device), &mut off);
    assert!(off.layers.is_empty() && off.mode() == Mode::Inference);
}

#[test]
fn a_target_head_is_made_where_its_loss_has_a_weight_and_used_where_layers_race() {
    let device = Device::flex();
    let init = || ParamInit::new(0, &device);
    let widths = MoeWidths {
        d_model: 8,
        hidden: 16,
        target: Some(5),
    };
    let config = MoeConfig::k_in_e(1, 4);
    let moe = Moe::init(&config, widths, &mut init());
    let guess = |moe: &Moe, mode| {
        let mut trace = RouterTrace::new(mode);
        moe.forward(input([2, 3, 8], 1, &device), &mut trace);
        trace.layers.remove(0).target.map(|target| target.dims())
    };
    assert_eq!(guess(&moe, Mode::Race), Some([2, 3, 5]));
    assert_eq!(guess(&moe, Mode::Inference), None);
    let without = moe.without_target();
    assert_eq!(guess(&without, Mode::Race), None);
    assert_eq!(without.config().target_weight, 0.0);
    let unweighted = MoeConfig {
        target_weight: 0.0,
        ..config
    };
    let moe = Moe::init(&unweighted, widths, &mut init());
    assert!(moe.router.target.is_none());
}

#[test]
fn the_threshold_is_an_average_of_the_last_scores_that_won() {
    let device = Device::flex();
    let moe = moe(&MoeConfig::k_in_e(1, 4), [8, 16], 5, &device);
    assert_eq!(moe.threshold(), 0.0);
    let moe = moe.with_threshold(0.4);
    assert_eq!(moe.threshold(), 0.4);
    let next = moe.next_threshold(Some(2.0));
    assert!((next - (0.95 * 0.4 + 0.05 * 2.0)).abs() < 1e-6, "{next}");
    assert_eq!(moe.next_threshold(None), 0.4);
    // Scores as they are by now: a threshold below all takes every expert, one above all takes none.
    let x = input([2, 3, 8], 8, &device);
    let active = |threshold| {
        let mut trace = RouterTrace::new(Mode::Inference);
        let y = moe
            .clone()
            .with_threshold(threshold)
            .forward(x.clone(), &mut trace);
        let won = trace.layers[0]
            .mask
            .as_slice()
            .iter()
            .filter(|&&won| won)
            .count();
        (won, host(y).iter().all(|&y| y == 0.0))
    };
    assert_eq!(active(-99.0), (24, false));
    assert_eq!(active(99.0), (0, true));
}

/// What the K-th score is said to be: as a threshold it gives the race's own winners.
#[test]
fn the_score_that_won_last_as_a_threshold_gives_the_winners_of_the_race() {
    let device = Device::flex();
    let moe = moe(&MoeConfig::k_in_e(2, 8), [16, 32], 9, &device);
    let x = input([3, 7, 16], 10, &device);
    let mut race = RouterTrace::new(Mode::Race);
    let raced = moe.forward(x.clone(), &mut race);
    let cutoff = race.layers[0].mask.cutoff().unwrap();
    let mut alone = RouterTrace::new(Mode::Inference);
    let taken = moe.with_threshold(cutoff).forward(x, &mut alone);
    assert_eq!(
        race.layers[0].mask.as_slice(),
        alone.layers[0].mask.as_slice()
    );
    assert_eq!(host(raced), host(taken));
}
