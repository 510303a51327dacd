//! What a classifier says of pictures that a model drew, beside what it says of real ones.

use crate::data::spaced;
use crate::output;
use anyhow::Result;
use ndarray::{Array4, Axis};
use serde::Serialize;
use tessera_tokenizer::Pixels;
use tessera_train::data::Dataset;
use tessera_train::judge::{Agreement, Classifier, Examined, Frechet, examine_dataset};

/// Draws of real pictures that the floor is the mean of.
const FLOOR_DRAWS: usize = 8;

/// The judge's figures.
#[derive(Serialize)]
pub struct Judged {
    /// The share of pictures the classifier takes for the class that was asked for.
    agreement: Option<Agreement>,
    /// The same of real test images, with how they are labelled.
    real_test_accuracy: Option<f64>,
    /// In the classifier's features; it is not FID.
    frechet: Option<Frechet>,
}

/// The real pictures of a comparison.
pub struct Real<'a> {
    /// For the floor.
    pub train: &'a dyn Dataset,
    /// To compare with.
    pub test: &'a dyn Dataset,
    /// At most so many of either.
    pub limit: Option<usize>,
}

impl Judged {
    /// Holds pictures against the classes they were asked for, where those are known, and against real pictures, where
    /// there are any.
    ///
    /// # Errors
    /// A class that the judge does not know, too few real pictures, features that are not finite.
    pub fn of(
        judge: &Classifier,
        pictures: &Examined,
        requested: Option<&[usize]>,
        real: Option<Real<'_>>,
    ) -> Result<Self> {
        let classes = judge.config().classes;
        let agreement = requested
            .map(|requested| Agreement::of(requested, &pictures.predicted, classes))
            .transpose()?;
        let mut judged = Self {
            agreement,
            real_test_accuracy: None,
            frechet: None,
        };
        if let Some(Real { train, test, limit }) = real {
            let indices = spaced(test.len(), limit.unwrap_or(usize::MAX));
            let real = examine_dataset(judge, test, &indices)?;
            let labels: Vec<usize> = indices.iter().map(|&i| test.label(i)).collect();
            let agreement = Agreement::of(&labels, &real.predicted, classes)?;
            judged.real_test_accuracy = Some(agreement.accuracy);
            // The floor is a mean over disjoint draws of as many pictures: several of them.
            let wanted = FLOOR_DRAWS * pictures.predicted.len();
            let floor = examine_dataset(judge, train, &spaced(train.len(), wanted))?;
            judged.frechet = Some(Frechet::of(
                pictures.features.view(),
                floor.features.view(),
                real.features.view(),
            )?);
        }
        Ok(judged)
    }

    /// The share of the pictures of each class that the classifier takes for it.
    pub fn shares(&self) -> Option<Vec<f64>> {
        let agreement = self.agreement.as_ref()?;
        let classes = agreement.per_class.iter();
        Some(
            classes
                .map(|class| class.agreed as f64 / class.requested as f64)
                .collect(),
        )
    }

    /// Prints it for people.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, classes: &[String]) -> Result<()> {
        if let Some(agreement) = &self.agreement {
            output::text(format_args!(
                "agreement of the classifier with the requested class: {:.1} %",
                100.0 * agreement.accuracy
            ))?;
            for (name, class) in classes.iter().zip(&agreement.per_class) {
                output::text(format_args!(
                    "  {name:<12} {:>4} of {}",
                    class.agreed, class.requested
                ))?;
            }
        }
        if let Some(accuracy) = self.real_test_accuracy {
            output::text(format_args!(
                "the same classifier on real test images: {:.2} %",
                100.0 * accuracy
            ))?;
        }
        match &self.frechet {
            Some(f) => {
                output::text(format_args!(
                    "Fréchet distance in the classifier's features to {} test images: {:.3}",
                    f.test_count, f.distance
                ))?;
                output::text(format_args!(
                    "  the same of {} real training images (the floor): {:.3} ± {:.3}",
                    f.count, f.floor, f.floor_std
                ))?;
            }
            None => eprintln!("no real data: give --data for the Fréchet distance"),
        }
        Ok(())
    }
}

/// Finished pictures as the judge was trained on real ones: bytes, on a black square.
///
/// # Errors
/// When one is larger than the square.
pub fn as_judged(pictures: &[Pixels], size: usize) -> tessera_tokenizer::Result<Array4<f32>> {
    let squares: Vec<_> = pictures
        .iter()
        .map(|picture| Ok(picture.pad(size, size)?.to_array()))
        .collect::<tessera_tokenizer::Result<_>>()?;
    let views: Vec<_> = squares.iter().map(|square| square.view()).collect();
    Ok(ndarray::stack(Axis(0), &views).expect("squares of one size, and of the model's channels"))
}
