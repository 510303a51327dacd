//! What a network that knows ImageNet sees in pictures of a model, and how that is told.

use crate::progress::Progress;
use crate::{interrupt, output};
use anyhow::{Context, Result, bail, ensure};
use ndarray::ArrayView2;
use serde::Serialize;
use std::path::Path;
use tessera::evaluate::{
    EffLite0, FeatureFigures, FeatureFloor, FeatureReport, View, nearest, require_enough,
};
use tessera::pictures::dataset::{Dataset, spaced};
use tessera::pictures::{Filter, Pixels, resize};
use tessera::{Device, Reconstructions};

/// Pictures that are read and looked at together.
pub const BLOCK: usize = 32;
/// Real pictures that a floor is drawn from, as a multiple of the pictures that are judged.
pub const DRAWS: usize = 4;
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

/// The network, and what is asked of it.
pub struct Looking {
    network: EffLite0,
    /// For precision and recall.
    pub knn: usize,
    neighbors: Option<usize>,
    quiet: bool,
}

/// Originals with their reconstructions, in the order of [`Reconstructions::pictures`].
#[derive(Default)]
pub struct Versions {
    features: Vec<Vec<f64>>,
    apart: Vec<f64>,
}

/// Features as rows, `[pictures, features]`.
pub fn rows(features: &[f64]) -> ArrayView2<'_, f64> {
    let shape = (features.len() / EffLite0::FEATURES, EffLite0::FEATURES);
    ArrayView2::from_shape(shape, features).expect("whole rows")
}

/// Ends where Ctrl-C was pressed.
///
/// # Errors
/// Then.
pub fn stopped() -> Result<()> {
    ensure!(!interrupt::requested(), "stopped");
    Ok(())
}

/// A row of a report.
fn line(figures: &FeatureFigures) -> String {
    format!(
        "{:.2}; precision {:.3}, recall {:.3}",
        figures.distance, figures.precision, figures.recall
    )
}

