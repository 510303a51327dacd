//! What a network that knows ImageNet sees in pictures of a model: features beside real ones, reconstructions beside
//! originals, and the nearest pictures that were trained on.

use crate::error::Result;
use crate::reconstruct::Reconstructions;
use ndarray::ArrayView2;
use serde::Serialize;
use std::fmt;
use tessera_evaluate::{EffLite0, FeatureFigures, FeatureFloor, FeatureReport, View, nearest};
use tessera_pictures::dataset::spaced;
use tessera_pictures::{Filter, Pixels, resize};

/// Nearest pictures that a row of the grid shows.
const NEAREST: usize = 5;
/// Side of a picture in that grid, in px.
const CELL: usize = 128;

/// How far the nearest training pictures are, as medians.
#[derive(Debug, Serialize)]
pub struct Nearest {
    /// Of the pictures.
    pictures: f64,
    /// Of real pictures that were not trained on, where there are any.
    real: Option<f64>,
}

/// Everything that is told of pictures in features.
#[derive(Serialize)]
pub struct FeatureResult {
    #[serde(flatten)]
    /// All of both.
    pub report: FeatureReport,
    /// Of reconstructions of the real pictures, which is the tokenizer's share.
    pub reconstructions: Option<FeatureFigures>,
    /// The mean perceptual distance of the reconstructions, or of the pairs.
    pub perceptual: Option<f64>,
    /// Where they were asked for.
    pub nearest: Option<Nearest>,
}

/// Lines for people.
impl fmt::Display for FeatureResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.report;
        writeln!(
            f,
            "{} of {} pictures to {} real ones: {} (of {} nearest neighbors)",
            report.name,
            report.pictures.count,
            report.pictures.real_count,
            line(&report.pictures),
            report.neighbors
        )?;
        f.write_str(&floor_line(&report.floor))?;
        if let Some(halved) = &report.halved {
            write!(
                f,
                "\n  beside that floor, {} of the pictures to {} real ones: {}",
                halved.count,
                halved.real_count,
                line(halved)
            )?;
        }
        if let Some(restored) = &self.reconstructions {
            let line = line(restored);
            write!(
                f,
                "\n  reconstructions of the real pictures to them: {line}"
            )?;
        }
        if let Some(apart) = self.perceptual {
            write!(f, "\nperceptual distance of reconstructions: {apart:.4}")?;
        }
        let Some(nearest) = &self.nearest else {
            return Ok(());
        };
        write!(
            f,
            "\ndistance of the nearest training picture, median: {:.3}",
            nearest.pictures
        )?;
        match nearest.real {
            Some(real) => write!(f, "; of real pictures {real:.3}"),
            None => Ok(()),
        }
    }
}

/// A row of a report.
fn line(figures: &FeatureFigures) -> String {
    format!(
        "{:.2}; precision {:.3}, recall {:.3}",
        figures.distance, figures.precision, figures.recall
    )
}

/// A floor, in a line for people.
pub fn floor_line(floor: &FeatureFloor) -> String {
    let figures = &floor.figures;
    format!(
        "  the floor, {} real pictures to {} others, {} draw{}: {}",
        figures.count,
        figures.real_count,
        floor.draws,
        if floor.draws == 1 { "" } else { "s" },
        line(figures)
    )
}

/// Features as rows, `[pictures, features]`.
pub fn rows(features: &[f64]) -> ArrayView2<'_, f64> {
    let shape = (features.len() / EffLite0::FEATURES, EffLite0::FEATURES);
    ArrayView2::from_shape(shape, features).expect("whole rows")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Originals with their reconstructions, in the order of [`Reconstructions::pictures`].
#[derive(Default)]
pub struct Versions {
    features: Vec<Vec<f64>>,
    apart: Vec<f64>,
}

