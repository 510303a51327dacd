//! The Fréchet distance of features, its floor, and the agreement with what was asked for.

use crate::jacobi::symmetric_eigen;
use ndarray::{Array1, Array2, Axis, concatenate, s};
use proptest::prelude::*;
use tessera_backend::Rng;
use tessera_evaluate::{
    Agreement, FeatureStats, Frechet, factor, frechet_distance, symmetric_eigenvalues,
};

fn normal_rows(count: usize, features: usize, rng: &mut Rng) -> Array2<f64> {
    Array2::from_shape_simple_fn((count, features), || f64::from(rng.normal()))
}

/// `[[a, c], [c, b]]` about a mean.
fn stats_2d(mean: [f64; 2], [a, b, c]: [f64; 3]) -> FeatureStats {
    FeatureStats {
        count: 100,
        mean: Array1::from(mean.to_vec()),
        covariance: Array2::from_shape_vec((2, 2), vec![a, c, c, b]).unwrap(),
    }
}

fn diagonal(mean: &[f64], variances: &[f64]) -> FeatureStats {
    FeatureStats {
        count: 100,
        mean: Array1::from(mean.to_vec()),
        covariance: Array2::from_diag(&Array1::from(variances.to_vec())),
    }
}

fn assert_near(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance,
        "{found} is not {expected} within {tolerance}"
    );
}

#[test]
fn equal_gaussians_are_0_apart() {
    let rows = normal_rows(50, 16, &mut Rng::new(1, 1));
    let stats = FeatureStats::from_rows(rows.view()).unwrap();
    assert_near(frechet_distance(&stats, &stats).unwrap(), 0.0, 1e-10);
}

#[test]
fn equal_gaussians_without_full_rank_are_nearly_0_apart() {
    let rows = normal_rows(9, 64, &mut Rng::new(1, 2));
    let stats = FeatureStats::from_rows(rows.view()).unwrap();
    assert_near(frechet_distance(&stats, &stats).unwrap(), 0.0, 1e-5);
}

#[test]
fn a_shift_alone_costs_its_square() {
    let a = stats_2d([0.0, 0.0], [2.0, 1.0, 0.5]);
    let b = stats_2d([3.0, -4.0], [2.0, 1.0, 0.5]);
    assert_near(frechet_distance(&a, &b).unwrap(), 25.0, 1e-12);
}

/// Σ (σa − σb)² for commuting covariances.
#[test]
fn diagonal_covariances_are_apart_by_their_standard_deviations() {
    let a = diagonal(&[1.0, 0.0, 0.0], &[1.0, 4.0, 9.0]);
    let b = diagonal(&[0.0, 0.0, 0.0], &[4.0, 4.0, 0.0]);
    assert_near(frechet_distance(&a, &b).unwrap(), 1.0 + 1.0 + 9.0, 1e-12);
}

#[test]
fn gaussians_of_other_sizes_or_without_finite_values_are_refused() {
    let a = diagonal(&[0.0, 0.0], &[1.0, 1.0]);
    let b = diagonal(&[0.0], &[1.0]);
    assert!(frechet_distance(&a, &b).is_err());
    assert!(a.merge(&b).is_err());
    let broken = diagonal(&[0.0, 0.0], &[1.0, f64::NAN]);
    assert!(frechet_distance(&a, &broken).is_err());
    assert!(frechet_distance(&broken, &a).is_err());
    let adrift = diagonal(&[0.0, f64::INFINITY], &[1.0, 1.0]);
    assert!(frechet_distance(&a, &adrift).is_err());
}

#[test]
fn features_that_are_not_finite_or_too_few_have_no_statistics() {
    let mut rows = Array2::zeros((4, 3));
    rows[[2, 1]] = f64::INFINITY;
    let error = FeatureStats::from_rows(rows.view())
        .unwrap_err()
        .to_string();
    assert_eq!(error, "feature 1 of picture 2 is not finite");
    for shape in [(0, 3), (1, 3), (4, 0)] {
        assert!(FeatureStats::from_rows(Array2::zeros(shape).view()).is_err());
    }
}

