//! How the classifier is trained: cross-entropy over shifted and mirrored pictures.

use crate::augment::Augment;
use crate::classifier::{Classifier, ClassifierConfig};
use crate::error::{Error, Result};
use crate::evaluate::evaluate_dataset;
use crate::report::Agreement;
use burn::tensor::Device;
use ndarray::{Array4, Axis};
use tessera_backend::ops::cross_entropy;
use tessera_backend::{Rng, device_indices, upload};
use tessera_pictures::dataset::{self, Dataset};
use tessera_train::{BoxError, Losses, Objective, Observer, RunFolder, Share, TrainConfig, train};

/// Cross-entropy of a [`Classifier`] on a data set.
pub struct ClassifierObjective<'a> {
    dataset: &'a dyn Dataset,
    augment: Augment,
}

impl<'a> ClassifierObjective<'a> {
    /// Trains on all of `dataset`.
    pub fn new(dataset: &'a dyn Dataset, augment: Augment) -> Self {
        Self { dataset, augment }
    }
}

impl Objective<Classifier> for ClassifierObjective<'_> {
    /// Images, `[batch, channels, height, width]` in `[-1, 1]`, and their classes.
    type Batch = (Array4<f32>, Vec<i32>);

    fn examples(&self) -> usize {
        self.dataset.len()
    }

    fn batch(&self, indices: &[usize], mut rng: Rng) -> Result<Self::Batch, BoxError> {
        let mut images = dataset::batch(self.dataset, indices)?;
        for mut image in images.axis_iter_mut(Axis(0)) {
            let varied = self.augment.apply(image.view(), &mut rng);
            image.assign(&varied);
        }
        let labels = indices
            .iter()
            .map(|&index| self.dataset.label(index) as i32);
        Ok((images, labels.collect()))
    }

    fn losses(
        &self,
        model: &Classifier,
        (images, labels): Self::Batch,
        share: Share,
        _rng: Rng,
    ) -> Result<Losses, BoxError> {
        let (device, part) = (model.device(), share.range(labels.len()));
        let batch = part.len();
        let labels = device_indices(labels[part.clone()].to_vec(), [batch], &device);
        let images = upload(images, &device).narrow(0, part.start, batch);
        let logits = model.forward(images);
        let predicted = logits.clone().argmax(1).reshape([batch]);
        Ok(Losses {
            parts: vec![("accuracy", predicted.equal(labels.clone()).float().mean())],
            ..Losses::new(cross_entropy(logits, labels).mean())
        })
    }
}

/// How [`ClassifierConfig::small`] is trained well and quickly: Fashion-MNIST, padded to 32 pixels, to 92.8 % of its
/// test set within some 500 seconds of CPU time.
pub fn classifier_recipe(seed: u64) -> TrainConfig {
    TrainConfig {
        batch_size: 64,
        epochs: 8,
        lr: 4e-3,
        warmup_epochs: 0.3,
        weight_decay: 0.05,
        betas: [0.9, 0.99],
        ema_decay: 0.998,
        log_every: 50,
        seed,
        ..TrainConfig::default()
    }
}

/// Trains a classifier on `dataset` and returns its averaged weights, outside autodiff, with the share of `test` that
/// it classifies as labeled. `device` is a plain one; resumes if `run` does.
///
/// # Errors
/// When pictures and configuration do not fit together, or as [`train`].
pub fn train_classifier(
    dataset: &dyn Dataset,
    test: &dyn Dataset,
    config: &ClassifierConfig,
    training: &TrainConfig,
    run: RunFolder,
    observer: &mut dyn Observer<Classifier>,
    device: &Device,
) -> Result<(Classifier, f64)> {
    let model = config.init(training.seed, &device.clone().autodiff())?;
    for dataset in [dataset, test] {
        check(dataset, &model)?;
    }
    let objective = ClassifierObjective::new(dataset, config.augment);
    let classifier = train(model, &objective, training, run, observer)?.ema;
    let everything: Vec<usize> = (0..test.len()).collect();
    let evaluated = evaluate_dataset(&classifier, test, &everything)?;
    let labels: Vec<usize> = everything.iter().map(|&index| test.label(index)).collect();
    let agreement = Agreement::of(&labels, &evaluated.predicted, config.classes)?;
    Ok((classifier, agreement.accuracy))
}

/// Before hours of work: the first image has the right shape and no class is beyond the classifier's.
fn check(dataset: &dyn Dataset, model: &Classifier) -> Result<()> {
    if dataset.is_empty() {
        return Err(Error::Mismatch {
            what: "the number of images",
            expected: "1 or more".into(),
            found: "0".into(),
        });
    }
    let (channels, height, width) = dataset.image(0)?.dim();
    let (found, expected) = ([channels, height, width], model.image_shape());
    if found != expected {
        return Err(Error::ImageShape { expected, found });
    }
    let classes = model.config().classes;
    let mut labels = (0..dataset.len()).map(|index| dataset.label(index));
    match labels.find(|&label| label >= classes) {
        None => Ok(()),
        Some(label) => Err(Error::Mismatch {
            what: "a class",
            expected: format!("less than {classes}"),
            found: label.to_string(),
        }),
    }
}
