//! The classifier applied to many pictures, block by block.

use crate::classifier::Classifier;
use crate::error::{Error, Result};
use crate::report::Agreement;
use burn::tensor::Tensor;
use ndarray::{Array2, Array4, ArrayView4, Axis};
use tessera_backend::{host_values, upload};
use tessera_pictures::dataset::{self, Dataset};

/// Pictures that go through the classifier together; results do not depend on it.
const BLOCK: usize = 250;

/// What the classifier says of some pictures, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// The features of every picture, `[pictures, features]`.
    pub features: Array2<f64>,
    /// The likeliest class of every picture.
    pub predicted: Vec<usize>,
}

/// Features and likeliest classes of pictures that come in batches of any size, `[batch, channels, height, width]` in
/// `[-1, 1]`.
///
/// # Errors
/// What a batch gives; pictures of another shape than the classifier's; features that are not finite.
pub fn evaluate(
    classifier: &Classifier,
    batches: impl IntoIterator<Item = Result<Array4<f32>>>,
) -> Result<Evaluated> {
    let config = classifier.config();
    let (mut features, mut predicted) = (Vec::new(), Vec::new());
    for batch in batches {
        let batch = batch?;
        let (_, channels, height, width) = batch.dim();
        let (found, expected) = ([channels, height, width], classifier.image_shape());
        if found != expected {
            return Err(Error::ImageShape { expected, found });
        }
        for block in batch.axis_chunks_iter(Axis(0), BLOCK) {
            let block = upload(block.to_owned(), &classifier.device());
            let block = classifier.features(block);
            let logits = on_host(classifier.logits(block.clone()));
            features.extend(on_host(block).into_iter().map(f64::from));
            predicted.extend(logits.chunks_exact(config.classes).map(first_largest));
        }
    }
    let shape = (predicted.len(), config.features);
    let features = Array2::from_shape_vec(shape, features)
        .expect("every picture gave one row of features and one of logits");
    match features.indexed_iter().find(|(_, x)| !x.is_finite()) {
        Some(((row, column), _)) => Err(Error::NonFiniteFeature { row, column }),
        None => Ok(Evaluated {
            features,
            predicted,
        }),
    }
}

/// [`evaluate`], for these pictures of a data set.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_dataset(
    classifier: &Classifier,
    dataset: &dyn Dataset,
    indices: &[usize],
) -> Result<Evaluated> {
    let blocks = indices.chunks(BLOCK);
    evaluate(
        classifier,
        blocks.map(|block| Ok(dataset::batch(dataset, block)?)),
    )
}

/// The features of pictures, `[pictures, features]`; as [`evaluate`].
///
/// # Errors
/// As [`evaluate`].
pub fn features_of(
    classifier: &Classifier,
    batches: impl IntoIterator<Item = Result<Array4<f32>>>,
) -> Result<Array2<f64>> {
    Ok(evaluate(classifier, batches)?.features)
}

/// The share of images, `[images, channels, height, width]` in `[-1, 1]`, whose likeliest class is their label.
///
/// # Errors
/// As [`evaluate`], and when images and labels are not equally many or there are none.
pub fn accuracy(classifier: &Classifier, images: ArrayView4<f32>, labels: &[usize]) -> Result<f64> {
    let blocks = images.axis_chunks_iter(Axis(0), BLOCK);
    let evaluated = evaluate(classifier, blocks.map(|block| Ok(block.to_owned())))?;
    let classes = classifier.config().classes;
    Ok(Agreement::of(labels, &evaluated.predicted, classes)?.accuracy)
}

fn on_host(rows: Tensor<2>) -> Vec<f32> {
    let [rows_count, columns] = rows.dims();
    host_values(rows.reshape([rows_count * columns]))
}

fn first_largest(logits: &[f32]) -> usize {
    let later = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (0..logits.len()).fold(0, later)
}
