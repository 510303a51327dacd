//! Precision, recall and nearest neighbors, and the report that they are part of.

use ndarray::{Array2, Axis, array, concatenate, s};
use proptest::prelude::*;
use tessera_backend::Rng;
use tessera_evaluate::{
    FeatureFigures, FeatureReport, nearest, radii, require_enough, share_within,
};

fn normal_rows(count: usize, features: usize, rng: &mut Rng) -> Array2<f64> {
    Array2::from_shape_simple_fn((count, features), || f64::from(rng.normal()))
}

#[test]
fn radii_reach_to_the_kth_nearest_other() {
    let rows = array![[0.0], [1.0], [3.0], [10.0]];
    assert_eq!(radii(rows.view(), 1).unwrap(), [1.0, 1.0, 4.0, 49.0]);
    assert_eq!(radii(rows.view(), 3).unwrap(), [100.0, 81.0, 49.0, 100.0]);
    for k in [0, 4] {
        assert!(radii(rows.view(), k).is_err());
    }
    // Three times the same: 0, not what rounding leaves of their length.
    let same = Array2::from_elem((3, 40), 1e3_f64 / 3.0);
    assert_eq!(radii(same.view(), 2).unwrap(), [0.0; 3]);
    assert_eq!(share_within(same.view(), same.view(), &[0.0; 3]), 1.0);
}

#[test]
fn identical_sets_have_precision_and_recall_1_and_sets_far_apart_0() {
    let rows = normal_rows(150, 20, &mut Rng::new(1, 1));
    let same = FeatureFigures::of(rows.view(), rows.view(), 3).unwrap();
    assert_eq!((same.precision, same.recall), (1.0, 1.0));
    let far = FeatureFigures::of((&rows + 100.0).view(), rows.view(), 3).unwrap();
    assert_eq!((far.precision, far.recall), (0.0, 0.0));
}

/// Half of the real pictures' places are never drawn: all that is drawn is real, half of what is real is drawn.
#[test]
fn what_is_missing_costs_recall_and_what_is_invented_precision() {
    let mut rng = Rng::new(2, 1);
    let [left, right] = [0.0, 50.0].map(|place| normal_rows(200, 4, &mut rng) + place);
    let real = concatenate![Axis(0), left, right];
    let drawn = normal_rows(400, 4, &mut rng) * 0.5;
    let figures = FeatureFigures::of(drawn.view(), real.view(), 3).unwrap();
    assert!(figures.precision > 0.95, "{figures:?}");
    assert!(figures.recall < 0.5 && figures.recall > 0.1, "{figures:?}");
    let other_way = FeatureFigures::of(real.view(), drawn.view(), 3).unwrap();
    assert_eq!(other_way.precision, figures.recall);
}

#[test]
fn the_nearest_come_in_order() {
    let rows = array![[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]];
    let queries = array![[3.0, 0.0], [3.0, 4.5]];
    let (indices, distances) = nearest(queries.view(), rows.view(), 3);
    assert_eq!(indices, array![[2, 0, 1], [1, 2, 0]]);
    assert_eq!(distances, array![2.0, 0.5]);
}

#[test]
fn the_floor_is_of_as_many_real_pictures_or_of_two_halves() {
    let mut rng = Rng::new(3, 1);
    let [drawn, real, more] = [60, 100, 200].map(|count| normal_rows(count, 8, &mut rng));
    let report = |more| FeatureReport::of(drawn.view(), real.view(), more, 3).unwrap();
    let with = report(Some(more.view()));
    let floor = with.floor;
    assert_eq!(
        (floor.figures.count, floor.figures.real_count, floor.draws),
        (60, 100, 3)
    );
    assert!(floor.distance_std > 0.0 && with.halved.is_none());
    assert!((0.4..2.5).contains(&(with.pictures.distance / floor.figures.distance)));
    let halves = report(None);
    let (floor, halved) = (halves.floor, halves.halved.unwrap());
    assert_eq!(
        (floor.figures.count, floor.figures.real_count, floor.draws),
        (50, 50, 1)
    );
    assert_eq!((halved.count, halved.real_count), (50, 50));
    assert_eq!(halves.pictures, with.pictures);
    // Fewer pictures, larger distances.
    assert!(halved.distance > halves.pictures.distance);
    let json = serde_json::to_value(with).unwrap();
    assert_eq!(json["name"], "FD-EffLite0");
    assert_eq!(json["floor"]["real_count"], 100);
    let few = more.slice(s![..59, ..]);
    assert!(FeatureReport::of(drawn.view(), real.view(), Some(few), 3).is_err());
}

#[test]
fn too_few_pictures_are_refused_before_any_is_looked_at() {
    let said = |pictures, real, more| {
        require_enough(pictures, real, more, 3)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        said(3, 100, None),
        "the number of pictures is 3, expected at least 4, one more than the 3 nearest neighbors of each"
    );
    assert!(said(4, 7, None).starts_with("the number of real pictures is 7, expected at least 8"));
    assert!(
        said(4, 3, Some(9)).starts_with("the number of real pictures is 3, expected at least 4")
    );
    assert!(said(9, 9, Some(8)).starts_with("the number of real pictures for the floor is 8"));
    require_enough(4, 8, None, 3).unwrap();
    require_enough(9, 4, Some(9), 3).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn precision_one_way_is_recall_the_other(
        seed: u64, [a, b] in [5..90_usize, 5..90], features in 1..20_usize, k in 1..4_usize,
    ) {
        let mut rng = Rng::new(seed, 0);
        let a = normal_rows(a, features, &mut rng);
        let b = normal_rows(b, features, &mut rng) * 1.2 + 0.3;
        let there = FeatureFigures::of(a.view(), b.view(), k).unwrap();
        let back = FeatureFigures::of(b.view(), a.view(), k).unwrap();
        prop_assert_eq!((there.precision, there.recall), (back.recall, back.precision));
        prop_assert!((0.0..=1.0).contains(&there.precision) && (0.0..=1.0).contains(&there.recall));
    }

    /// All pairs one by one, in the words of the paper.
    #[test]
    fn shares_and_radii_are_those_of_all_pairs(
        seed: u64, [a, b] in [1..150_usize, 5..90], features in 1..9_usize, k in 1..4_usize,
    ) {
        let mut rng = Rng::new(seed, 0);
        let [a, b] = [a, b].map(|count| normal_rows(count, features, &mut rng));
        let apart = |x: usize, y: usize, rows: &Array2<f64>| (&rows.row(x) - &b.row(y)).mapv(|x| x * x).sum();
        let balls: Vec<f64> = (0..b.nrows()).map(|i| {
            let mut others: Vec<f64> = (0..b.nrows()).filter(|&j| j != i).map(|j| apart(i, j, &b)).collect();
            others.sort_by(f64::total_cmp);
            others[k - 1]
        }).collect();
        let found = radii(b.view(), k).unwrap();
        prop_assert!(found.iter().zip(&balls).all(|(x, y)| (x - y).abs() < 1e-9 * (1.0 + y)));
        let within = (0..a.nrows()).filter(|&i| (0..b.nrows()).any(|j| apart(i, j, &a) <= balls[j])).count();
        prop_assert_eq!(share_within(a.view(), b.view(), &balls), within as f64 / a.nrows() as f64);
    }
}