#[test]
fn the_floor_falls_with_the_number_of_pictures() {
    let mut rng = Rng::new(4, 4);
    let [train, test] = [2000, 1000].map(|count| normal_rows(count, 8, &mut rng));
    let frechet = |count| {
        let generated = normal_rows(count, 8, &mut Rng::new(count as u64, 5));
        Frechet::of(generated.view(), train.view(), test.view()).unwrap()
    };
    let (few, many) = (frechet(50), frechet(1000));
    println!("{few:?} {many:?}");
    assert_eq!((few.count, few.test_count), (50, 1000));
    assert!(few.floor > 4.0 * many.floor);
    assert!(few.floor_std > 0.0 && few.floor_std < few.floor);
    // The same distribution: the distance is of the size of its floor, however many there are.
    for frechet in [few, many] {
        assert!((0.5..2.0).contains(&(frechet.distance / frechet.floor)));
    }
    let shifted = normal_rows(1000, 8, &mut Rng::new(6, 5)) + 1.0;
    let shifted = Frechet::of(shifted.view(), train.view(), test.view()).unwrap();
    assert_near(shifted.distance, 8.0, 1.0);
    assert_eq!(shifted.floor, many.floor);
}

#[test]
fn the_floor_needs_as_many_real_pictures_and_takes_them_from_everywhere() {
    let mut rng = Rng::new(5, 4);
    let few = normal_rows(9, 2, &mut rng);
    let many = normal_rows(10, 2, &mut rng);
    assert!(Frechet::of(many.view(), few.view(), few.view()).is_err());
    // In the order of the classes: the first half lies elsewhere than the second.
    let mut train = normal_rows(2000, 2, &mut rng);
    let mut test = normal_rows(1000, 2, &mut rng);
    train.slice_mut(s![..1000, ..]).mapv_inplace(|x| x + 50.0);
    test.slice_mut(s![..500, ..]).mapv_inplace(|x| x + 50.0);
    let judged = Frechet::of(test.view(), train.view(), test.view()).unwrap();
    assert!(judged.floor < 1.0, "{}", judged.floor);
    // As many as there are: one draw, all of them.
    let all = Frechet::of(train.view(), train.view(), test.view()).unwrap();
    assert_eq!((all.floor, all.floor_std), (all.distance, 0.0));
}

#[test]
fn agreement_counts_by_class_and_by_confusion() {
    let agreement = Agreement::of(&[0, 0, 1, 1, 1], &[0, 1, 1, 1, 0], 3).unwrap();
    assert_near(agreement.accuracy, 0.6, 1e-15);
    assert_eq!(
        agreement.confusion,
        [vec![1, 1, 0], vec![1, 2, 0], vec![0, 0, 0]]
    );
    let json = serde_json::to_value(&agreement).unwrap();
    let expected = serde_json::json!([
        { "requested": 2, "agreed": 1 },
        { "requested": 3, "agreed": 2 },
        { "requested": 0, "agreed": 0 },
    ]);
    assert_eq!(json["per_class"], expected);
    assert_eq!(json["accuracy"], 0.6);
}

#[test]
fn agreement_of_unlike_lists_is_refused() {
    assert!(Agreement::of(&[0, 1], &[0], 2).is_err());
    assert!(Agreement::of(&[], &[], 2).is_err());
    let error = Agreement::of(&[0, 2], &[0, 1], 2).unwrap_err().to_string();
    assert_eq!(error, "a class is 2, expected less than 2");
}

