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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_there_are_counted_before_drawing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let picture = |number| Named {
            number,
            class: None,
            seed: 0,
        };
        let make = |name: &str, others: &[&str], overwrite| {
            names(&at(name), (0..8).map(picture), others, overwrite)
        };
        for name in ["5.png", "6.png", "grid.png", ".DS_Store"] {
            std::fs::write(at(name), "mine").unwrap();
        }
        let error = make("%d.png", &[], false).unwrap_err().to_string();
        assert!(
            error.starts_with("2 of 8 files exist") && error.contains("--overwrite"),
            "{error}"
        );
        let error = make("x%d.png", &["grid.png"], false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("grid.png: already exists"), "{error}");
        make("%d.png", &["grid.png"], true).unwrap();
        std::fs::create_dir(at("7.png")).unwrap();
        let error = make("%d.png", &[], true).unwrap_err().to_string();
        assert!(error.contains("7.png: expected a file"), "{error}");
        // Hidden files are no content of a folder.
        std::fs::create_dir(at("new")).unwrap();
        std::fs::write(at("new/.DS_Store"), "").unwrap();
        make("new", &[], false).unwrap();
    }
}
