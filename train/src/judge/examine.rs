//! The classifier applied to many pictures, block by block.

use super::classifier::Classifier;
use super::report::Agreement;
use crate::data::{Dataset, upload};
use crate::error::{Error, Result};
use burn::tensor::Tensor;
use ndarray::{Array2, Array4, ArrayView4, Axis, stack};
use tessera_backend::host_values;

/// Pictures that go through the classifier together; results do not depend on it.
const BLOCK: usize = 250;

/// What the classifier says of some pictures, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
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
pub fn examine(
    classifier: &Classifier,
    batches: impl IntoIterator<Item = Result<Array4<f32>>>,
) -> Result<Examined> {
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
        None => Ok(Examined {
            features,
            predicted,
        }),
    }
}

/// [`examine`], for these pictures of a data set.
///
/// # Errors
/// As [`examine`].
pub fn examine_dataset(
    classifier: &Classifier,
    dataset: &dyn Dataset,
    indices: &[usize],
) -> Result<Examined> {
    let blocks = indices.chunks(BLOCK);
    examine(classifier, blocks.map(|block| images_of(dataset, block)))
}

/// The features of pictures, `[pictures, features]`; as [`examine`].
///
/// # Errors
/// As [`examine`].
pub fn features_of(
    classifier: &Classifier,
    batches: impl IntoIterator<Item = Result<Array4<f32>>>,
) -> Result<Array2<f64>> {
    Ok(examine(classifier, batches)?.features)
}

/// The share of images, `[images, channels, height, width]` in `[-1, 1]`, whose likeliest class is their label.
///
/// # Errors
/// As [`examine`], and when images and labels are not equally many or there are none.
pub fn accuracy(classifier: &Classifier, images: ArrayView4<f32>, labels: &[usize]) -> Result<f64> {
    let blocks = images.axis_chunks_iter(Axis(0), BLOCK);
    let examined = examine(classifier, blocks.map(|block| Ok(block.to_owned())))?;
    let classes = classifier.config().classes;
    Ok(Agreement::of(labels, &examined.predicted, classes)?.accuracy)
}

/// These pictures of a data set, `[pictures, channels, height, width]`.
///
/// # Errors
/// When a picture cannot be read or has another shape than the first.
pub fn images_of(dataset: &dyn Dataset, indices: &[usize]) -> Result<Array4<f32>> {
    let images = indices.iter().map(|&index| dataset.image(index));
    let images: Vec<_> = images.collect::<Result<_>>()?;
    let views: Vec<_> = images.iter().map(|image| image.view()).collect();
    let shape = |(channels, height, width)| [channels, height, width];
    let Some(first) = images.first().map(|image| shape(image.dim())) else {
        return Ok(Array4::zeros([0; 4]));
    };
    stack(Axis(0), &views).map_err(|_| {
        let mut shapes = images.iter().map(|image| shape(image.dim()));
        Error::ImageShape {
            expected: first,
            found: shapes.find(|&found| found != first).unwrap_or(first),
        }
    })
}

fn on_host(rows: Tensor<2>) -> Vec<f32> {
    let [rows_count, columns] = rows.dims();
    host_values(rows.reshape([rows_count * columns]))
}

fn first_largest(logits: &[f32]) -> usize {
    let later = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (0..logits.len()).fold(0, later)
}
