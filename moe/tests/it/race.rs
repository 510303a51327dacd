//! All rules against counting who beats whom.

use crate::naive;
use proptest::prelude::*;
use tessera_moe::{Error, MoeConfig, RoutingMask, RoutingRule};

/// A shape, scores of few values, so that there are ties everywhere, and a mean number of experts.
fn cases() -> impl Strategy<Value = ([usize; 3], Vec<f32>, f64)> {
    let shape = (1_usize..5, 1_usize..6, 1_usize..6);
    shape.prop_flat_map(|(batch, seq, experts)| {
        let values = prop::sample::select(vec![-3.5_f32, -0.0, 0.0, 0.25, 0.25, f32::INFINITY]);
        let scores = prop::collection::vec(values, batch * seq * experts);
        let k = prop_oneof![
            0.0..=experts as f64,
            Just(0.0),
            Just(experts as f64),
            (0..=experts).prop_map(|k| k as f64),
        ];
        (Just([batch, seq, experts]), scores, k)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn every_rule_has_the_winners_of_a_count((shape, scores, k) in cases()) {
        let [batch, seq, experts] = shape;
        for rule in RoutingRule::ALL {
            let races = naive::races(rule, shape);
            let winning = (k * (batch * seq) as f64 / races as f64).round() as usize;
            let winners = rule.select(&scores, shape, k).unwrap();
            prop_assert_eq!(winners.shape(), shape);
            let expected = naive::winners(rule, &scores, shape, winning);
            prop_assert_eq!(winners.as_slice(), &expected[..], "{:?}", rule);
            // K of each race win, and no race has other places than these.
            let won = expected.iter().filter(|&&won| won).count();
            prop_assert_eq!(won, winning * races, "{:?}", rule);
            let mean = won as f64 / (batch * seq) as f64;
            let rounding = 0.5 * races as f64 / (batch * seq) as f64;
            prop_assert!((mean - k).abs() <= rounding + 1e-9, "{:?}: {} of {}", rule, mean, k);
            prop_assert_eq!(winners.rows().len(), batch * seq);
            prop_assert!(winners.rows().all(|row| row.len() == experts));
        }
    }

    /// The K-th score is the worst that won; over several races it is their mean.
    #[test]
    fn the_last_score_that_won_is_reported((shape, scores, k) in cases()) {
        let scores: Vec<f32> = scores.into_iter().map(|score| score.min(9.0)).collect();
        for rule in [RoutingRule::Race, RoutingRule::SeqExperts] {
            let winners = rule.select(&scores, shape, k).unwrap();
            let worst = |(scores, mask): (&[f32], &[bool])| {
                let won = scores.iter().zip(mask).filter(|(_, won)| **won);
                won.map(|(&score, _)| score).reduce(f32::min)
            };
            let size = scores.len() / naive::races(rule, shape);
            let worst: Option<Vec<f32>> =
                scores.chunks(size).zip(winners.as_slice().chunks(size)).map(worst).collect();
            let mean = worst.map(|worst| worst.iter().sum::<f32>() / worst.len() as f32);
            match (winners.cutoff(), mean) {
                (Some(found), Some(expected)) => prop_assert!((found - expected).abs() < 1e-5),
                (found, expected) => prop_assert_eq!(found, expected),
            }
        }
    }
}

#[test]
fn one_expert_and_no_tokens_are_no_special_cases() {
    for rule in RoutingRule::ALL {
        let all = rule.select(&[0.5, -1.0], [1, 2, 1], 1.0).unwrap();
        assert_eq!(all.as_slice(), [true, true], "{rule:?}");
        let none = rule.select(&[], [0, 4, 3], 2.0).unwrap();
        assert_eq!(
            (none.as_slice().len(), none.cutoff()),
            (0, None),
            "{rule:?}"
        );
        let none = rule.select(&[], [2, 0, 3], 2.0).unwrap();
        assert_eq!(
            (none.as_slice().len(), none.cutoff()),
            (0, None),
            "{rule:?}"
        );
    }
}

#[test]
fn a_score_that_is_nan_is_refused_with_its_place() {
    let mut scores = [0.0; 12];
    scores[7] = f32::NAN;
    for rule in RoutingRule::ALL {
        let error = rule.select(&scores, [2, 2, 3], 1.0).unwrap_err();
        assert!(
            matches!(
                error,
                Error::NotANumber {
                    token: 2,
                    expert: 1
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_threshold_takes_what_reaches_it_or_is_nan_and_images_are_stacked_in_order() {
    let one = RoutingMask::above(0.5, &[0.5, 0.4, f32::NAN, 2.0], [1, 2, 2]);
    assert_eq!(one.as_slice(), [true, false, true, true]);
    assert_eq!(one.cutoff(), None);
    let other = RoutingMask::above(-1.0, &[0.0; 4], [1, 2, 2]);
    let both = RoutingMask::concat(&[one, other]);
    assert_eq!(both.shape(), [2, 2, 2]);
    let mask = [true, false, true, true, true, true, true, true];
    assert_eq!(both.as_slice(), mask);
}

#[test]
fn races_that_select_nobody_are_refused_before_training() {
    let config = MoeConfig {
        rule: RoutingRule::Expert,
        ..MoeConfig::k_in_e(2, 32)
    };
    // An expert has 4 tokens of an image to choose from: K = round(2 · 4 / 32).
    assert_eq!(RoutingRule::Expert.selected([8, 4, 32], 2.0), 0);
    let error = config.validate_races([8, 4]).unwrap_err().to_string();
    assert!(
        error.contains("8 images of 4 tokens and 32 experts"),
        "{error}"
    );
    config.validate_races([8, 8]).unwrap();
    let none = MoeConfig { k: 0.0, ..config };
    none.validate_races([8, 4]).unwrap();
}
