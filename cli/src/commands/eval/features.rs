//! `tessera eval --features --pictures`: a folder beside a folder of real pictures, whoever drew them.

use super::looking::{BLOCK, DRAWS, FeatureResult, Looking, rows, stopped};
use super::pictures::files;
use crate::args::within;
use crate::output;
use crate::pictures::LeftOut;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tessera::Device;
use tessera::evaluate::{FeatureReport, require_enough};
use tessera::pictures::dataset::spaced;
use tessera::pictures::{Channels, Pixels, read};

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
    /// The pictures of --pictures and --against are reconstructions and originals of the same names: measure their
    /// perceptual distance too.
    #[arg(long, requires = "against")]
    pairs: bool,
    /// Nearest neighbors that the balls of precision and recall reach to.
    #[arg(long, default_value_t = 3, requires = "features", value_name = "N")]
    #[arg(value_parser = within(1_usize..=1000))]
    knn: usize,
    /// Write neighbors.png, N of the pictures in rows, each beside its five nearest training pictures (those of
    /// --floor, or else of --against) in --features: what a generator learned by heart is seen there.
    #[arg(long, value_name = "N", requires_all = ["features", "output"])]
    #[arg(value_parser = within(1_usize..=1000))]
    neighbors: Option<usize>,
}

/// Pictures of a folder that were looked at.
#[derive(Default)]
struct Seen {
    files: Vec<PathBuf>,
    features: Vec<f64>,
    gray: bool,
    /// Height and width of the first.
    size: Option<(usize, usize)>,
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
        Looking::open(file, self.knn, self.neighbors, device, quiet).map(Some)
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
            features: FeatureResult,
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
        // All of them only to find the nearest.
        let most = match self.neighbors {
            Some(_) => usize::MAX,
            None => DRAWS.saturating_mul(drawn.len()),
        };
        let more = self.floor.as_deref();
        let more = more.map(|folder| listed(folder, most)).transpose()?;
        let counts = (drawn.len(), real.len(), more.as_ref().map(Vec::len));
        require_enough(counts.0, counts.1, counts.2, self.knn)?;
        let looking = self.open(device, quiet)?.context("--features FILE")?;
        let all = counts.0 + counts.1 + counts.2.unwrap_or(0);
        let mut left_out = LeftOut::none_of(all);
        let mut progress = Progress::new("look", "pictures", all as u64, quiet);
        let mut see = |files: &[PathBuf], partners: Option<&[PathBuf]>| {
            look_at(&looking, files, partners, &mut left_out, &mut progress)
        };
        let (drawn, real, apart) = match self.pairs {
            true => see(&drawn, Some(&real))?,
            false => (see(&drawn, None)?.0, see(&real, None)?.0, Vec::new()),
        };
        let more = match &more {
            Some(files) => Some(see(files, None)?.0),
            None => None,
        };
        progress.finish();
        left_out.some_done()?;
        if !quiet {
            say_unlike([&drawn, &real]);
        }
        let more_rows = more.as_ref().map(|more| rows(&more.features));
        let report = FeatureReport::of(
            rows(&drawn.features),
            rows(&real.features),
            more_rows,
            self.knn,
        )?;
        let perceptual = self.pairs.then(|| mean(&apart));
        let near = more.as_ref().unwrap_or(&real);
        let reference = more.as_ref().map(|_| rows(&real.features));
        let features = FeatureResult {
            report,
            reconstructions: None,
            perceptual,
            nearest: looking.nearest(
                output,
                rows(&drawn.features),
                rows(&near.features),
                reference,
                |index| Ok(read(&drawn.files[index], None)?),
                |index| Ok(read(&near.files[index], None)?),
            )?,
        };
        match json {
            true => output::report("tessera.eval.features/v1", &Report { features })?,
            false => looking.print(&features)?,
        }
        left_out.all_done()
    }
}

/// Both lists in one order, with a partner of the same name for each.
fn paired(mut drawn: Vec<PathBuf>, mut real: Vec<PathBuf>) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    for files in [&mut drawn, &mut real] {
        files.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
    }
    let unlike = drawn.iter().zip(&real);
    let unlike = unlike.map(|(a, b)| (a, a.file_stem() != b.file_stem()));
    let alone = unlike
        .filter(|(_, unlike)| *unlike)
        .map(|(file, _)| file)
        .next();
    let longer = if drawn.len() > real.len() {
        &drawn
    } else {
        &real
    };
    let alone = alone.or(longer.get(drawn.len().min(real.len())));
    match alone {
        Some(file) => bail!(
            "{}: expected a picture of that name in the other folder, found none",
            file.display()
        ),
        None => Ok((drawn, real)),
    }
}

/// Says what sets the folders apart before their content does.
fn say_unlike(sets: [&Seen; 2]) {
    if sets.iter().any(|seen| seen.gray) {
        output::note("note: gray pictures are looked at as RGB, with three equal channels");
    }
    if let [Some(a), Some(b)] = sets.map(|seen| seen.size)
        && a != b
    {
        output::note(format_args!(
            "note: the first picture of one folder is {}x{} px and of the other {}x{} px; sharpness alone sets them \
            apart",
            a.1, a.0, b.1, b.0
        ));
    }
}

/// Looks at files, and at a partner of each if there are any: perceptual distances too. A picture that cannot be
/// read is left out, with its partner.
fn look_at(
    looking: &Looking,
    files: &[PathBuf],
    partners: Option<&[PathBuf]>,
    left_out: &mut LeftOut,
    progress: &mut Progress,
) -> Result<(Seen, Seen, Vec<f64>)> {
    let (mut seen, mut others, mut apart) = (Seen::default(), Seen::default(), Vec::new());
    for (block, chunk) in files.chunks(BLOCK).enumerate() {
        let (mut pictures, mut theirs) = (Vec::new(), Vec::new());
        for (index, file) in chunk.iter().enumerate() {
            let picture = left_out.or(read(file, None).map_err(Into::into))?;
            let partner = partners.map(|partners| &partners[block * BLOCK + index]);
            let other = match partner {
                Some(partner) => left_out.or(read(partner, None).map_err(Into::into))?,
                None => None,
            };
            if let (Some(picture), true) = (picture, partner.is_some() == other.is_some()) {
                seen.take(file, &picture);
                pictures.push(picture);
                if let (Some(partner), Some(other)) = (partner, other) {
                    others.take(partner, &other);
                    theirs.push(other);
                }
            }
        }
        let (view, their_view) = (looking.view(&pictures)?, looking.view(&theirs)?);
        if partners.is_some() {
            apart.extend(view.distances(&their_view));
        }
        seen.features.extend(view.features);
        others.features.extend(their_view.features);
        let sides = if partners.is_some() { 2 } else { 1 };
        progress.add((sides * chunk.len()) as u64);
        stopped()?;
    }
    Ok((seen, others, apart))
}

impl Seen {
    fn take(&mut self, file: &Path, picture: &Pixels) {
        self.files.push(file.into());
        self.gray |= picture.channels() == Channels::Gray;
        self.size.get_or_insert((picture.height(), picture.width()));
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
