//! `tessera eval --pictures`: a folder of pictures before a judge, whoever drew them.

use super::print;
use crate::args::DataArgs;
use crate::pictures::all_done;
use crate::{data, output};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tessera::evaluate::{Classifier, Evaluation, RealPictures, evaluate, on_squares};
use tessera::pictures::dataset::Split;
use tessera::pictures::{Channels, Pixels, find, read, read_metadata};
use tessera::{Device, ImageParams};

/// Pictures that are read and judged together.
const BLOCK: usize = 256;

/// What is judged, by what, and beside what.
pub struct Pictures<'a> {
    /// A folder of pictures.
    pub folder: &'a Path,
    /// The classifier's folder.
    pub judge: &'a Path,
    /// The real pictures.
    pub data: Option<&'a Path>,
    /// At most so many real ones of either half.
    pub limit: Option<usize>,
    /// Print JSON.
    pub json: bool,
}

/// What is known of a folder of pictures.
#[derive(Serialize)]
struct Report {
    images: usize,
    classes: Vec<String>,
    #[serde(flatten)]
    evaluation: Evaluation,
}

impl Pictures<'_> {
    /// Judges and prints.
    ///
    /// # Errors
    /// A folder without pictures, pictures of other sizes than the judge's, a judge or data that cannot be read.
    pub fn run(&self, device: &Device, quiet: bool) -> Result<()> {
        let judge = open_judge(self.judge, device)?;
        let shape = judge.config();
        let found = files(self.folder)?;
        let (mut files, mut batches) = (Vec::new(), Vec::new());
        for block in found.chunks(BLOCK) {
            let mut pictures = Vec::new();
            for file in block {
                match read(file, Some(channels(shape.in_channels))) {
                    Ok(picture) => {
                        require_size(file, &picture, shape.img_size)?;
                        pictures.push(picture);
                        files.push(file);
                    }
                    Err(error) => output::note(format_args!("error: {error}")),
                }
            }
            if !pictures.is_empty() {
                batches.push(on_squares(&pictures, shape.img_size)?);
            }
        }
        if files.is_empty() {
            return all_done(found.len(), found.len());
        }
        let evaluated = evaluate(&judge, batches.into_iter().map(Ok))?;
        // All or none: of some pictures alone agreement would be another figure.
        let requested: Option<Vec<usize>> = files.iter().map(|file| class(file)).collect();
        let open = |folder: &Path, split| {
            let args = DataArgs {
                data: folder.into(),
                img_size: shape.img_size,
                channels: shape.in_channels,
                strict: false,
            };
            data::open(&args, split, quiet)
        };
        let train = self.data.map(|folder| open(folder, Split::Train));
        let test = self.data.map(|folder| open(folder, Split::Test));
        let (train, test) = (train.transpose()?, test.transpose()?);
        let real = train
            .as_ref()
            .zip(test.as_ref())
            .map(|(train, test)| RealPictures {
                train: &**train,
                test: &**test,
                limit: self.limit,
            });
        let classes = match &test {
            Some(test) => test.class_names().to_vec(),
            None => (0..shape.classes).map(|class| class.to_string()).collect(),
        };
        let report = Report {
            images: files.len(),
            evaluation: Evaluation::of(&judge, &evaluated, requested.as_deref(), real)?,
            classes,
        };
        match self.json {
            true => output::report("tessera.eval.pictures/v1", &report)?,
            false => {
                output::text(format_args!("{} pictures", report.images))?;
                print::print(&report.evaluation, &report.classes)?;
            }
        }
        all_done(found.len() - files.len(), found.len())
    }
}

/// Opens a classifier.
///
/// # Errors
/// When it cannot be read.
pub fn open_judge(folder: &Path, device: &Device) -> Result<Classifier> {
    Classifier::load_dir(folder, device.burn())
        .with_context(|| format!("cannot open the judge in {}", folder.display()))
}

/// The pictures of a folder, without the grid that `tessera generate` puts beside them.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = find(&[folder.into()])?.files;
    files.retain(|file| file.file_name().is_some_and(|name| name != "grid.png"));
    if files.is_empty() {
        bail!("{}: holds no pictures", folder.display());
    }
    Ok(files)
}

fn channels(count: usize) -> Channels {
    match count {
        1 => Channels::Gray,
        _ => Channels::Rgb,
    }
}

/// Refuses a picture that is larger than the judge looks at.
fn require_size(file: &Path, picture: &Pixels, size: usize) -> Result<()> {
    let (width, height) = (picture.width(), picture.height());
    ensure!(
        width.max(height) <= size,
        "{}: {width}x{height} px, the judge looks at {size}x{size}",
        file.display()
    );
    Ok(())
}

/// The class that a picture was asked to be of, where its metadata say.
fn class(file: &Path) -> Option<usize> {
    #[derive(Deserialize)]
    struct Params {
        class: usize,
    }
    let texts = read_metadata(file).ok()?;
    let (_, json) = texts.iter().find(|(key, _)| key == ImageParams::KEYWORD)?;
    Some(serde_json::from_str::<Params>(json).ok()?.class)
}
