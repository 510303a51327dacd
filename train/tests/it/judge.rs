//! The judges of generated pictures: the classifier, the Fréchet distance, the agreement.

use burn::tensor::{Device, Tensor};
use ndarray::{Array1, Array2, Array3, Array4, Axis, concatenate, s};
use proptest::prelude::*;
use std::fs;
use tessera_backend::Rng;
use tessera_train::data::Dataset;
use tessera_train::judge::{
    Agreement, Augment, Classifier, ClassifierConfig, FeatureStats, Frechet, accuracy, examine,
    examine_dataset, features_of, frechet_distance, images_of, symmetric_eigen, train_classifier,
};
use tessera_train::{Error, RunFolder, Start, TrainConfig, WeightDtype, Weights};

/// Noise that is brighter on the left (class 0), on the right (1), above (2) or below (3).
struct Sides {
    examples: usize,
    seed: u64,
    names: Vec<String>,
}

impl Sides {
    fn new(examples: usize, seed: u64) -> Self {
        let names = ["left", "right", "above", "below"]
            .map(str::to_owned)
            .into();
        Self {
            examples,
            seed,
            names,
        }
    }
}

impl Dataset for Sides {
    fn name(&self) -> &str {
        "sides"
    }

    fn len(&self) -> usize {
        self.examples
    }

    fn label(&self, index: usize) -> usize {
        index % 4
    }

    fn class_names(&self) -> &[String] {
        &self.names
    }

    fn image(&self, index: usize) -> tessera_train::Result<Array3<f32>> {
        let mut rng = Rng::new(self.seed, index as u64);
        let class = self.label(index);
        Ok(Array3::from_shape_fn((2, 8, 8), |(_, y, x)| {
            let bright = [x < 4, x >= 4, y < 4, y >= 4][class];
            let mean = if bright { 0.3 } else { -0.3 };
            (mean + 0.4 * rng.normal()).clamp(-1.0, 1.0)
        }))
    }
}

fn small_config() -> ClassifierConfig {
    ClassifierConfig {
        in_channels: 2,
        img_size: 8,
        classes: 4,
        widths: vec![8, 16],
        features: 6,
        augment: Augment {
            shift_px: 1,
            mirror: false,
        },
    }
}

/// The zero-initialised weights replaced by noise, so that no branch is silent.
fn busy_classifier(seed: u64) -> Classifier {
    let classifier = small_config().init(seed, &Device::flex()).unwrap();
    let mut rng = Rng::new(seed, 7);
    let mut weights = Weights::of(&classifier);
    let named: Vec<_> = weights
        .iter()
        .map(|(name, weight)| (name.to_owned(), weight.clone()))
        .collect();
    for (name, mut weight) in named {
        weight
            .data
            .iter_mut()
            .for_each(|x| *x += 0.2 * rng.normal());
        weights.insert(name, weight);
    }
    weights.apply(classifier).unwrap()
}

fn random_images(count: usize, seed: u64) -> Array4<f32> {
    let mut rng = Rng::new(seed, 1);
    Array4::from_shape_simple_fn((count, 2, 8, 8), || 2.0 * rng.uniform() - 1.0)
}

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
fn the_seed_alone_decides_the_weights_of_a_new_classifier() {
    let weights = |seed| Weights::of(&small_config().init(seed, &Device::flex()).unwrap());
    assert_eq!(weights(3), weights(3));
    assert_ne!(weights(3), weights(4));
}

#[test]
fn a_classifier_calls_its_weights_by_their_places() {
    let classifier = small_config().init(0, &Device::flex()).unwrap();
    let weights = Weights::of(&classifier);
    let shape = |name: &str| weights.get(name).map(|weight| weight.shape.clone());
    assert_eq!(shape("conv_in.weight"), Some(vec![8, 2, 3, 3]));
    assert_eq!(shape("stages.0.down.weight"), Some(vec![16, 8, 3, 3]));
    assert_eq!(shape("stages.0.norm.weight"), Some(vec![8]));
    assert_eq!(shape("stages.0.norm2.bias"), Some(vec![16]));
    assert_eq!(shape("norm_out.weight"), Some(vec![16]));
    assert_eq!(shape("project.weight"), Some(vec![6, 16]));
    assert_eq!(shape("head.weight"), Some(vec![4, 6]));
    assert_eq!(weights.len(), 20);
}