/// A positive definite `[a, b, c]` of [`stats_2d`].
fn covariance_2d() -> impl Strategy<Value = [f64; 3]> {
    (0.1..4.0, 0.1..4.0, -0.95..0.95_f64)
        .prop_map(|(a, b, correlation): (f64, f64, f64)| [a, b, correlation * (a * b).sqrt()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With eigenvalues λ₁ and λ₂ of Ca Cb, (√λ₁ + √λ₂)² = tr Ca Cb + 2 √det Ca Cb.
    #[test]
    fn the_distance_in_two_dimensions_is_the_closed_form(a in covariance_2d(), b in covariance_2d()) {
        let determinant = |[a, b, c]: [f64; 3]| a * b - c * c;
        let trace = a[0] * b[0] + 2.0 * a[2] * b[2] + a[1] * b[1];
        let root = (trace + 2.0 * (determinant(a) * determinant(b)).sqrt()).sqrt();
        let expected = a[0] + a[1] + b[0] + b[1] - 2.0 * root;
        let (a, b) = (stats_2d([1.0, 2.0], a), stats_2d([1.0, 2.0], b));
        let found = frechet_distance(&a, &b).unwrap();
        prop_assert!((found - expected).abs() < 1e-9, "{found}, {expected}");
    }

    #[test]
    fn the_distance_is_symmetric_and_not_negative(seed: u64, features in 1..12_usize, count in 2..40_usize) {
        let mut rng = Rng::new(seed, 0);
        let [a, b] = [1.0, 2.0].map(|scale| {
            let rows = normal_rows(count, features, &mut rng) * scale;
            FeatureStats::from_rows(rows.view()).unwrap()
        });
        let (there, back) = (frechet_distance(&a, &b).unwrap(), frechet_distance(&b, &a).unwrap());
        prop_assert!(there >= 0.0);
        prop_assert!((there - back).abs() < 1e-5, "{there}, {back}");
    }

    /// The orthogonal map is the eigenvectors of a random symmetric matrix.
    #[test]
    fn a_turn_of_both_changes_nothing_and_a_scale_its_square(seed: u64, features in 1..8_usize) {
        let mut rng = Rng::new(seed, 0);
        let turn = normal_rows(features, features, &mut rng);
        let turn = symmetric_eigen((&turn + &turn.t()).view()).vectors;
        let [a, b] = [20, 30].map(|count| normal_rows(count, features, &mut rng));
        let distance = |map: &dyn Fn(&Array2<f64>) -> Array2<f64>| {
            let [a, b] = [&a, &b].map(|rows| FeatureStats::from_rows(map(rows).view()).unwrap());
            frechet_distance(&a, &b).unwrap()
        };
        let plain = distance(&|rows| rows.clone());
        prop_assert!((distance(&|rows| rows.dot(&turn)) - plain).abs() < 1e-8);
        prop_assert!((distance(&|rows| rows * 3.0) - 9.0 * plain).abs() < 1e-7);
    }

    #[test]
    fn merged_statistics_are_those_of_all_rows(seed: u64, first in 2..30_usize, second in 2..30_usize) {
        let mut rng = Rng::new(seed, 0);
        let a = normal_rows(first, 5, &mut rng);
        let b = normal_rows(second, 5, &mut rng) * 2.0 + 100.0;
        let all = FeatureStats::from_rows(concatenate![Axis(0), a, b].view()).unwrap();
        let [a, b] = [a, b].map(|rows| FeatureStats::from_rows(rows.view()).unwrap());
        let merged = a.merge(&b).unwrap();
        prop_assert_eq!(merged.count, all.count);
        let near = |x: &f64, y: &f64| (x - y).abs() < 1e-9 * (1.0 + y.abs());
        prop_assert!(merged.mean.iter().zip(&all.mean).all(|(x, y)| near(x, y)));
        prop_assert!(merged.covariance.iter().zip(&all.covariance).all(|(x, y)| near(x, y)));
    }

    /// By rotations, which are slow.
    #[test]
    fn eigenvalues_are_those_of_the_reference(
        seed: u64, n in 0..24_usize, rank in 0..24_usize, exponent in -50..50_i32,
    ) {
        let rows = normal_rows(n, n.min(rank), &mut Rng::new(seed, 0)) * 10_f64.powi(exponent);
        let matrix = rows.dot(&rows.t());
        let sorted = |values: Array1<f64>| {
            let mut values = values.to_vec();
            values.sort_by(f64::total_cmp);
            values
        };
        let found = sorted(symmetric_eigenvalues(matrix.view()).unwrap());
        let expected = sorted(symmetric_eigen(matrix.view()).values);
        let scale = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        let near = found.iter().zip(&expected).all(|(x, y)| (x - y).abs() <= 1e-13 * scale);
        prop_assert!(near, "{found:?} {expected:?}");
    }

    #[test]
    fn a_factor_rebuilds_its_matrix_and_has_its_rank(
        seed: u64, n in 0..24_usize, rank in 0..24_usize, exponent in -50..50_i32,
    ) {
        let rows = normal_rows(n, n.min(rank), &mut Rng::new(seed, 0)) * 10_f64.powi(exponent);
        let matrix = rows.dot(&rows.t());
        let factor = factor(matrix.view()).unwrap();
        prop_assert!(factor.nrows() <= n.min(rank), "{}", factor.nrows());
        let scale = matrix.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        let apart = factor.t().dot(&factor) - &matrix;
        prop_assert!(apart.iter().all(|x| x.abs() <= 1e-12 * scale));
    }
}
