//! The values that tell the similarity loss from the balance loss, and the gradients of both.

use crate::naive;
use burn::tensor::{Device, Tensor, TensorData};
use tessera_backend::Rng;
use tessera_moe::{
    Auxiliary, LayerTrace, MoeConfig, RoutingMask, Usage, balance_loss, similarity_loss,
};

const EXPERTS: usize = 8;
const TOKENS: usize = 20_000;

fn scalar(loss: Tensor<1>) -> f32 {
    loss.into_scalar::<f32>()
}

fn winners(mask: &[bool], experts: usize) -> RoutingMask {
    let scores: Vec<f32> = mask.iter().map(|&won| f32::from(u8::from(won))).collect();
    RoutingMask::above(0.5, &scores, [2, mask.len() / experts / 2, experts])
}

/// Logits and winners of tokens that have the experts of `of_token` with certainty, in equal parts.
fn certain(of_token: impl Fn(usize) -> Vec<usize>) -> (Tensor<3>, RoutingMask) {
    let mut mask = vec![false; TOKENS * EXPERTS];
    for token in 0..TOKENS {
        of_token(token)
            .into_iter()
            .for_each(|expert| mask[token * EXPERTS + expert] = true);
    }
    let logits = mask.iter().map(|&won| if won { 0.0 } else { -60.0 });
    let data = TensorData::new(logits.collect::<Vec<f32>>(), [2, TOKENS / 2, EXPERTS]);
    (
        Tensor::from_data(data, &Device::flex()),
        winners(&mask, EXPERTS),
    )
}

fn pairs() -> Vec<[usize; 2]> {
    let pairs = (0..EXPERTS).flat_map(|a| (0..a).map(move |b| [a, b]));
    pairs.collect()
}

/// Figure 4: what is balanced need not be diverse, and only the similarity loss sees it.
#[test]
fn the_losses_have_the_values_of_the_papers_argument() {
    let diverse = |token: usize| pairs()[token % 28].to_vec();
    let collapsed = |token: usize| {
        let first = 2 * (token % 4);
        vec![first, first + 1]
    };
    let (logits, drawn) = certain(diverse);
    let uniform = logits.zeros_like();
    let cases = [
        ("uniform", uniform, drawn.clone(), [1.0, 1.0]),
        ("balanced and diverse pairs", logits, drawn, [1.0, 1.0]),
        (
            "balanced, collapsed pairs",
            certain(collapsed).0,
            certain(collapsed).1,
            [4.0, 1.0],
        ),
        (
            "balanced, one each",
            certain(|token| vec![token % 8]).0,
            certain(|token| vec![token % 8]).1,
            [1.0, 1.0],
        ),
        (
            "all on one",
            certain(|_| vec![3]).0,
            certain(|_| vec![3]).1,
            [8.0, 8.0],
        ),
    ];
    for (name, logits, winners, expected) in cases {
        let found = [similarity_loss, balance_loss].map(|loss| {
            let loss: fn(Tensor<3>, &RoutingMask) -> Tensor<1> = loss;
            scalar(loss(logits.clone(), &winners))
        });
        eprintln!("{name}: similarity {}, balance {}", found[0], found[1]);
        for (found, expected) in found.into_iter().zip(expected) {
            let error = (found - expected).abs() / expected;
            assert!(error < 0.02, "{name}: {found}, expected {expected}");
        }
    }
}

/// As the pairs are drawn at random, to the noise of the draw.
#[test]
fn pairs_drawn_at_random_are_as_diverse_as_all_in_turn() {
    let drawn: Vec<usize> = {
        let mut rng = Rng::new(2, 0);
        (0..TOKENS).map(|_| rng.below(28)).collect()
    };
    let (logits, winners) = certain(|token| pairs()[drawn[token]].to_vec());
    let similarity = scalar(similarity_loss(logits, &winners));
    let usage = Usage::of(&winners);
    eprintln!(
        "random pairs: similarity {similarity}, combination usage {}, MaxVio {}",
        usage.combination_usage(),
        usage.max_vio()
    );
    assert!((similarity - 1.0).abs() < 0.02, "{similarity}");
    assert!((usage.combination_usage() - 0.93).abs() < 0.04);
}

type Reference = fn(&[f64], &[bool], usize) -> f64;
type Loss = fn(Tensor<3>, &RoutingMask) -> Tensor<1>;

