//! What commands leave on disk: folders that are never mixed up with what was there before, and pictures.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tessera::pictures::{self, Existing, GridStyle, Pixels, write_png};

/// Whether this process prints results: of several ranks one does.
static PRINTS: AtomicBool = AtomicBool::new(true);

/// Says whether this process prints results.
pub fn print_results(prints: bool) {
    PRINTS.store(prints, Ordering::Relaxed);
}

/// What becomes of a file that is there, by the flag.
pub fn existing(overwrite: bool) -> Existing {
    match overwrite {
        true => Existing::Replace,
        false => Existing::Keep,
    }
}

/// Makes `path` a folder to write results into: new, empty, or with `overwrite` whatever it holds.
///
/// # Errors
/// When it is a file, is not empty, or cannot be made.
pub fn folder(path: &Path, overwrite: bool) -> Result<()> {
    if path.exists() && !path.is_dir() {
        bail!(
            "{}: expected a folder to write into, found a file",
            path.display()
        );
    }
    std::fs::create_dir_all(path)
        .with_context(|| format!("{}: cannot make this folder", path.display()))?;
    let mut entries =
        std::fs::read_dir(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    if let (Some(Ok(first)), false) = (entries.next(), overwrite) {
        bail!(
            "{}: expected a new or empty folder, found {} file(s), among them {}; give another -o, or --overwrite",
            path.display(),
            1 + entries.count(),
            first.file_name().display()
        );
    }
    Ok(())
}

/// Refuses to write over `path` unless told to.
///
/// # Errors
/// When it exists and `overwrite` is off.
pub fn file(path: &Path, overwrite: bool) -> Result<()> {
    if path.is_dir() {
        bail!("{}: expected a file name, found a folder", path.display());
    }
    if path.exists() && !overwrite {
        bail!(
            "{}: already exists; give another name, or --overwrite",
            path.display()
        );
    }
    Ok(())
}

/// Writes a PNG with text chunks, in a folder that [`folder`] has cleared for writing.
///
/// # Errors
/// When it cannot be written.
pub fn picture(path: &Path, picture: &Pixels, texts: &[(String, String)]) -> Result<()> {
    let texts: Vec<(&str, &str)> = texts
        .iter()
        .map(|(key, text)| (key.as_str(), text.as_str()))
        .collect();
    Ok(write_png(path, picture, &texts, Existing::Replace)?)
}

/// Writes pictures as a grid in one PNG, as [`picture`] does.
///
/// # Errors
/// When they are of several sizes, or it cannot be written.
pub fn grid(path: &Path, cells: &[Pixels], columns: usize) -> Result<()> {
    picture(
        path,
        &pictures::grid(cells, columns, GridStyle::default())?,
        &[],
    )
}

/// Prints a result on stdout, of the first rank alone. A reader that has seen enough, as `head` has, is no fault.
///
/// # Errors
/// When stdout cannot be written for any other reason.
pub fn text(text: impl Display) -> Result<()> {
    if !PRINTS.load(Ordering::Relaxed) {
        return Ok(());
    }
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// Prints a report as JSON on stdout, its schema first.
///
/// # Errors
/// As [`json`].
pub fn report(schema: &str, report: &impl Serialize) -> Result<()> {
    #[derive(Serialize)]
    struct WithSchema<'a, T> {
        schema: &'a str,
        #[serde(flatten)]
        report: &'a T,
    }
    json(&WithSchema { schema, report })
}

/// Prints a result as JSON on stdout.
///
/// # Errors
/// When it cannot be put as JSON, or written.
pub fn json(value: &impl Serialize) -> Result<()> {
    text(serde_json::to_string_pretty(value)?)
}
