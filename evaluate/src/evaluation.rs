//! Everything that a classifier says of pictures, beside what it says of real ones.

use crate::classifier::Classifier;
use crate::error::Result;
use crate::evaluate::{Evaluated, evaluate_dataset};
use crate::report::{Agreement, Frechet};
use ndarray::{Array4, Axis};
use serde::Serialize;
use tessera_pictures::Pixels;
use tessera_pictures::dataset::{Dataset, spaced};

/// Draws of real pictures that the floor is the mean of.
const FLOOR_DRAWS: usize = 8;

/// How good pictures are, as far as it can be told.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// The share of pictures that the classifier takes for the class that was asked for; none where no class was.
    pub agreement: Option<Agreement>,
    /// The share of real test images that it classifies as labeled; none without real pictures.
    pub real_test_accuracy: Option<f64>,
    /// In the classifier's features, which is not FID; none without real pictures.
    pub frechet: Option<Frechet>,
}

/// The real pictures of a comparison.
pub struct RealPictures<'a> {
    /// For the floor: the distance that as many real pictures have.
    pub train: &'a dyn Dataset,
    /// To compare with.
    pub test: &'a dyn Dataset,
    /// At most so many of either.
    pub limit: Option<usize>,
}

impl Evaluation {
    /// The figures as text, a line each; `classes` are the names to print.
    pub fn text(&self, classes: &[String]) -> String {
        let mut lines = Vec::new();
        if let Some(agreement) = &self.agreement {
            let share = 100.0 * agreement.accuracy;
            lines.push(format!(
                "agreement of the classifier with the requested class: {share:.1} %"
            ));
            lines.extend(
                classes
                    .iter()
                    .zip(&agreement.per_class)
                    .map(|(name, class)| {
                        format!("  {name:<12} {:>4} of {}", class.agreed, class.requested)
                    }),
            );
        }
        if let Some(accuracy) = self.real_test_accuracy {
            lines.push(format!(
                "the same classifier on real test images: {:.2} %",
                100.0 * accuracy
            ));
        }
        if let Some(f) = &self.frechet {
            lines.push(format!(
                "Fréchet distance in the classifier's features to {} test images: {:.3}",
                f.test_count, f.distance
            ));
            lines.push(format!(
                "  the same of {} real training images (the floor): {:.3} ± {:.3}",
                f.count, f.floor, f.floor_std
            ));
        }
        lines.join("\n")
    }

    /// Compares pictures with the classes they were asked for, where those are known, and with real pictures, where
    /// there are any.
    ///
    /// # Errors
    /// A class that the classifier does not know, too few real pictures, features that are not finite.
    pub fn of(
        classifier: &Classifier,
        pictures: &Evaluated,
        requested: Option<&[usize]>,
        real: Option<RealPictures<'_>>,
    ) -> Result<Self> {
        let classes = classifier.config().classes;
        let agreement = requested
            .map(|requested| Agreement::of(requested, &pictures.predicted, classes))
            .transpose()?;
        let mut evaluation = Self {
            agreement,
            real_test_accuracy: None,
            frechet: None,
        };
        if let Some(RealPictures { train, test, limit }) = real {
            let indices = spaced(test.len(), limit.unwrap_or(usize::MAX));
            let real = evaluate_dataset(classifier, test, &indices)?;
            let labels: Vec<usize> = indices.iter().map(|&i| test.label(i)).collect();
            let agreement = Agreement::of(&labels, &real.predicted, classes)?;
            evaluation.real_test_accuracy = Some(agreement.accuracy);
            // The floor is a mean over disjoint draws of as many pictures: several of them.
            let wanted = FLOOR_DRAWS * pictures.predicted.len();
            let floor = evaluate_dataset(classifier, train, &spaced(train.len(), wanted))?;
            evaluation.frechet = Some(Frechet::of(
                pictures.features.view(),
                floor.features.view(),
                real.features.view(),
            )?);
        }
        Ok(evaluation)
    }

    /// The share of the pictures of each class that the classifier takes for it.
    pub fn shares(&self) -> Option<Vec<f64>> {
        let agreement = self.agreement.as_ref()?;
        let classes = agreement.per_class.iter();
        let share =
            |class: &crate::report::ClassAgreement| class.agreed as f64 / class.requested as f64;
        Some(classes.map(share).collect())
    }
}

/// Finished pictures as the classifier was trained on real ones: `[pictures, channels, size, size]` in `[-1, 1]`, on
/// black.
///
/// # Errors
/// When one is larger than the square.
pub fn on_squares(pictures: &[Pixels], size: usize) -> Result<Array4<f32>> {
    let squares: Vec<_> = pictures
        .iter()
        .map(|picture| Ok(picture.pad(size, size)?.to_array()))
        .collect::<Result<_>>()?;
    let views: Vec<_> = squares.iter().map(|square| square.view()).collect();
    Ok(ndarray::stack(Axis(0), &views).expect("squares of one size, and of the model's channels"))
}
