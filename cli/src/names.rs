//! The names of the pictures that a command writes under `-o`, before the first is drawn.

use crate::output;
use anyhow::{Error, Result, bail};
use std::path::Path;
use tessera::checkpoint::create_folder;
use tessera::{NameFault, Named, Names};

/// The names that `output` gives the pictures, in a folder that is there. `others` are files that are written into the
/// same folder.
///
/// # Errors
/// When two pictures would have one name, or `overwrite` is off and files are there already: all are counted.
pub fn names<'a>(
    output: &Path,
    pictures: impl Iterator<Item = Named<'a>> + Clone,
    others: &[&str],
    overwrite: bool,
) -> Result<Names> {
    let names = Names::new(output, pictures, others).map_err(|error| match error {
        tessera::Error::Name(NameFault::Empty) => Error::from(error).context("-o"),
        tessera::Error::Name(_) => Error::from(error).context(format!("-o {}", output.display())),
        error => error.into(),
    })?;
    if names.is_folder() {
        output::folder(output, overwrite)?;
    }
    create_folder(names.folder())?;
    match (&names.existing()?[..], overwrite) {
        ([], _) | (_, true) => Ok(names),
        ([one], false) => bail!(
            "{}: already exists; give another -o, or --overwrite",
            one.display()
        ),
        ([first, more @ ..], false) => bail!(
            "{} of {} files exist already, among them {}; give another -o, or --overwrite",
            1 + more.len(),
            names.count(),
            first.display()
        ),
    }
}
