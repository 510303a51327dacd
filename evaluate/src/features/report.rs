//! How far two sets of pictures are apart, and how far two sets of real ones are.

use super::looking::Nearest;
use super::neighbors::{radii, share_within};
use super::network::EffLite0;
use crate::error::{Error, Result};
use crate::frechet::{FeatureStats, frechet_distance};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// Draws of real pictures that the floor is the mean of, if there are enough.
const FLOOR_DRAWS: usize = 4;

/// Pictures held against real ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FeatureFigures {
    /// How many there are.
    pub count: usize,
    /// How many real ones.
    pub real_count: usize,
    /// The Fréchet distance.
    pub distance: f64,
    /// The share of them that lie among the real ones (Kynkäänniemi et al., arXiv 1904.06991).
    pub precision: f64,
    /// The share of the real ones that lie among them.
    pub recall: f64,
}

impl FeatureFigures {
    /// From features, `[pictures, features]`.
    ///
    /// # Errors
    /// As [`FeatureStats::from_rows`] and [`radii`].
    pub fn of(pictures: ArrayView2<f64>, real: ArrayView2<f64>, neighbors: usize) -> Result<Self> {
        let [a, b] = [pictures, real].map(FeatureStats::from_rows);
        Ok(Self {
            count: pictures.nrows(),
            real_count: real.nrows(),
            distance: frechet_distance(&a?, &b?)?,
            precision: share_within(pictures, real, &radii(real, neighbors)?),
            recall: share_within(real, pictures, &radii(pictures, neighbors)?),
        })
    }
}

/// What real pictures reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FeatureFloor {
    /// The mean over the draws.
    #[serde(flatten)]
    pub figures: FeatureFigures,
    /// The standard deviation of one draw's distance; 0 if there is only one.
    pub distance_std: f64,
    /// Disjoint sets of real pictures that it is the mean of.
    pub draws: usize,
}

/// Figures, and what they must be read beside.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FeatureReport {
    /// What the distance is called.
    pub name: &'static str,
    /// Numbers in a picture's features.
    pub features: usize,
    /// Neighbors whose distance is the radius of a ball, for precision and recall.
    pub neighbors: usize,
    /// All pictures beside all real ones.
    pub pictures: FeatureFigures,
    /// Real pictures beside real ones.
    pub floor: FeatureFloor,
    /// Where the floor is one half of the real pictures beside the other: as many of the pictures beside that half,
    /// since the fewer pictures there are, the larger is the distance.
    pub halved: Option<FeatureFigures>,
    /// Reconstructions of the real pictures beside these: the tokenizer's share.
    pub reconstructions: Option<FeatureFigures>,
    /// Reconstructions of as many other real pictures beside these: what a perfect generator over the tokenizer would
    /// reach.
    pub training_reconstructions: Option<FeatureFigures>,
    /// The mean perceptual distance of reconstructions.
    pub perceptual: Option<f64>,
    /// Where they were asked for.
    pub nearest: Option<Nearest>,
}

/// Whether so many pictures can be held against so many real ones, with so many more real ones for the floor: to be
/// asked before any is looked at.
///
/// # Errors
/// [`Error::Mismatch`] says which are too few.
pub fn require_enough(
    pictures: usize,
    real: usize,
    more: Option<usize>,
    neighbors: usize,
) -> Result<()> {
    let set = neighbors.saturating_add(1);
    let require = |what, found: usize, least: usize, why: String| match found >= least {
        true => Ok(()),
        false => Err(Error::Mismatch {
            what,
            expected: format!("at least {least}, {why}"),
            found: found.to_string(),
        }),
    };
    let why = || format!("one more than the {neighbors} nearest neighbors of each");
    require("the number of pictures", pictures, set, why())?;
    match more {
        Some(more) => {
            require("the number of real pictures", real, set, why())?;
            let why = "as many as are judged".to_owned();
            require(
                "the number of real pictures for the floor",
                more,
                pictures,
                why,
            )
        }
        None => {
            let why = format!("twice one more than the {neighbors} nearest neighbors of each");
            require("the number of real pictures", real, 2 * set, why)
        }
    }
}

impl FeatureReport {
    /// From features, `[pictures, features]`. The floor is from as many of `more` as there are pictures, beside `real`;
    /// without more, every other of the real ones beside the others.
    ///
    /// # Errors
    /// As [`require_enough`], and features that are not finite.
    pub fn of(
        pictures: ArrayView2<f64>,
        real: ArrayView2<f64>,
        more: Option<ArrayView2<f64>>,
        neighbors: usize,
    ) -> Result<Self> {
        let (count, real_count) = (pictures.nrows(), real.nrows());
        let available = more.map(|more| more.nrows());
        require_enough(count, real_count, available, neighbors)?;
        let of = |a: &Array2<f64>, b: ArrayView2<f64>| FeatureFigures::of(a.view(), b, neighbors);
        let (floor, halved) = match more {
            Some(more) => (FeatureFloor::of(count, real, more, neighbors)?, None),
            None => {
                let half = real_count / 2;
                let (these, those) = (spread(real, half, 0), spread(real, half, 1));
                let same = count.min(half);
                let floor = of(&spread(these.view(), same, 0), those.view())?;
                let halved = of(&spread(pictures, same, 0), those.view())?;
                (FeatureFloor::mean(&[floor]), Some(halved))
            }
        };
        Ok(Self {
            name: EffLite0::DISTANCE,
            features: pictures.ncols(),
            neighbors,
            pictures: FeatureFigures::of(pictures, real, neighbors)?,
            floor,
            halved,
            reconstructions: None,
            training_reconstructions: None,
            perceptual: None,
            nearest: None,
        })
    }
}

