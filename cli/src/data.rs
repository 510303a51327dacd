//! A user's data as a data set of one size.

use crate::args::DataArgs;
use crate::output;
use anyhow::{Context, Result};
use tessera::pictures::Channels;
use tessera::pictures::dataset::{BadPictures, Dataset, Skipped, Split, Squares};

/// Opens `args.data`: IDX files if the folder holds them, else pictures; says in a line what it holds and what is left
/// out, and warns of pictures that cannot be read and of folders that are no classes.
///
/// # Errors
/// When there is no data, or none of it can be read.
pub fn open(args: &DataArgs, split: Split, quiet: bool) -> Result<Box<dyn Dataset>> {
    squares(args, split, 1, quiet)
}

/// Opens the training half of `args.data`, each picture `crops` times: the whole and windows of it.
///
/// # Errors
/// As [`open`], and when the pictures are IDX pictures, which are not cropped.
pub fn open_crops(args: &DataArgs, crops: usize, quiet: bool) -> Result<Box<dyn Dataset>> {
    squares(args, Split::Train, crops, quiet)
}

fn squares(args: &DataArgs, split: Split, crops: usize, quiet: bool) -> Result<Box<dyn Dataset>> {
    let squares = Squares {
        size: args.img_size,
        channels: Channels::try_from(args.channels).context("--channels")?,
        bad_pictures: match args.strict {
            true => BadPictures::Fail,
            false => BadPictures::Skip,
        },
        crops,
    };
    let opened = squares.open(&args.data, split)?;
    let (skipped, empty) = (&opened.skipped, &opened.empty);
    if !quiet {
        say_each("skipped ", skipped);
        say_each("", empty);
        let folder = args.data.display();
        output::note(format_args!("data: {folder}: {}", opened.summary()));
    }
    if !skipped.is_empty() {
        let all = opened.pictures.len() + skipped.len();
        output::note(format_args!(
            "warning: {} of {all} pictures skipped",
            skipped.len()
        ));
    }
    Ok(opened.pictures)
}

/// Warnings of one kind that are printed; the rest is counted.
const WARNINGS: usize = 10;

fn say_each(what: &str, skipped: &[Skipped]) {
    for one in skipped.iter().take(WARNINGS) {
        output::note(format_args!("warning: {what}{one}"));
    }
    if let more @ 1.. = skipped.len().saturating_sub(WARNINGS) {
        output::note(format_args!("warning: {more} more such"));
    }
}
