//! What the judges say, ready to be printed or written.

use crate::error::{Error, Result};
use crate::frechet::{FeatureStats, frechet_distance};
use ndarray::{Array1, ArrayView2, Axis};
use serde::Serialize;

/// Draws that a floor is the mean of, if there are pictures enough: one alone may be off by a factor of two.
const FLOOR_DRAWS: usize = 16;

/// How often the classifier recognizes what was asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// The share of all pictures that are recognized, in `0..=1`.
    pub accuracy: f64,
    /// The same by class.
    pub per_class: Vec<ClassAgreement>,
    /// `confusion[requested][predicted]`: pictures of the one class that are taken for the other.
    pub confusion: Vec<Vec<usize>>,
}

/// A line of an [`Agreement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClassAgreement {
    /// Pictures of this class that were asked for.
    pub requested: usize,
    /// Those of them that the classifier recognizes.
    pub agreed: usize,
}

impl Agreement {
    /// Holds what was asked for against what the classifier saw.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when the two are not equally many, are none, or name a class beyond `classes`.
    pub fn of(requested: &[usize], predicted: &[usize], classes: usize) -> Result<Self> {
        let error = |what, expected: String, found: String| Error::Mismatch {
            what,
            expected,
            found,
        };
        if requested.len() != predicted.len() || requested.is_empty() {
            let expected = format!("as many as images, {}, and 1 or more", predicted.len());
            let found = requested.len().to_string();
            return Err(error("the number of labels", expected, found));
        }
        let mut classes_named = requested.iter().chain(predicted);
        if let Some(class) = classes_named.find(|&&class| class >= classes) {
            let expected = format!("less than {classes}");
            return Err(error("a class", expected, class.to_string()));
        }
        let mut confusion = vec![vec![0; classes]; classes];
        for (&requested, &predicted) in requested.iter().zip(predicted) {
            confusion[requested][predicted] += 1;
        }
        let per_class: Vec<_> = confusion
            .iter()
            .enumerate()
            .map(|(class, row)| ClassAgreement {
                requested: row.iter().sum(),
                agreed: row[class],
            })
            .collect();
        let agreed: usize = per_class.iter().map(|class| class.agreed).sum();
        Ok(Self {
            accuracy: agreed as f64 / requested.len() as f64,
            per_class,
            confusion,
        })
    }
}

/// A Fréchet distance with what it must be read beside. In a classifier's own features; it is not FID.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Frechet {
    /// Generated pictures.
    pub count: usize,
    /// Real test pictures.
    pub test_count: usize,
    /// Between the generated pictures and the test pictures.
    pub distance: f64,
    /// Between as many real training pictures and the test pictures, the mean over several draws: what the best
    /// generator could reach.
    pub floor: f64,
    /// The standard deviation of one such draw; 0 if the training pictures give only one.
    pub floor_std: f64,
}

impl Frechet {
    /// From the features, `[pictures, features]`, of generated pictures, real training pictures and real test pictures.
    /// Every draw for the floor is `count` evenly spaced training pictures, so that data in the order of their classes
    /// give all classes; draws have no picture in common.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when there are fewer training pictures than generated ones, or as
    /// [`FeatureStats::from_rows`].
    pub fn of(
        generated: ArrayView2<f64>,
        train: ArrayView2<f64>,
        test: ArrayView2<f64>,
    ) -> Result<Self> {
        let (count, available) = (generated.nrows(), train.nrows());
        if available < count {
            return Err(Error::Mismatch {
                what: "the number of real pictures for the floor",
                expected: format!("as many as generated ones, {count}"),
                found: available.to_string(),
            });
        }
        let generated = FeatureStats::from_rows(generated)?;
        let test = FeatureStats::from_rows(test)?;
        let draws = (available / count).min(FLOOR_DRAWS);
        let floors = (0..draws).map(|draw| {
            let spaced: Vec<usize> = (0..count).map(|i| i * available / count + draw).collect();
            let real = FeatureStats::from_rows(train.select(Axis(0), &spaced).view())?;
            frechet_distance(&real, &test)
        });
        let floors: Array1<f64> = floors.collect::<Result<_>>()?;
        let floor = floors.sum() / draws as f64;
        Ok(Self {
            count,
            test_count: test.count,
            distance: frechet_distance(&generated, &test)?,
            floor,
            floor_std: floors.std(if draws > 1 { 1.0 } else { 0.0 }),
        })
    }
}