/// Several lines for people.
impl Display for FeatureReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (all, name, neighbors) = (&self.pictures, self.name, self.neighbors);
        let (count, real) = (all.count, all.real_count);
        write!(
            f,
            "{name} of {count} pictures to {real} real ones: {all} (of {neighbors} nearest neighbors)"
        )?;
        write!(f, "\n{}", self.floor)?;
        if let Some(halved) = &self.halved {
            let (count, real) = (halved.count, halved.real_count);
            write!(
                f,
                "\n  beside that floor, {count} of the pictures to {real} real ones: {halved}"
            )?;
        }
        if let Some(restored) = &self.reconstructions {
            write!(
                f,
                "\n  reconstructions of the real pictures to them: {restored}"
            )?;
        }
        if let Some(restored) = &self.training_reconstructions {
            write!(
                f,
                "\n  reconstructions of {} training pictures to the real ones: {restored}",
                restored.count
            )?;
        }
        if let Some(apart) = self.perceptual {
            write!(f, "\nperceptual distance of reconstructions: {apart:.4}")?;
        }
        if let Some(nearest) = &self.nearest {
            write!(
                f,
                "\ndistance of the nearest training picture, median: {:.3}",
                nearest.pictures
            )?;
            if let Some(real) = nearest.real {
                write!(f, "; of real pictures {real:.3}")?;
            }
        }
        Ok(())
    }
}

impl Display for FeatureFigures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            distance,
            precision,
            recall,
            ..
        } = self;
        write!(
            f,
            "{distance:.2}; precision {precision:.3}, recall {recall:.3}"
        )
    }
}

impl Display for FeatureFloor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (figures, draws) = (&self.figures, self.draws);
        let (count, real) = (figures.count, figures.real_count);
        let plural = if draws == 1 { "" } else { "s" };
        write!(
            f,
            "  the floor, {count} real pictures to {real} others, {draws} draw{plural}: {figures}"
        )
    }
}

impl FeatureFigures {
    /// What is to be known where there are fewer pictures than features.
    pub fn warning(&self) -> Option<String> {
        let (few, features) = (self.count.min(self.real_count), EffLite0::FEATURES);
        let warning = || {
            format!(
                "warning: {few} pictures for {features} features: most of the distance is what so few give of any set; \
                read it beside its floor alone"
            )
        };
        (few < features).then(warning)
    }
}

impl FeatureFloor {
    /// Disjoint sets that it is the mean of, if there are pictures enough.
    pub const DRAWS: usize = FLOOR_DRAWS;

    /// The mean over disjoint draws of `count` of `more` real pictures, each beside `real`.
    ///
    /// # Errors
    /// As [`require_enough`], and features that are not finite.
    pub fn of(
        count: usize,
        real: ArrayView2<f64>,
        more: ArrayView2<f64>,
        neighbors: usize,
    ) -> Result<Self> {
        require_enough(count, real.nrows(), Some(more.nrows()), neighbors)?;
        let draws = (more.nrows() / count).min(FLOOR_DRAWS);
        let draw = |draw| FeatureFigures::of(spread(more, count, draw).view(), real, neighbors);
        Ok(Self::mean(
            &(0..draws).map(draw).collect::<Result<Vec<_>>>()?,
        ))
    }

    /// Of one draw or more, of the same numbers of pictures.
    fn mean(draws: &[FeatureFigures]) -> Self {
        let mean = |of: fn(&FeatureFigures) -> f64| {
            let values: Array1<f64> = draws.iter().map(of).collect();
            (values.sum() / draws.len() as f64, values)
        };
        let (distance, distances) = mean(|one| one.distance);
        Self {
            figures: FeatureFigures {
                distance,
                precision: mean(|one| one.precision).0,
                recall: mean(|one| one.recall).0,
                ..draws[0]
            },
            distance_std: distances.std(if draws.len() > 1 { 1.0 } else { 0.0 }),
            draws: draws.len(),
        }
    }
}

/// `count` rows in even steps, so that rows in the order of their classes give all classes; those of another `draw` are
/// others, as long as there are enough.
fn spread(rows: ArrayView2<f64>, count: usize, draw: usize) -> Array2<f64> {
    let indices: Vec<usize> = (0..count)
        .map(|i| i * rows.nrows() / count + draw)
        .collect();
    rows.select(Axis(0), &indices)
}
