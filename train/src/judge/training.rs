//! How the classifier is trained: cross-entropy over shifted and mirrored pictures.

use super::classifier::{Classifier, ClassifierConfig};
use super::examine::{examine_dataset, images_of};
use super::report::Agreement;
use crate::config::TrainConfig;
use crate::data::{Dataset, upload};
use crate::error::{BoxError, Error, Result};
use crate::ranks::Share;
use crate::run::{Losses, Objective, Observer, train};
use crate::run_folder::RunFolder;
use burn::tensor::Device;
use ndarray::{Array3, Array4, ArrayView3, Axis};
use serde::{Deserialize, Serialize};
use tessera_backend::Rng;
use tessera_backend::device_indices;
use tessera_backend::ops::cross_entropy;

/// What a picture may undergo without changing its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// A shift by up to so many pixels in each direction; what is uncovered repeats the border.
    pub shift_px: usize,
    /// Being mirrored left to right, half of the time. Not for digits and letters.
    pub mirror: bool,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            shift_px: 1,
            mirror: true,
        }
    }
}

impl Augment {
    /// A random variation of an image, `[channels, height, width]`.
    pub fn apply(&self, image: ArrayView3<f32>, rng: &mut Rng) -> Array3<f32> {
        let (_, height, width) = image.dim();
        let shift = self.shift_px as isize;
        let mut draw = || rng.below(2 * self.shift_px + 1) as isize - shift;
        let (down, right) = (draw(), draw());
        let mirror = self.mirror && rng.below(2) == 1;
        let source = |at: usize, by: isize, length: usize| {
            (at as isize - by).clamp(0, length as isize - 1) as usize
        };
        Array3::from_shape_fn(image.dim(), |(channel, y, x)| {
            let x = source(x, right, width);
            let x = if mirror { width - 1 - x } else { x };
            image[[channel, source(y, down, height), x]]
        })
    }
}

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
        let mut images = images_of(self.dataset, indices)?;
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

/// How [`ClassifierConfig::small`] is trained well and quickly: Fashion-MNIST, padded to 32 pixels, to 92.8 % of its test
/// set within some 500 seconds of CPU time.
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

/// Trains a classifier on `dataset` and returns its averaged weights, outside autodiff, with the share of `test` that it
/// classifies as labelled. `device` is a plain one; resumes if `run` does.
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
    let examined = examine_dataset(&classifier, test, &everything)?;
    let labels: Vec<usize> = everything.iter().map(|&index| test.label(index)).collect();
    let agreement = Agreement::of(&labels, &examined.predicted, config.classes)?;
    Ok((classifier, agreement.accuracy))
}

/// Before hours of work: the first image has the right shape and no class is beyond the classifier's.
fn check(dataset: &dyn Dataset, model: &Classifier) -> Result<()> {
    if dataset.is_empty() {
        return Err(Error::Judgement {
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
        Some(label) => Err(Error::Judgement {
            what: "a class",
            expected: format!("less than {classes}"),
            found: label.to_string(),
        }),
    }
}
