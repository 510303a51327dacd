//! How evenly experts are used, on masks whose measures are known.

use tessera_backend::Rng;
use tessera_moe::{RoutingMask, Usage};

const EXPERTS: usize = 8;

/// Of tokens with the experts given.
fn usage(tokens: usize, of_token: impl FnMut(usize) -> Vec<usize>) -> Usage {
    let mut scores = vec![0.0; tokens * EXPERTS];
    for (token, experts) in (0..tokens).map(of_token).enumerate() {
        experts
            .into_iter()
            .for_each(|expert| scores[token * EXPERTS + expert] = 1.0);
    }
    Usage::of(&RoutingMask::above(0.5, &scores, [1, tokens, EXPERTS]))
}

#[test]
fn random_pairs_use_nearly_all_combinations() {
    let mut rng = Rng::new(1, 0);
    let random = usage(20_000, |_| {
        let order = rng.permutation(EXPERTS);
        order[..2].to_vec()
    });
    let found = random.combination_usage();
    assert!((found - 0.93).abs() < 0.04, "{found}");
    assert!(random.max_vio() < 0.05, "{}", random.max_vio());
    assert_eq!((random.mean_active(), random.share_without()), (2.0, 0.0));
}

#[test]
fn collapsed_pairs_use_one_combination_in_nine() {
    let collapsed = usage(20_000, |token| vec![2 * (token % 4), 2 * (token % 4) + 1]);
    let found = collapsed.combination_usage();
    assert!((found - 0.11).abs() < 0.01, "{found}");
    assert_eq!(collapsed.max_vio(), 0.0, "and the loads are even");
    assert_eq!(collapsed.loads(), [5_000; 8]);
}

#[test]
fn one_expert_for_everything_is_the_largest_violation() {
    let all = usage(100, |_| vec![3, 5]);
    assert_eq!(all.max_vio(), 8.0 / 2.0 - 1.0);
    assert_eq!(all.combination_usage(), 0.0, "the only pair reaches 95 %");
    let single = usage(100, |_| vec![3]);
    assert_eq!((single.max_vio(), single.combination_usage()), (7.0, 0.0));
}

#[test]
fn tokens_without_an_expert_are_counted_and_passes_add_up() {
    let mut usage = usage(8, |token| match token % 4 {
        0 => vec![],
        n => (0..n).collect(),
    });
    assert_eq!((usage.share_without(), usage.mean_active()), (0.25, 1.5));
    usage.add(&RoutingMask::above(0.5, &[0.0; 64], [2, 4, EXPERTS]));
    assert_eq!(usage.tokens(), 16);
    assert_eq!((usage.share_without(), usage.mean_active()), (0.625, 0.75));
    assert_eq!(usage.loads()[..4], [6, 4, 2, 0]);
    let nothing = Usage::new(4);
    assert_eq!((nothing.max_vio(), nothing.mean_active()), (0.0, 0.0));
    assert_eq!(nothing.share_without(), 0.0);
    assert_eq!(nothing.combination_usage(), 0.0);
}
