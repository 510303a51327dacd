//! The classifier that pictures are evaluated with.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ndarray::{Array3, Array4, Axis};
use std::fs;
use tessera_backend::Rng;
use tessera_evaluate::{
    Augment, Classifier, ClassifierConfig, Error, accuracy, evaluate, evaluate_dataset,
    features_of, train_classifier,
};
use tessera_pictures::dataset::{Dataset, batch};
use tessera_train::{RunFolder, Start, TrainConfig};
use tessera_weights::{Weight, WeightDtype, Weights};

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

    fn image(&self, index: usize) -> tessera_pictures::Result<Array3<f32>> {
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

/// The zero-initialized weights replaced by noise, so that no branch is silent.
fn busy_classifier(seed: u64) -> Classifier {
    let classifier = small_config().init(seed, &Device::flex()).unwrap();
    let mut rng = Rng::new(seed, 7);
    let mut weights = Weights::of(&classifier);
    let named: Vec<_> = weights
        .iter()
        .map(|(name, weight)| (name.to_owned(), weight.clone()))
        .collect();
    for (name, weight) in named {
        let values = weight.values().unwrap();
        let values = values.iter().map(|x| x + 0.2 * rng.normal()).collect();
        weights.insert(name, Weight::new(weight.shape(), values));
    }
    weights.apply(classifier).unwrap()
}

fn random_images(count: usize, seed: u64) -> Array4<f32> {
    let mut rng = Rng::new(seed, 1);
    Array4::from_shape_simple_fn((count, 2, 8, 8), || 2.0 * rng.uniform() - 1.0)
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
    let shape = |name: &str| weights.get(name).map(|weight| weight.shape());
    assert_eq!(shape("conv_in.weight"), Some(&[8, 2, 3, 3][..]));
    assert_eq!(shape("stages.0.down.weight"), Some(&[16, 8, 3, 3][..]));
    assert_eq!(shape("stages.0.norm.weight"), Some(&[8][..]));
    assert_eq!(shape("stages.0.norm2.bias"), Some(&[16][..]));
    assert_eq!(shape("norm_out.weight"), Some(&[16][..]));
    assert_eq!(shape("project.weight"), Some(&[6, 16][..]));
    assert_eq!(shape("head.weight"), Some(&[4, 6][..]));
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
    let whole = evaluate(&classifier, [Ok(images.clone())]).unwrap();
    for size in [1, 4] {
        let batches = images.axis_chunks_iter(Axis(0), size);
        let batches = batches.map(|batch| Ok(batch.to_owned()));
        assert_eq!(evaluate(&classifier, batches).unwrap(), whole);
    }
    assert_eq!(
        features_of(&classifier, [Ok(images)]).unwrap(),
        whole.features
    );
}

#[test]
fn no_pictures_give_no_features() {
    let none = evaluate(&busy_classifier(2), []).unwrap();
    assert_eq!(none.features.dim(), (0, 6));
    assert!(none.predicted.is_empty());
}

#[test]
fn pictures_of_another_shape_or_not_finite_are_named() {
    let classifier = busy_classifier(2);
    let wide = evaluate(&classifier, [Ok(Array4::zeros((1, 2, 8, 9)))]);
    assert_eq!(
        wide.unwrap_err().to_string(),
        "images are [2, 8, 9], expected [2, 8, 8] (channels, height, width)"
    );
    let mut images = random_images(5, 3);
    images[[3, 0, 0, 0]] = f32::NAN;
    let error = evaluate(&classifier, [Ok(images)]).unwrap_err();
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
    let embedded = Classifier::from_bytes(&config, weights, &device).unwrap();
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
        Classifier::from_bytes(&config, weights.clone(), &device).unwrap_err()
    };
    let more_features = ClassifierConfig {
        features: 7,
        ..small_config()
    };
    let error = load(&more_features);
    assert!(
        matches!(error, Error::Weights(tessera_weights::Error::Mismatch(_))),
        "{error}"
    );
    let odd_width = ClassifierConfig {
        widths: vec![8, 12],
        ..small_config()
    };
    assert_eq!(
        load(&odd_width).to_string(),
        "widths = [8, 12]: must be multiples of 8, at least one"
    );
    let error = Classifier::from_bytes(b"{\"layers\": 3}", weights.clone(), &device).unwrap_err();
    assert!(matches!(error, Error::Json { .. }), "{error}");

    let anonymous = folder.path().join("anonymous.safetensors");
    let unnamed = Weights::of(&busy_classifier(5));
    unnamed
        .write(&anonymous, Default::default(), WeightDtype::F16)
        .unwrap();
    let config = serde_json::to_vec(&small_config()).unwrap();
    let error = Classifier::from_bytes(&config, fs::read(anonymous).unwrap(), &device);
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
    let images = batch(&test, &everything).unwrap();
    assert_eq!(
        accuracy(&classifier, images.view(), &labels).unwrap(),
        reported
    );
    let evaluated = evaluate_dataset(&classifier, &test, &everything).unwrap();
    assert_eq!(evaluated, evaluate(&classifier, [Ok(images)]).unwrap());
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
    let gray = ClassifierConfig {
        in_channels: 1,
        ..small_config()
    };
    let error = refuse("gray", gray, 100);
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
        fn image(&self, index: usize) -> tessera_pictures::Result<Array3<f32>> {
            Ok(Array3::zeros((1, 2 + index / 2, 2)))
        }
    }
    let growing = Growing(vec![]);
    assert_eq!(batch(&growing, &[0, 1]).unwrap().dim(), (2, 1, 2, 2));
    assert_eq!(batch(&growing, &[]).unwrap().len(), 0);
    let error = batch(&growing, &[0, 1, 2]).unwrap_err();
    assert!(
        matches!(
            error,
            tessera_pictures::Error::ImageShape {
                found: [1, 3, 2],
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn sizes_that_claim_more_than_the_weights_hold_are_refused_before_a_classifier_is_made() {
    let (config, device) = (small_config(), Device::flex());
    let classifier = busy_classifier(1);
    assert_eq!(config.elements().unwrap(), classifier.num_params() as u64);
    let folder = tempfile::tempdir().unwrap();
    classifier
        .save_dir(folder.path(), WeightDtype::F32)
        .unwrap();
    let refused = |change: fn(&mut ClassifierConfig)| {
        let mut config = small_config();
        change(&mut config);
        let json = serde_json::to_vec(&config).unwrap();
        fs::write(folder.path().join("config.json"), json).unwrap();
        Classifier::load_dir(folder.path(), &device)
            .unwrap_err()
            .to_string()
    };
    for far in [
        refused(|c| c.classes = 100_000_000),
        refused(|c| c.features = usize::MAX),
        refused(|c| c.widths[0] = 1 << 40),
    ] {
        assert!(far.contains("config.json: describes a model of "), "{far}");
    }
    // What pictures would be scaled to.
    assert!(refused(|c| c.img_size = 1 << 20).contains("16384 at most"));
    assert!(refused(|c| c.classes += 1).contains("misshapen"));
}
