//! `tessera eval --features`: pictures beside real ones, in features of a network that knows ImageNet.

use super::pictures::files;
use crate::args::{MOST_PX, within};
use crate::pictures::LeftOut;
use crate::progress::Progress;
use crate::{interrupt, output};
use anyhow::{Context, Result, ensure};
use clap::Args;
use ndarray::ArrayView2;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tessera::evaluate::{
    EffLite0, FeatureFigures, FeatureFloor, FeatureReport, Looked, Nearest, look, neighbor_cells,
    require_enough,
};
use tessera::pictures::dataset::{Dataset, spaced};
use tessera::pictures::{Pixels, center_crop, paired, read};
use tessera::{Device, Reconstructions};

/// What is measured in features of a network.
#[derive(Debug, Clone, Args)]
pub struct FeatureArgs {
    /// Weights of EfficientNet-Lite0, safetensors or .pth: adds FD-EffLite0, a Fréchet distance in its features (not
    /// FID), precision and recall, and a perceptual distance of reconstructions. Pictures are resized to 224 x 224 px.
    #[arg(long, value_name = "FILE")]
    pub features: Option<PathBuf>,
    /// A folder of real pictures to hold those of --pictures against in --features.
    #[arg(long, value_name = "DIR", requires_all = ["pictures", "features"], conflicts_with_all = ["judge", "data"])]
    pub against: Option<PathBuf>,
    /// A folder of more real pictures, as many as in --pictures or more, for the floor; one half of --against beside
    /// the other unless given.
    #[arg(long, value_name = "DIR", requires = "against")]
    floor: Option<PathBuf>,
    /// Scale and center-crop the pictures of --against and --floor to N x N px first, as for training, so that
    /// sharpness does not set them apart; as they are unless given.
    #[arg(long, value_name = "N", requires = "against", conflicts_with = "pairs")]
    #[arg(value_parser = within(1..=MOST_PX))]
    img_size: Option<usize>,
    /// The pictures of --pictures and --against are reconstructions and originals of the same names: measure their
    /// perceptual distance too.
    #[arg(long, requires = "against")]
    pairs: bool,
    /// Nearest neighbors that the balls of precision and recall reach to.
    #[arg(long, default_value_t = 3, requires = "features", value_name = "N")]
    #[arg(value_parser = within(1_usize..=1000))]
    knn: usize,
    /// Write neighbors.png, N of the pictures in rows, each beside its five nearest training pictures (those of
    /// --floor, or else of --against) in --features: what a generator learned by heart is seen there. No such file
    /// unless given.
    #[arg(long, value_name = "N", requires_all = ["features", "output"])]
    #[arg(value_parser = within(1_usize..=1000))]
    neighbors: Option<usize>,
}

/// The network, and what is asked of it.
pub struct Looking {
    /// The network.
    pub network: EffLite0,
    /// Neighbors, for precision and recall.
    pub knn: usize,
    neighbors: Option<usize>,
    quiet: bool,
}

impl FeatureArgs {
    /// Whether it writes a file.
    pub fn writes(&self) -> bool {
        self.neighbors.is_some()
    }

    /// Opens the network, if there is to be one.
    ///
    /// # Errors
    /// When its file cannot be read, or holds another network.
    pub fn open(&self, device: &Device, quiet: bool) -> Result<Option<Looking>> {
        let Some(file) = &self.features else {
            return Ok(None);
        };
        let network = EffLite0::open(file, device.burn())
            .context("expected the weights of EfficientNet-Lite0")?;
        Ok(Some(Looking {
            network,
            knn: self.knn,
            neighbors: self.neighbors,
            quiet,
        }))
    }