/// Values to 1e-5, and gradients to 1e-4 of the largest against central differences in f64 with a step of 1e-5, whose
/// own error is about 1e-9; the weights of the pairs have no gradient, as the winners do not change.
#[test]
fn both_losses_and_their_gradients_are_those_of_the_formulas() {
    let (tokens, device) = (10, Device::flex().autodiff());
    for (experts, share) in [(4, 0.4), (6, 0.2), (3, 1.0), (1, 1.0), (4, 0.0)] {
        let mut rng = Rng::new(experts as u64, 7);
        let logits: Vec<f32> = (0..tokens * experts).map(|_| rng.normal()).collect();
        let mut mask: Vec<bool> = logits.iter().map(|_| rng.uniform() < share).collect();
        if share == 0.0 {
            mask[..experts].fill(false); // One expert each and none shared: no pairs to weigh.
            (0..tokens).for_each(|token| mask[token * experts + token % experts] = true);
        }
        let exact: Vec<f64> = logits.iter().map(|&z| z.into()).collect();
        let chosen = winners(&mask, experts);
        let losses: [(Loss, Reference); 2] = [
            (similarity_loss, naive::similarity),
            (balance_loss, naive::balance),
        ];
        for (loss, reference) in losses {
            let data = TensorData::new(logits.clone(), [2, tokens / 2, experts]);
            let z = Tensor::<3>::from_data(data, &device).require_grad();
            let value = loss(z.clone(), &chosen);
            let expected = reference(&exact, &mask, experts);
            let found = f64::from(scalar(value.clone()));
            assert!((found - expected).abs() < 1e-5, "{found} and {expected}");
            let gradient = z.grad(&value.backward()).unwrap().into_data();
            let difference = |index: usize| {
                let moved = |by: f64| {
                    let mut logits = exact.clone();
                    logits[index] += by;
                    reference(&logits, &mask, experts)
                };
                (moved(1e-5) - moved(-1e-5)) / 2e-5
            };
            let differences: Vec<f64> = (0..exact.len()).map(difference).collect();
            let largest = differences.iter().fold(1e-3, |m: f64, d| m.max(d.abs()));
            for (found, expected) in gradient.iter::<f64>().zip(differences) {
                let error = (found - expected).abs() / largest;
                assert!(error < 1e-4, "{experts}: {found} and {expected}");
            }
        }
    }
}

#[test]
fn where_nobody_wins_the_losses_are_zero_and_finite() {
    let none = winners(&[false; 24], 4);
    let logits = Tensor::<3>::zeros([2, 3, 4], &Device::flex());
    assert_eq!(scalar(similarity_loss(logits.clone(), &none)), 0.0);
    assert_eq!(scalar(balance_loss(logits, &none)), 0.0);
}

#[test]
fn the_sum_of_the_layers_is_weighted_and_the_parts_are_means() {
    let (logits, winners) = certain(|token| vec![token % 2]);
    let target = Tensor::<3>::ones([2, TOKENS / 2, 3], &Device::flex());
    let layer = LayerTrace {
        logits,
        mask: winners,
        target: Some(target.clone() * 3.0),
    };
    let layers = [layer.clone(), layer];
    let weights = |similarity_weight, balance_weight, target_weight| MoeConfig {
        similarity_weight,
        balance_weight,
        target_weight,
        ..MoeConfig::k_in_e(1, 8)
    };
    // Two experts of eight share everything evenly: each loss is 4; a guess of 3 for 1 is wrong by 4, squared.
    let all = Auxiliary::of(&weights(0.5, 0.25, 2.0), &layers, Some(target.clone()));
    let parts: Vec<_> = all
        .parts
        .into_iter()
        .map(|(name, part)| (name, scalar(part)))
        .collect();
    for ((name, part), expected) in parts.iter().zip(["similarity", "balance", "target"]) {
        assert!(
            *name == expected && (part - 4.0).abs() < 1e-2,
            "{name}: {part}"
        );
    }
    assert_eq!(parts.len(), 3);
    let total = scalar(all.total.unwrap());
    assert!((total - 2.0 * 4.0 * 2.75).abs() < 0.1, "{total}");

    let none = Auxiliary::of(&weights(0.0, 0.0, 0.0), &layers, Some(target));
    assert!(none.total.is_none() && none.parts.is_empty());
    let no_target = Auxiliary::of(&weights(0.0, 0.0, 1.0), &layers, None);
    assert!(no_target.total.is_none() && no_target.parts.is_empty());
}