fn floor(floor: &FeatureFloor) -> Result<()> {
    let figures = &floor.figures;
    output::text(format_args!(
        "  the floor, {} real pictures to {} others, {} draw{}: {}",
        figures.count,
        figures.real_count,
        floor.draws,
        if floor.draws == 1 { "" } else { "s" },
        line(figures)
    ))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Looking {
    /// Opens the network.
    ///
    /// # Errors
    /// When its file cannot be read, or holds another network.
    pub fn open(
        file: &Path,
        knn: usize,
        neighbors: Option<usize>,
        device: &Device,
        quiet: bool,
    ) -> Result<Self> {
        let network = EffLite0::open(file, device.burn())
            .context("expected the weights of EfficientNet-Lite0")?;
        Ok(Self {
            network,
            knn,
            neighbors,
            quiet,
        })
    }

    /// What it sees.
    ///
    /// # Errors
    /// When features are not finite.
    pub fn view(&self, pictures: &[Pixels]) -> Result<View> {
        Ok(self.network.view(pictures)?)
    }

    /// The features of pictures of a data set.
    fn dataset(&self, what: &str, data: &dyn Dataset, indices: &[usize]) -> Result<Vec<f64>> {
        let mut progress = Progress::new(what, "pictures", indices.len() as u64, self.quiet);
        let mut features = Vec::new();
        for chunk in indices.chunks(BLOCK) {
            let pictures = chunk.iter().map(|&index| picture_of(data, index));
            let pictures: Vec<_> = pictures.collect::<Result<_>>()?;
            features.extend(self.network.view(&pictures)?.features);
            progress.add(chunk.len() as u64);
            stopped()?;
        }
        progress.finish();
        Ok(features)
    }

    /// Whether there are pictures enough, before any is drawn.
    ///
    /// # Errors
    /// When there are not.
    pub fn require(&self, pictures: usize, real: usize, more: usize) -> Result<()> {
        Ok(require_enough(pictures, real, Some(more), self.knn)?)
    }

    /// The features of training pictures for the floor of so many pictures, or of all for their neighbors.
    ///
    /// # Errors
    /// When a picture cannot be read.
    pub fn training(&self, train: &dyn Dataset, pictures: usize) -> Result<Vec<f64>> {
        let wanted = match self.neighbors {
            Some(_) => usize::MAX,
            None => DRAWS.saturating_mul(pictures),
        };
        self.dataset("look at training data", train, &spaced(train.len(), wanted))
    }

    /// What a model drew, beside the originals of the reconstructions `versions`.
    ///
    /// # Errors
    /// When a picture cannot be read, or the grid not be written.
    pub fn drawn(
        &self,
        pictures: &[Pixels],
        train: &dyn Dataset,
        versions: &Versions,
        output: Option<&Path>,
    ) -> Result<FeatureResult> {
        let mut drawn = Vec::new();
        let mut progress = Progress::new("look", "pictures", pictures.len() as u64, self.quiet);
        for chunk in pictures.chunks(BLOCK) {
            drawn.extend(self.network.view(chunk)?.features);
            progress.add(chunk.len() as u64);
            stopped()?;
        }
        progress.finish();
        let training = self.training(train, pictures.len())?;
        let (drawn, training) = (rows(&drawn), rows(&training));
        let [original, .., restored] = &*versions.features else {
            bail!("no reconstruction");
        };
        let (real, restored) = (rows(original), rows(restored));
        Ok(FeatureResult {
            report: FeatureReport::of(drawn, real, Some(training), self.knn)?,
            reconstructions: Some(FeatureFigures::of(restored, real, self.knn)?),
            perceptual: versions
                .apart
                .last()
                .map(|apart| apart / real.nrows() as f64),
            nearest: self.nearest(
                output,
                drawn,
                training,
                Some(real),
                |index| Ok(pictures[index].clone()),
                |index| picture_of(train, index),
            )?,
        })
    }

    /// Draws the grid of neighbors, if it is asked for; `reference` is real and not trained on.
    ///
    /// # Errors
    /// When a picture cannot be read, or the grid not be written.
    pub fn nearest(
        &self,
        output: Option<&Path>,
        drawn: ArrayView2<f64>,
        training: ArrayView2<f64>,
        reference: Option<ArrayView2<f64>>,
        picture: impl Fn(usize) -> Result<Pixels>,
        trained: impl Fn(usize) -> Result<Pixels>,
    ) -> Result<Option<Nearest>> {
        let (Some(wanted), Some(folder)) = (self.neighbors, output) else {
            return Ok(None);
        };
        let count = NEAREST.min(training.nrows());
        let (indices, distances) = nearest(drawn, training, count);
        let mut cells = Vec::new();
        for row in spaced(drawn.nrows(), wanted) {
            cells.push(cell(&picture(row)?)?);
            for &index in indices.row(row) {
                cells.push(cell(&trained(index)?)?);
            }
        }
        output::grid(&folder.join("neighbors.png"), &cells, 1 + count)?;
        let of_real = reference.map(|real| median(nearest(real, training, 1).1.to_vec()));
        Ok(Some(Nearest {
            pictures: median(distances.to_vec()),
            real: of_real,
        }))
    }

    /// Prints for people.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, result: &FeatureResult) -> Result<()> {
        let report = &result.report;
        self.say_few(&report.pictures);
        output::text(format_args!(
            "{} of {} pictures to {} real ones: {} (of {} nearest neighbors)",
            report.name,
            report.pictures.count,
            report.pictures.real_count,
            line(&report.pictures),
            report.neighbors
        ))?;
        floor(&report.floor)?;
        if let Some(halved) = &report.halved {
            output::text(format_args!(
                "  beside that floor, {} of the pictures to {} real ones: {}",
                halved.count,
                halved.real_count,
                line(halved)
            ))?;
        }
        if let Some(restored) = &result.reconstructions {
            output::text(format_args!(
                "  reconstructions of the real pictures to them: {}",
                line(restored)
            ))?;
        }
        if let Some(apart) = result.perceptual {
            output::text(format_args!(
                "perceptual distance of reconstructions: {apart:.4}"
            ))?;
        }
        if let Some(nearest) = &result.nearest {
            let real = nearest
                .real
                .map(|real| format!("; of real pictures {real:.3}"));
            output::text(format_args!(
                "distance of the nearest training picture, median: {:.3}{}",
                nearest.pictures,
                real.unwrap_or_default()
            ))?;
        }
        Ok(())
    }

    /// Prints a floor for people.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print_floor(&self, of: &FeatureFloor) -> Result<()> {
        self.say_few(&of.figures);
        floor(of)
    }

    /// Warns where there are fewer pictures than features.
    fn say_few(&self, figures: &FeatureFigures) {
        let few = figures.count.min(figures.real_count);
        if few < EffLite0::FEATURES && !self.quiet {
            output::note(format_args!(
                "warning: {few} pictures for {} features: most of the distance is what so few give of any set; read it \
                beside its floor alone",
                EffLite0::FEATURES
            ));
        }
    }

    /// Adds the originals and reconstructions of some pictures, padded to `size` px as the data is.
    ///
    /// # Errors
    /// When features are not finite.
    pub fn versions(
        &self,
        versions: &mut Versions,
        all: &[Reconstructions],
        size: usize,
    ) -> Result<()> {
        let kinds = all.first().map_or(0, |all| all.pictures().count());
        versions.features.resize(kinds, Vec::new());
        versions.apart.resize(kinds, 0.0);
        let mut original: Option<View> = None;
        for kind in 0..kinds {
            let pictures = all.iter().filter_map(|all| all.pictures().nth(kind));
            let pictures: Vec<Pixels> = pictures
                .map(|picture| Ok(picture.pad(size, size)?))
                .collect::<Result<_>>()?;
            let view = self.network.view(&pictures)?;
            versions.features[kind].extend(&view.features);
            let distances = original.as_ref().map(|original| original.distances(&view));
            versions.apart[kind] += distances.iter().flatten().sum::<f64>();
            original.get_or_insert(view);
        }
        Ok(())
    }
}

impl Versions {
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

fn picture_of(data: &dyn Dataset, index: usize) -> Result<Pixels> {
    Ok(Pixels::from_array(data.image(index)?.view())?)
}

/// A picture as the grid shows it.
fn cell(picture: &Pixels) -> Result<Pixels> {
    Ok(resize(picture, CELL, CELL, Filter::Bicubic)?)
}