    /// A folder of pictures beside a folder of real ones.
    ///
    /// # Errors
    /// Weights of another network, a folder with too few pictures; at the end, pictures that could not be read.
    pub fn folders(
        &self,
        pictures: &Path,
        limit: Option<usize>,
        output: Option<&Path>,
        json: bool,
        device: &Device,
        quiet: bool,
    ) -> Result<()> {
        #[derive(Serialize)]
        struct Report {
            features: FeatureReport,
        }
        let against = self.against.as_deref();
        let against = against.context("--features with --pictures needs --against DIR")?;
        let listed = |folder: &Path, most: usize| -> Result<Vec<PathBuf>> {
            let files = files(folder)?;
            let taken = spaced(files.len(), limit.unwrap_or(usize::MAX).min(most));
            Ok(taken.iter().map(|&index| files[index].clone()).collect())
        };
        let mut drawn = files(pictures)?;
        let mut real = match self.pairs {
            true => files(against)?,
            false => listed(against, usize::MAX)?,
        };
        if self.pairs {
            (drawn, real) = paired(drawn, real)?;
        }
        let most = most(self.neighbors, drawn.len());
        let more = self.floor.as_deref();
        let more = more.map(|folder| listed(folder, most)).transpose()?;
        let counts = (drawn.len(), real.len(), more.as_ref().map(Vec::len));
        require_enough(counts.0, counts.1, counts.2, self.knn)?;
        let looking = self.open(device, quiet)?.context("--features FILE")?;
        let mut left_out = LeftOut::none_of(counts.0 + counts.1 + counts.2.unwrap_or(0));
        let sized = |picture: Pixels, size: Option<usize>| match size {
            Some(size) => center_crop(&picture, size),
            None => Ok(picture),
        };
        let mut see = |files: &[PathBuf], partners: &[PathBuf], size: Option<usize>| {
            looking.look("look", files.len(), |index| {
                let mut versions = Vec::new();
                // What has no partner that can be read is left out, too.
                for file in partners.get(index).into_iter().chain([&files[index]]) {
                    let picture = read(file, None).and_then(|picture| sized(picture, size));
                    match left_out.or(picture.map_err(Into::into))? {
                        Some(picture) => versions.push(picture),
                        None => return Ok(Vec::new()),
                    }
                }
                Ok(versions)
            })
        };
        let (originals, looked) = match self.pairs {
            true => (None, see(&drawn, &real, None)?),
            false => (
                Some(see(&real, &[], self.img_size)?),
                see(&drawn, &[], None)?,
            ),
        };
        let more_seen = match &more {
            Some(files) => Some(see(files, &[], self.img_size)?),
            None => None,
        };
        left_out.some_done()?;
        let last = looked.versions.len().saturating_sub(1);
        let seen = looked.versions.get(last).context("no picture")?;
        let originals = originals.as_ref().unwrap_or(&looked);
        let original = originals.versions.first().context("no real picture")?;
        if !quiet {
            seen.unlike(original).iter().for_each(output::note);
        }
        let more_rows = more_seen.as_ref().map(|more| more.features(0));
        let (rows, real_rows) = (seen.features(), original.features());
        let mut features = FeatureReport::of(rows, real_rows, more_rows, self.knn)?;
        features.perceptual = self.pairs.then(|| looked.apart(last));
        let (near, near_files) = match (&more_seen, &more) {
            (Some(seen), Some(files)) => (&seen.versions[0], files),
            _ => (original, &real),
        };
        let reference = more_rows.map(|_| real_rows);
        features.nearest = looking.neighbors(
            output,
            [rows, near.features()],
            reference,
            |row| Ok(read(&drawn[seen.indices[row]], None)?),
            |row| {
                Ok(sized(
                    read(&near_files[near.indices[row]], None)?,
                    self.img_size,
                )?)
            },
        )?;
        match json {
            true => output::report("tessera.eval.features/v1", &Report { features })?,
            false => looking.print(&features)?,
        }
        left_out.all_done()
    }
}

/// Training pictures that are looked at: for the floor of so many pictures, or all to find the nearest.
fn most(neighbors: Option<usize>, pictures: usize) -> usize {
    match neighbors {
        Some(_) => usize::MAX,
        None => FeatureFloor::DRAWS.saturating_mul(pictures),
    }
}

impl Looking {
    /// Looks at pictures in any number of versions, with a bar and until Ctrl-C.
    ///
    /// # Errors
    /// What `picture` gives.
    pub fn look(
        &self,
        what: &str,
        count: usize,
        mut picture: impl FnMut(usize) -> Result<Vec<Pixels>>,
    ) -> Result<Looked> {
        let mut progress = Progress::new(what, "pictures", count as u64, self.quiet);
        let looked = look(&self.network, count, |index| {
            ensure!(!interrupt::requested(), "stopped");
            progress.add(1);
            picture(index)
        })?;
        progress.finish();
        Ok(looked)
    }

