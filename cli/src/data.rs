//! A user's data as a data set of one size.

use crate::args::DataArgs;
use anyhow::{Context, Result};
use tessera::pictures::Channels;
use tessera::pictures::dataset::{BadPictures, Dataset, Split, Squares};

/// Opens `args.data`: IDX files if the folder holds them, else pictures; warns of those that cannot be read.
///
/// # Errors
/// When there is no data, or none of it can be read.
pub fn open(args: &DataArgs, split: Split, quiet: bool) -> Result<Box<dyn Dataset>> {
    let squares = Squares {
        size: args.img_size,
        channels: Channels::try_from(args.channels).context("--channels")?,
        bad_pictures: match args.strict {
            true => BadPictures::Fail,
            false => BadPictures::Skip,
        },
    };
    let opened = squares.open(&args.data, split).with_context(|| {
        let (folder, size) = (args.data.display(), args.img_size);
        format!("cannot use the data in {folder} at --img-size {size}")
    })?;
    let skipped = &opened.skipped;
    for picture in skipped.iter().filter(|_| !quiet) {
        eprintln!(
            "warning: skipped {}: {}",
            picture.file.display(),
            picture.reason
        );
    }
    if !skipped.is_empty() {
        let all = opened.pictures.len() + skipped.len();
        eprintln!("warning: {} of {all} pictures skipped", skipped.len());
    }
    Ok(opened.pictures)
}