#[test]
fn the_default_classifier_is_less_than_500_kb_in_half_precision() {
    let classifier = ClassifierConfig::small(1, 32, 10).init(0, &Device::flex());
    let folder = tempfile::tempdir().unwrap();
    let saved = classifier
        .unwrap()
        .save_dir(folder.path(), WeightDtype::F16);
    saved.unwrap();
    let file = folder.path().join("model.safetensors");
    let bytes = fs::metadata(file).unwrap().len();
    assert!(bytes < 500_000, "{bytes} bytes");
}

#[test]
fn logits_are_those_of_the_features() {
    let classifier = busy_classifier(1);
    let images = || Tensor::<4>::from_data(random_data(), &Device::flex());
    fn random_data() -> burn::tensor::TensorData {
        let (values, _) = random_images(3, 2).into_raw_vec_and_offset();
        burn::tensor::TensorData::new(values, [3, 2, 8, 8])
    }
    let features = classifier.features(images());
    assert_eq!(features.dims(), [3, 6]);
    let logits = classifier.forward(images());
    assert_eq!(logits.dims(), [3, 4]);
    assert_eq!(classifier.logits(features).into_data(), logits.into_data());
}

#[test]
fn features_do_not_depend_on_how_pictures_are_batched() {
    let classifier = busy_classifier(2);
    let images = random_images(11, 3);
    let whole = examine(&classifier, [Ok(images.clone())]).unwrap();
    for size in [1, 4] {
        let batches = images.axis_chunks_iter(Axis(0), size);
        let batches = batches.map(|batch| Ok(batch.to_owned()));
        assert_eq!(examine(&classifier, batches).unwrap(), whole);
    }
    assert_eq!(
        features_of(&classifier, [Ok(images)]).unwrap(),
        whole.features
    );
}

#[test]
fn no_pictures_give_no_features() {
    let none = examine(&busy_classifier(2), []).unwrap();
    assert_eq!(none.features.dim(), (0, 6));
    assert!(none.predicted.is_empty());
}

#[test]
fn pictures_of_another_shape_or_not_finite_are_named() {
    let classifier = busy_classifier(2);
    let wide = examine(&classifier, [Ok(Array4::zeros((1, 2, 8, 9)))]);
    assert_eq!(
        wide.unwrap_err().to_string(),
        "images are [2, 8, 9], expected [2, 8, 8] (channels, height, width)"
    );
    let mut images = random_images(5, 3);
    images[[3, 0, 0, 0]] = f32::NAN;
    let error = examine(&classifier, [Ok(images)]).unwrap_err();
    assert!(
        matches!(error, Error::NonFiniteFeature { row: 3, .. }),
        "{error}"
    );
}