    /// Whether there are pictures enough, before any is drawn.
    ///
    /// # Errors
    /// When there are not.
    pub fn require(&self, pictures: usize, real: usize, more: usize) -> Result<()> {
        Ok(require_enough(pictures, real, Some(more), self.knn)?)
    }

    /// Training pictures for the floor of so many pictures, or all for their neighbors.
    ///
    /// # Errors
    /// When a picture cannot be read.
    pub fn training(&self, train: &dyn Dataset, pictures: usize) -> Result<Looked> {
        let indices = spaced(train.len(), most(self.neighbors, pictures));
        self.look("look at training data", indices.len(), |index| {
            Ok(vec![picture_of(train, indices[index])?])
        })
    }

    /// Looks at originals and reconstructions, padded to `size` px as the data is.
    ///
    /// # Errors
    /// When features are not finite.
    pub fn reconstructed(
        &self,
        looked: &mut Looked,
        all: &[Reconstructions],
        size: usize,
    ) -> Result<()> {
        let padded = all.iter().map(|all| {
            let versions = all.pictures().map(|picture| picture.pad(size, size));
            Ok((0, versions.collect::<Result<_, _>>()?))
        });
        ensure!(!interrupt::requested(), "stopped");
        Ok(looked.add(&self.network, &padded.collect::<Result<Vec<_>>>()?)?)
    }

    /// What a model drew beside the first version of the test pictures. The last version of these, and of as many
    /// training pictures, are reconstructions.
    ///
    /// # Errors
    /// When a picture cannot be read, or the grid not be written.
    pub fn drawn(
        &self,
        pictures: &[Pixels],
        train: &dyn Dataset,
        [real, trained]: &[Looked; 2],
        output: Option<&Path>,
    ) -> Result<FeatureReport> {
        let drawn = self.look("look", pictures.len(), |i| Ok(vec![pictures[i].clone()]))?;
        let training = self.training(train, pictures.len())?;
        let (drawn, training) = (drawn.features(0), training.features(0));
        let (original, last) = (real.features(0), real.versions.len().saturating_sub(1));
        let mut report = FeatureReport::of(drawn, original, Some(training), self.knn)?;
        report.reconstructions = Some(real.figures(last, self.knn)?);
        let trained = FeatureFigures::of(trained.features(last), original, self.knn)?;
        report.training_reconstructions = Some(trained);
        report.perceptual = Some(real.apart(last));
        report.nearest = self.neighbors(
            output,
            [drawn, training],
            Some(original),
            |row| Ok(pictures[row].clone()),
            |row| picture_of(train, row),
        )?;
        Ok(report)
    }

    /// Draws the grid of neighbors, if it is asked for.
    fn neighbors(
        &self,
        output: Option<&Path>,
        [drawn, training]: [ArrayView2<f64>; 2],
        real: Option<ArrayView2<f64>>,
        picture: impl Fn(usize) -> Result<Pixels>,
        trained: impl Fn(usize) -> Result<Pixels>,
    ) -> Result<Option<Nearest>> {
        let (Some(wanted), Some(folder)) = (self.neighbors, output) else {
            return Ok(None);
        };
        let (nearest, indices) = Nearest::of(drawn, training, real);
        let cells = neighbor_cells(&indices, wanted, picture, trained)?;
        output::grid(&folder.join("neighbors.png"), &cells, 1 + indices.ncols())?;
        Ok(Some(nearest))
    }

    /// Prints for people.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, report: &FeatureReport) -> Result<()> {
        self.warn(report.pictures.warning());
        output::text(report)
    }

    /// Prints a floor for people.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print_floor(&self, floor: &FeatureFloor) -> Result<()> {
        self.warn(floor.figures.warning());
        output::text(floor)
    }

    fn warn(&self, warning: Option<String>) {
        if let Some(warning) = warning.filter(|_| !self.quiet) {
            output::note(warning);
        }
    }
}

fn picture_of(data: &dyn Dataset, index: usize) -> Result<Pixels> {
    Ok(Pixels::from_array(data.image(index)?.view())?)
}