impl Versions {
    /// Adds the originals and reconstructions of some pictures, padded to `size` px as the data is.
    ///
    /// # Errors
    /// When features are not finite.
    pub fn add(&mut self, network: &EffLite0, all: &[Reconstructions], size: usize) -> Result<()> {
        let kinds = all.first().map_or(0, |all| all.pictures().count());
        self.features.resize(kinds, Vec::new());
        self.apart.resize(kinds, 0.0);
        let mut original: Option<View> = None;
        for kind in 0..kinds {
            let pictures = all.iter().filter_map(|all| all.pictures().nth(kind));
            let pictures: Vec<Pixels> = pictures
                .map(|picture| Ok(picture.pad(size, size)?))
                .collect::<Result<_>>()?;
            let view = network.view(&pictures)?;
            self.features[kind].extend(&view.features);
            let distances = original.as_ref().map(|original| original.distances(&view));
            self.apart[kind] += distances.iter().flatten().sum::<f64>();
            original.get_or_insert(view);
        }
        Ok(())
    }

    /// Originals and the last kind of reconstruction, with their mean perceptual distance; none where there are none.
    pub fn last(&self) -> Option<(ArrayView2<'_, f64>, ArrayView2<'_, f64>, f64)> {
        let [original, .., restored] = &*self.features else {
            return None;
        };
        let (original, restored) = (rows(original), rows(restored));
        let apart = self.apart.last()? / original.nrows() as f64;
        Some((original, restored, apart))
    }

    /// Figures and perceptual distance of every kind of reconstruction beside the originals.
    ///
    /// # Errors
    /// When there are too few pictures.
    pub fn figures(&self, knn: usize) -> Result<Vec<(FeatureFigures, f64)>> {
        let Some((original, kinds)) = self.features.split_first() else {
            return Ok(Vec::new());
        };
        let original = rows(original);
        let kinds = kinds.iter().zip(&self.apart[1..]);
        kinds
            .map(|(kind, apart)| {
                let figures = FeatureFigures::of(rows(kind), original, knn)?;
                Ok((figures, apart / original.nrows() as f64))
            })
            .collect()
    }

    /// Training pictures beside the originals.
    ///
    /// # Errors
    /// When there are too few pictures.
    pub fn floor(&self, training: &[f64], knn: usize) -> Result<FeatureFloor> {
        let original: &[f64] = self.features.first().map_or(&[], |original| original);
        let (original, training) = (rows(original), rows(training));
        Ok(FeatureFloor::of(original.nrows(), original, training, knn)?)
    }
}

/// Pictures beside the nearest of those that were trained on.
pub struct Neighbors {
    /// Cells of a grid: some of the pictures in rows, each beside its nearest.
    pub cells: Vec<Pixels>,
    /// How many cells a row has.
    pub columns: usize,
    /// How far the nearest are.
    pub nearest: Nearest,
}

impl Neighbors {
    /// The neighbors of `wanted` of the pictures whose features are `drawn`, among `training`; `reference` is real and
    /// not trained on. `picture` and `trained` read one by its row.
    ///
    /// # Errors
    /// What `picture` or `trained` gives.
    pub fn of<E: From<crate::Error>>(
        wanted: usize,
        drawn: ArrayView2<f64>,
        training: ArrayView2<f64>,
        reference: Option<ArrayView2<f64>>,
        picture: impl Fn(usize) -> Result<Pixels, E>,
        trained: impl Fn(usize) -> Result<Pixels, E>,
    ) -> Result<Self, E> {
        let count = NEAREST.min(training.nrows());
        let (indices, distances) = nearest(drawn, training, count);
        let mut cells = Vec::new();
        for row in spaced(drawn.nrows(), wanted) {
            cells.push(cell(&picture(row)?)?);
            for &index in indices.row(row) {
                cells.push(cell(&trained(index)?)?);
            }
        }
        let of_real = reference.map(|real| median(nearest(real, training, 1).1.to_vec()));
        Ok(Self {
            cells,
            columns: 1 + count,
            nearest: Nearest {
                pictures: median(distances.to_vec()),
                real: of_real,
            },
        })
    }
}

/// A picture as the grid shows it.
fn cell(picture: &Pixels) -> Result<Pixels> {
    Ok(resize(picture, CELL, CELL, Filter::Bicubic)?)
}