#[test]
fn a_saved_classifier_comes_back_bit_for_bit_and_half_precision_stays_close() {
    let (classifier, device) = (busy_classifier(5), Device::flex());
    let images = random_images(20, 6);
    let features = |c: &Classifier| features_of(c, [Ok(images.clone())]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    classifier
        .save_dir(folder.path(), WeightDtype::F32)
        .unwrap();
    let loaded = Classifier::load_dir(folder.path(), &device).unwrap();
    assert_eq!(loaded.config(), classifier.config());
    assert_eq!(features(&loaded), features(&classifier));

    classifier
        .save_dir(folder.path(), WeightDtype::F16)
        .unwrap();
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let (config, weights) = (read("config.json"), read("model.safetensors"));
    let embedded = Classifier::from_bytes(&config, &weights, &device).unwrap();
    let loaded = Classifier::load_dir(folder.path(), &device).unwrap();
    assert_eq!(features(&embedded), features(&loaded));
    let difference = &features(&embedded) - &features(&classifier);
    let largest = difference.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    assert!(largest < 2e-2, "{largest}");
}

#[test]
fn a_classifier_that_does_not_fit_its_configuration_is_refused() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    busy_classifier(5)
        .save_dir(folder.path(), WeightDtype::F16)
        .unwrap();
    let weights = fs::read(folder.path().join("model.safetensors")).unwrap();
    let load = |config: &ClassifierConfig| {
        let config = serde_json::to_vec(config).unwrap();
        Classifier::from_bytes(&config, &weights, &device).unwrap_err()
    };
    let more_features = ClassifierConfig {
        features: 7,
        ..small_config()
    };
    let error = load(&more_features);
    assert!(matches!(error, Error::Mismatch(_)), "{error}");
    let odd_width = ClassifierConfig {
        widths: vec![8, 12],
        ..small_config()
    };
    assert_eq!(
        load(&odd_width).to_string(),
        "widths = [8, 12]: must be multiples of 8, at least one"
    );
    let error = Classifier::from_bytes(b"{\"layers\": 3}", &weights, &device).unwrap_err();
    assert!(matches!(error, Error::Json { .. }), "{error}");

    let anonymous = folder.path().join("anonymous.safetensors");
    let unnamed = Weights::of(&busy_classifier(5));
    unnamed
        .write(&anonymous, Default::default(), WeightDtype::F16)
        .unwrap();
    let config = serde_json::to_vec(&small_config()).unwrap();
    let error = Classifier::from_bytes(&config, &fs::read(anonymous).unwrap(), &device);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("the schema is absent"),
        "a file without a schema is no classifier"
    );
}

#[test]
fn a_picture_too_small_for_its_halvings_is_refused() {
    let config = |img_size| ClassifierConfig {
        img_size,
        widths: vec![8; 4],
        ..small_config()
    };
    assert!(config(8).validate().is_ok());
    assert!(config(7).validate().is_err());
    let deep = ClassifierConfig {
        widths: vec![8; 100],
        ..small_config()
    };
    assert!(deep.validate().is_err());
}

fn trained(folder: &std::path::Path) -> (Classifier, f64) {
    let training = TrainConfig {
        batch_size: 16,
        epochs: 12,
        lr: 1e-2,
        warmup_epochs: 0.5,
        ema_decay: 0.9,
        ..TrainConfig::default()
    };
    let run = RunFolder::open(folder, &training, Start::New).unwrap();
    let (train, test) = (Sides::new(320, 1), Sides::new(100, 2));
    let device = Device::flex();
    let config = small_config();
    train_classifier(&train, &test, &config, &training, run, &mut (), &device).unwrap()
}

#[test]
fn training_learns_the_classes_and_repeats_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (classifier, reported) = trained(&folder.path().join("a"));
    println!("accuracy {reported}");
    assert!(reported >= 0.97, "{reported}");
    let test = Sides::new(100, 2);
    let everything: Vec<usize> = (0..100).collect();
    let labels: Vec<usize> = everything.iter().map(|&i| test.label(i)).collect();
    let images = images_of(&test, &everything).unwrap();
    assert_eq!(
        accuracy(&classifier, images.view(), &labels).unwrap(),
        reported
    );
    let examined = examine_dataset(&classifier, &test, &everything).unwrap();
    assert_eq!(examined, examine(&classifier, [Ok(images)]).unwrap());
    let (again, _) = trained(&folder.path().join("b"));
    assert_eq!(Weights::of(&again), Weights::of(&classifier));
}

#[test]
fn data_that_the_classifier_cannot_judge_are_refused_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |name: &str, config: ClassifierConfig, examples| {
        let training = TrainConfig::default();
        let run = RunFolder::open(folder.path().join(name), &training, Start::New).unwrap();
        let (train, test) = (Sides::new(examples, 1), Sides::new(8, 2));
        let device = Device::flex();
        train_classifier(&train, &test, &config, &training, run, &mut (), &device).unwrap_err()
    };
    let grey = ClassifierConfig {
        in_channels: 1,
        ..small_config()
    };
    let error = refuse("grey", grey, 100);
    assert!(matches!(error, Error::ImageShape { .. }), "{error}");
    let few = ClassifierConfig {
        classes: 3,
        ..small_config()
    };
    let error = refuse("few", few, 100).to_string();
    assert_eq!(error, "a class is 3, expected less than 3");
    let error = refuse("none", small_config(), 0).to_string();
    assert_eq!(error, "the number of images is 0, expected 1 or more");
}

