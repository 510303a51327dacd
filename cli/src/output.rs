//! What commands leave on disk: folders that are never mixed up with what was there before, and pictures.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tessera::Which;
use tessera::checkpoint::{create_folder, visible_entries};
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
    free(path, overwrite)?;
    Ok(create_folder(path)?)
}

/// Refuses a folder that is in use, unless told to write over what it holds.
///
/// # Errors
/// When it is a file, is not empty, or cannot be read.
pub fn free(path: &Path, overwrite: bool) -> Result<()> {
    if path.exists() && !path.is_dir() {
        bail!(
            "{}: expected a folder to write into, found a file",
            path.display()
        );
    }
    let entries = visible_entries(path)?;
    if let (Some(first), false) = (entries.first(), overwrite) {
        bail!(
            "{}: expected a new or empty folder, found {} file(s), among them {}; give another -o, or --overwrite",
            path.display(),
            entries.len(),
            shown(&first.to_string_lossy())
        );
    }
    Ok(())
}

/// Refuses to write over `path` unless told to, and makes its folder: before long work, not after.
///
/// # Errors
/// When it exists and `overwrite` is off; when the folder cannot be made.
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
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
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

/// Whether a terminal obeys `c` instead of showing it: control characters, ends of lines, and marks that reorder text.
fn obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes `text` with what a terminal obeys escaped, except what `kept` names.
struct Escaping<'a, 'b> {
    into: &'a mut fmt::Formatter<'b>,
    kept: &'a [char],
}

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let escaped = |c: char| obeyed(c) && !self.kept.contains(&c);
        let mut plain = 0;
        for (at, c) in text.char_indices().filter(|&(_, c)| escaped(c)) {
            self.into.write_str(&text[plain..at])?;
            match c {
                '\n' | '\r' | '\t' => write!(self.into, "{}", c.escape_default())?,
                _ => write!(self.into, "{}", c.escape_unicode())?,
            }
            plain = at + c.len_utf8();
        }
        self.into.write_str(&text[plain..])
    }
}

/// `text` as a terminal shows it on one line, for what comes from a file or its name: control characters, ends of
/// lines and marks that reorder text are escaped.
pub fn shown(text: impl Display) -> impl Display {
    fmt::from_fn(move |f| write!(Escaping { into: f, kept: &[] }, "{text}"))
}

/// The same for what has lines of its own.
fn lines(text: impl Display) -> impl Display {
    fmt::from_fn(move |f| {
        write!(
            Escaping {
                into: f,
                kept: &['\n', '\t']
            },
            "{text}"
        )
    })
}

/// Prints what the command line asks for, which is help, or what is wrong with it; its arguments may hold anything.
pub fn usage(error: &clap::Error) {
    let text = error.to_string();
    let plain = lines(&text).to_string();
    if plain == text {
        // In colors, where it is a terminal.
        let _ = error.print();
    } else {
        let _ = io::stderr().lock().write_all(plain.as_bytes());
    }
}

/// Writes one line on stderr, as [`shown`] has it. That nobody reads stderr any more is no reason to end: whether the
/// line arrives changes nothing.
pub fn note(line: impl Display) {
    // In one piece, which lines of other threads and ranks do not interrupt.
    let line = format!("{}\n", shown(line));
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Prints a result on stdout, of the first rank alone; what a terminal obeys is escaped in it. A reader that has seen
/// enough, as `head` has, is no fault.
///
/// # Errors
/// When stdout cannot be written for any other reason.
pub fn text(text: impl Display) -> Result<()> {
    if !PRINTS.load(Ordering::Relaxed) {
        return Ok(());
    }
    match writeln!(io::stdout().lock(), "{}", lines(text)) {
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
    let mut json = String::new();
    for c in serde_json::to_string_pretty(value)?.chars() {
        // What JSON allows in strings and a terminal obeys; none of it is outside the basic plane.
        match obeyed(c) && c != '\n' {
            true => write!(json, "\\u{:04x}", u32::from(c))?,
            false => json.push(c),
        }
    }
    text(json)
}

/// A figure of SSIM, or a dash for pictures that are too small to have one.
pub fn ssim(ssim: Option<f64>) -> String {
    ssim.map_or_else(|| "-".into(), |ssim| format!("{ssim:.4}"))
}

/// Says which checkpoint of a run is drawn with.
pub fn of_checkpoint(quiet: bool) -> Option<fn(&Path, Which)> {
    let told: fn(&Path, Which) = |file, which| {
        let kind = match which {
            Which::Raw => "raw",
            Which::Ema => "averaged",
        };
        note(format_args!("{kind} weights of {}", shown(file.display())));
    };
    (!quiet).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_do_not_fill_a_folder() {
        let root = tempfile::tempdir().unwrap();
        for hidden in [".DS_Store", ".tessera-tmp-1-0-a.png"] {
            std::fs::write(root.path().join(hidden), "x").unwrap();
        }
        folder(root.path(), false).unwrap();
        std::fs::write(root.path().join("a.png"), "x").unwrap();
        let refused = folder(root.path(), false).unwrap_err().to_string();
        assert!(
            refused.contains("found 1 file(s), among them a.png"),
            "{refused}"
        );
        folder(root.path(), true).unwrap();
    }

    #[test]
    fn the_folder_of_a_file_is_made_before_the_work() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("no/such/c.json");
        file(&path, false).unwrap();
        std::fs::write(&path, "{}").unwrap();
        assert!(file(&path, false).is_err() && file(&path, true).is_ok());
        let below_a_file = file(&path.join("x/c.json"), false).unwrap_err().to_string();
        assert!(
            below_a_file.contains("cannot create") && below_a_file.contains("c.json"),
            "{below_a_file}"
        );
    }

    #[test]
    fn what_a_terminal_obeys_is_shown_instead() {
        let title =
            "\u{1b}]0;owned\u{7}b\nerror: forged.png\r\u{9b}2J\u{202e}gnp.\u{2066}x\u{2028}";
        let said = shown(title).to_string();
        assert!(!said.chars().any(obeyed), "{said:?}");
        assert!(said.starts_with(r"\u{1b}]0;owned\u{7}b\nerror: forged.png\r\u{9b}2J\u{202e}gnp."));
        for plain in ["Größe C:\\new\\x.png 猫 é", "", "a  b"] {
            assert_eq!(shown(plain).to_string(), plain);
        }
        assert_eq!(lines("a\tb\n\u{1b}c").to_string(), "a\tb\n\\u{1b}c");
    }
}
