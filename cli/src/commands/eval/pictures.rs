//! `tessera eval --pictures`: a folder of pictures before a judge, whoever drew them.

use super::print;
use crate::args::DataArgs;
use crate::pictures::LeftOut;
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
    /// A folder without pictures, a judge or data that cannot be read; at the end, pictures that were left out: they
    /// cannot be read, or are larger than the judge looks at.
    pub fn run(&self, device: &Device, quiet: bool) -> Result<()> {
        let judge = open_judge(self.judge, device)?;
        let shape = judge.config();
        let files = files(self.folder)?;
        let mut left_out = LeftOut::none_of(files.len());
        let (mut judged, mut batches) = (Vec::new(), Vec::new());
        for block in files.chunks(BLOCK) {
            let mut pictures = Vec::with_capacity(block.len());
            for file in block {
                let picture = picture(file, shape.in_channels, shape.img_size);
                if let Some(picture) = left_out.or(picture)? {
                    pictures.push(picture);
                    judged.push(file);
                }
            }
            if !pictures.is_empty() {
                batches.push(on_squares(&pictures, shape.img_size)?);
            }
        }
        left_out.some_done()?;
        let evaluated = evaluate(&judge, batches.into_iter().map(Ok))?;
        // All or none: of some pictures alone agreement would be another figure.
        let requested: Option<Vec<usize>> = judged.iter().map(|file| class(file)).collect();
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
            images: judged.len(),
            evaluation: Evaluation::of(&judge, &evaluated, requested.as_deref(), real)?,
            classes,
        };
        if self.json {
            output::report("tessera.eval.pictures/v1", &report)?;
        } else {
            output::text(format_args!("{} pictures", report.images))?;
            print::print(&report.evaluation, &report.classes)?;
        }
        left_out.all_done()
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
///
/// # Errors
/// When there is none.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = find(&[folder.into()])?.files;
    files.retain(|file| file.file_name().is_some_and(|name| name != "grid.png"));
    if files.is_empty() {
        bail!("{}: holds no pictures", folder.display());
    }
    Ok(files)
}

fn picture(file: &Path, channels: usize, size: usize) -> Result<Pixels> {
    let channels = match channels {
        1 => Channels::Gray,
        _ => Channels::Rgb,
    };
    let picture = read(file, Some(channels))?;
    let (width, height) = (picture.width(), picture.height());
    ensure!(
        width.max(height) <= size,
        "{}: {width}x{height} px, the judge looks at {size}x{size}",
        file.display()
    );
    Ok(picture)
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
