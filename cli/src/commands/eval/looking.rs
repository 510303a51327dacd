//! What a network that knows ImageNet sees in pictures of a model, and how that is told.

use crate::progress::Progress;
use crate::{interrupt, output};
use anyhow::{Context, Result, ensure};
use ndarray::ArrayView2;
use std::path::Path;
use tessera::evaluate::{
    EffLite0, FeatureFigures, FeatureFloor, FeatureReport, View, require_enough,
};
use tessera::looking::floor_line;
pub use tessera::looking::{FeatureResult, Nearest, Neighbors, Versions, rows};
use tessera::pictures::Pixels;
use tessera::pictures::dataset::{Dataset, spaced};
use tessera::{Device, Reconstructions};

/// Pictures that are read and looked at together.
pub const BLOCK: usize = 32;
/// Real pictures that a floor is drawn from, as a multiple of the pictures that are judged.
pub const DRAWS: usize = 4;
/// The network, and what is asked of it.
pub struct Looking {
    network: EffLite0,
    /// For precision and recall.
    pub knn: usize,
    neighbors: Option<usize>,
    quiet: bool,
}

/// Ends where Ctrl-C was pressed.
///
/// # Errors
/// Then.
pub fn stopped() -> Result<()> {
    ensure!(!interrupt::requested(), "stopped");
    Ok(())
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
        Ok(versions.add(&self.network, all, size)?)
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
        let (real, restored, apart) = versions.last().context("no reconstruction")?;
        Ok(FeatureResult {
            report: FeatureReport::of(drawn, real, Some(training), self.knn)?,
            reconstructions: Some(FeatureFigures::of(restored, real, self.knn)?),
            perceptual: Some(apart),
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
        let found = Neighbors::of(wanted, drawn, training, reference, picture, trained)?;
        output::grid(&folder.join("neighbors.png"), &found.cells, found.columns)?;
        Ok(Some(found.nearest))
    }

    /// Prints for people.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, result: &FeatureResult) -> Result<()> {
        self.say_few(&result.report.pictures);
        output::text(result)
    }

    /// Prints a floor for people.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print_floor(&self, of: &FeatureFloor) -> Result<()> {
        self.say_few(&of.figures);
        output::text(floor_line(of))
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
}

fn picture_of(data: &dyn Dataset, index: usize) -> Result<Pixels> {
    Ok(Pixels::from_array(data.image(index)?.view())?)
}