#[test]
fn augmenting_by_nothing_changes_nothing() {
    let nothing = Augment {
        shift_px: 0,
        mirror: false,
    };
    let image = Sides::new(1, 1).image(0).unwrap();
    assert_eq!(nothing.apply(image.view(), &mut Rng::new(0, 0)), image);
}

#[test]
fn augmenting_draws_every_shift_and_both_directions() {
    let augment = Augment {
        shift_px: 1,
        mirror: true,
    };
    let image = Array3::from_shape_fn((1, 4, 4), |(_, y, x)| (4 * y + x) as f32);
    // Shifting is cutting a window out of the image with its border repeated.
    let window = |(down, right, mirror): (isize, isize, bool)| {
        Array3::from_shape_fn((1, 4, 4), |(_, y, x)| {
            let y = (y as isize - down).clamp(0, 3);
            let x = (x as isize - right).clamp(0, 3);
            (4 * y + if mirror { 3 - x } else { x }) as f32
        })
    };
    let mut variants: Vec<_> = (0..18)
        .map(|n| (window((n % 3 - 1, n / 3 % 3 - 1, n >= 9)), 0))
        .collect();
    let mut rng = Rng::new(3, 1);
    for _ in 0..1800 {
        let varied = augment.apply(image.view(), &mut rng);
        let variant = variants.iter_mut().find(|(variant, _)| *variant == varied);
        variant.expect("a shifted, possibly mirrored image").1 += 1;
    }
    // 1800 draws of 18: 100 each, standard deviation 10.
    assert!(variants.iter().all(|(_, count)| (50..150).contains(count)));
}

#[test]
fn pictures_of_unlike_shapes_do_not_make_a_batch() {
    struct Growing(Vec<String>);
    impl Dataset for Growing {
        fn name(&self) -> &str {
            "growing"
        }
        fn len(&self) -> usize {
            3
        }
        fn label(&self, _: usize) -> usize {
            0
        }
        fn class_names(&self) -> &[String] {
            &self.0
        }
        fn image(&self, index: usize) -> tessera_train::Result<Array3<f32>> {
            Ok(Array3::zeros((1, 2 + index / 2, 2)))
        }
    }
    let growing = Growing(vec![]);
    assert_eq!(images_of(&growing, &[0, 1]).unwrap().dim(), (2, 1, 2, 2));
    assert_eq!(images_of(&growing, &[]).unwrap().len(), 0);
    let error = images_of(&growing, &[0, 1, 2]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::ImageShape {
                found: [1, 3, 2],
                ..
            }
        ),
        "{error}"
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
        let turn = symmetric_eigen(normal_rows(features, features, &mut rng).view()).unwrap().vectors;
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

    #[test]
    fn eigenvectors_are_orthonormal_and_rebuild_their_matrix(seed: u64, n in 0..20_usize, exponent in -100..100_i32) {
        let matrix = normal_rows(n, n, &mut Rng::new(seed, 0)) * 10_f64.powi(exponent);
        let matrix = &matrix + &matrix.t();
        let eigen = symmetric_eigen(matrix.view()).unwrap();
        let rebuilt = (&eigen.vectors * &eigen.values).dot(&eigen.vectors.t());
        let unit = eigen.vectors.t().dot(&eigen.vectors) - Array2::<f64>::eye(n);
        prop_assert!(unit.iter().all(|x| x.abs() < 1e-12));
        let scale = matrix.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
        prop_assert!((rebuilt - &matrix).iter().all(|x| x.abs() <= 1e-12 * scale));
    }
}
