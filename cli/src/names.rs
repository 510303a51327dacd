//! Names of the pictures a command writes: one file, a folder, or a pattern. All are known before the first is drawn.

use crate::output::{self, shown};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The digits that a number is padded to at most, and those of the largest.
const MOST_DIGITS: usize = 20;

/// Bytes of a file's name that every file system takes.
const MOST_BYTES: usize = 255;

/// Characters of a class in a name.
const MOST_OF_CLASS: usize = 100;

/// Endings of what is no PNG, so that a name with one means a file and not a folder.
const OTHERS: [&str; 16] = [
    "jpg", "jpeg", "jxl", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "svg", "pdf",
    "json", "zip", "tar", "npz",
];

/// What a picture's name is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    /// The picture's number, from 0.
    pub number: usize,
    /// The id of its class, and its name; none without a class.
    pub class: Option<(usize, &'a str)>,
    /// What it is drawn from.
    pub seed: u64,
}

/// A part of a file's name.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The picture's number, with zeros in front up to so many digits.
    Number(usize),
    Class,
    Seed,
}

/// Where pictures go.
#[derive(Debug)]
pub struct Names {
    folder: PathBuf,
    parts: Vec<Part>,
    /// The classes in file names, those that would be alike with their ids.
    classes: BTreeMap<Option<usize>, String>,
}

impl Names {
    /// `out.png` for one picture; `out` for `out/00000.png`, …; a pattern with `%05d` (the number), `{class}` or
    /// `{seed}` in the file's name, where `%%` is a percent sign. Classes whose names would be the same file's get
    /// their ids behind them. `others` are files that are written into the same folder.
    ///
    /// # Errors
    /// When the ending is not that of a PNG, two pictures would have one name, or `overwrite` is off and files are
    /// there already: all are counted.
    pub fn new<'a>(
        output: &Path,
        pictures: impl Iterator<Item = Named<'a>> + Clone,
        others: &[&str],
        overwrite: bool,
    ) -> Result<Self> {
        let names = Self::parsed(output, pictures.clone())?;
        let files = names.files(output, pictures, others)?;
        if names.parts == numbered() && !is_file(output)? {
            output::folder(output, overwrite)?;
        }
        tessera::checkpoint::create_folder(&names.folder)?;
        not_there(&names.folder, &files, overwrite)?;
        Ok(names)
    }

    fn parsed<'a>(output: &Path, pictures: impl Iterator<Item = Named<'a>>) -> Result<Self> {
        ensure!(
            !output.as_os_str().is_empty(),
            "-o: expected a folder, a file.png or a pattern, found no name"
        );
        let (folder, parts) = match (is_file(output)?, output.file_name()) {
            (true, Some(name)) => {
                let Some(name) = name.to_str() else {
                    bail!("-o {}: expected a name in UTF-8", output.display());
                };
                let folder = output.parent().unwrap_or(Path::new(""));
                let folder = match folder.as_os_str().is_empty() {
                    true => Path::new("."),
                    false => folder,
                };
                let text = folder.to_string_lossy();
                if let Some(part) = ["{class}", "{seed}"]
                    .iter()
                    .find(|part| text.contains(**part))
                {
                    bail!(
                        "-o {}: {part} stands in a folder's name, expected it in the file's alone",
                        output.display()
                    );
                }
                (
                    folder.to_owned(),
                    parts(name).with_context(|| format!("-o {}", output.display()))?,
                )
            }
            _ => (output.to_owned(), numbered()),
        };
        let classes = match parts.contains(&Part::Class) {
            true => classes(pictures),
            false => BTreeMap::new(),
        };
        Ok(Self {
            folder,
            parts,
            classes,
        })
    }

    /// The names of all files, none twice, whatever the case of their letters.
    fn files<'a>(
        &self,
        output: &Path,
        pictures: impl Iterator<Item = Named<'a>>,
        others: &[&str],
    ) -> Result<HashSet<String>> {
        let mut files: HashSet<String> = others.iter().map(|name| (*name).to_owned()).collect();
        for picture in pictures {
            let name = self.name(picture);
            ensure!(
                name.len() <= MOST_BYTES,
                "-o {}: a file's name of {} bytes, expected {MOST_BYTES} or fewer",
                output.display(),
                name.len()
            );
            if files.contains(&name.to_lowercase()) {
                bail!(
                    "-o {}: more than one file would be {}; give a folder, or a pattern with %05d or {{seed}}",
                    output.display(),
                    shown(&name)
                );
            }
            files.insert(name.to_lowercase());
        }
        Ok(files)
    }

    /// The folder that grids go to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a picture.
    pub fn path(&self, picture: Named<'_>) -> PathBuf {
        within(&self.folder, self.name(picture))
    }

    fn name(&self, picture: Named<'_>) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Number(width) => format!("{:0width$}", picture.number),
            Part::Seed => picture.seed.to_string(),
            Part::Class => {
                let id = picture.class.map(|(id, _)| id);
                self.classes.get(&id).cloned().unwrap_or_default()
            }
        };
        self.parts.iter().map(part).collect()
    }
}

/// Whether `output` names a file, by its ending.
fn is_file(output: &Path) -> Result<bool> {
    let ending = output
        .extension()
        .map(|ending| ending.to_string_lossy().to_lowercase());
    let text = output.as_os_str().to_string_lossy();
    let folder = text.ends_with(std::path::is_separator) || output.is_dir();
    match ending.as_deref() {
        Some("png") if output.is_dir() => {
            bail!("{}: expected a file name, found a folder", output.display())
        }
        Some("png") => Ok(true),
        Some(other) if !folder && OTHERS.contains(&other) => bail!(
            "-o {}: pictures are written as PNG; expected a name that ends in .png, or a folder",
            output.display()
        ),
        _ => Ok(false),
    }
}

/// A file in a folder, as the user names it: nothing in front where it is the one that the user is in.
fn within(folder: &Path, file: impl AsRef<Path>) -> PathBuf {
    match folder == Path::new(".") {
        true => file.as_ref().into(),
        false => folder.join(file),
    }
}

/// The names in a folder: `%05d.png`.
fn numbered() -> Vec<Part> {
    vec![Part::Number(5), Part::Text(".png".into())]
}

/// The parts of a pattern; a `%` that begins no number, and braces around anything else, are text.
fn parts(pattern: &str) -> Result<Vec<Part>> {
    let (mut parts, mut text, mut rest) = (Vec::new(), String::new(), pattern);
    while let Some(c) = rest.chars().next() {
        let part = if let Some(after) = rest.strip_prefix("%%") {
            text.push('%');
            rest = after;
            continue;
        } else if let Some(after) = rest.strip_prefix("{class}") {
            Some((Part::Class, after))
        } else if let Some(after) = rest.strip_prefix("{seed}") {
            Some((Part::Seed, after))
        } else if let Some((width, after)) = number(rest) {
            let width = match width {
                "" => 0,
                digits => digits.parse().unwrap_or(usize::MAX),
            };
            ensure!(
                width <= MOST_DIGITS,
                "a number of {width} digits, expected {MOST_DIGITS} or fewer"
            );
            Some((Part::Number(width), after))
        } else {
            None
        };
        match part {
            Some((part, after)) => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(part);
                rest = after;
            }
            None => {
                text.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

/// The digits of a `%05d` that begins here, and what comes after it.
fn number(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix('%')?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    Some((&rest[..digits], rest[digits..].strip_prefix('d')?))
}

/// The classes as file names have them; of those that would be alike, each with its id.
fn classes<'a>(pictures: impl Iterator<Item = Named<'a>>) -> BTreeMap<Option<usize>, String> {
    let mut named = BTreeMap::new();
    for Named { class, .. } in pictures {
        named
            .entry(class.map(|(id, _)| id))
            .or_insert_with(|| match class {
                Some((_, name)) => safe(name),
                None => "none".into(),
            });
    }
    let mut seen = BTreeSet::new();
    let all = named.values().map(|name| name.to_lowercase());
    let alike: BTreeSet<String> = all.filter(|name| !seen.insert(name.clone())).collect();
    for (id, name) in &mut named {
        if let (Some(id), true) = (id, alike.contains(&name.to_lowercase())) {
            *name = format!("{name}-{id}");
        }
    }
    named
}

/// A class as every file system takes it for a file's name.
fn safe(class: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || c == '-';
    let name = class.chars().map(|c| if kept(c) { c } else { '_' });
    let name: String = name.take(MOST_OF_CLASS).collect();
    let lower = name.to_lowercase();
    let device = matches!(&*lower, "con" | "prn" | "aux" | "nul")
        || ["com", "lpt"].iter().any(|port| {
            lower
                .strip_prefix(port)
                .is_some_and(|rest| rest.chars().count() == 1)
        });
    match name.is_empty() || name.starts_with('-') || device {
        true => format!("_{name}"),
        false => name,
    }
}

/// Refuses files that are there, by their names in lower case.
fn not_there(folder: &Path, files: &HashSet<String>, overwrite: bool) -> Result<()> {
    let mut there: Vec<OsString> = Vec::new();
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{}: cannot list this folder", folder.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !files.contains(&name.to_string_lossy().to_lowercase()) {
            continue;
        }
        ensure!(
            !entry.path().is_dir(),
            "{}: expected a file or nothing, found a folder",
            entry.path().display()
        );
        there.push(name);
    }
    there.sort_unstable();
    match (&there[..], overwrite) {
        ([], _) | (_, true) => Ok(()),
        ([one], false) => bail!(
            "{}: already exists; give another -o, or --overwrite",
            within(folder, one).display()
        ),
        ([first, ..], false) => bail!(
            "{} of {} files exist already, among them {}; give another -o, or --overwrite",
            there.len(),
            files.len(),
            within(folder, first).display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of pictures of classes, each with the seed 10 + its number, in a folder of their own.
    fn files(pattern: &str, classes: &[(usize, &str)]) -> Result<Vec<String>> {
        let folder = tempfile::tempdir()?;
        let of = |(number, class): (usize, &(usize, &'static str))| Named {
            number,
            class: Some(*class),
            seed: 10 + number as u64,
        };
        let classes: Vec<(usize, &'static str)> = classes
            .iter()
            .map(|(id, name)| (*id, name.to_string().leak() as &_))
            .collect();
        let pictures = classes.iter().enumerate().map(of);
        let names = Names::new(&folder.path().join(pattern), pictures.clone(), &[], false)?;
        let name = |picture| {
            let path = names.path(picture);
            path.strip_prefix(folder.path())
                .map(|path| path.display().to_string())
        };
        Ok(pictures.map(name).collect::<Result<_, _>>()?)
    }

    const TWO: [(usize, &str); 2] = [(3, "dress"), (7, "sneaker")];

    #[test]
    fn patterns_give_every_picture_a_name() {
        for (pattern, expected) in [
            ("a%05d.png", ["a00000.png", "a00001.png"]),
            ("a%d.PNG", ["a0.PNG", "a1.PNG"]),
            ("50%_%03d.png", ["50%_000.png", "50%_001.png"]),
            ("100%%%d.png", ["100%0.png", "100%1.png"]),
            ("{class}.png", ["dress.png", "sneaker.png"]),
            ("{class}_{seed}.png", ["dress_10.png", "sneaker_11.png"]),
            ("new/%d.png", ["new/0.png", "new/1.png"]),
            ("new", ["new/00000.png", "new/00001.png"]),
            ("v1.5", ["v1.5/00000.png", "v1.5/00001.png"]),
        ] {
            assert_eq!(files(pattern, &TWO).unwrap(), expected, "{pattern}");
        }
        assert_eq!(files("{sed}%.png", &TWO[..1]).unwrap(), ["{sed}%.png"]);
    }

    #[test]
    fn names_that_are_none_or_not_one_per_picture_are_refused() {
        for (pattern, word) in [
            ("x.png", "%05d"),
            ("100%/x.png", "%05d"),
            ("%%05d.png", "%05d"),
            ("{Seed}.png", "{seed}"),
            ("%99999d.png", "expected 20 or fewer"),
            ("%99999999999999999999999d.png", "expected 20 or fewer"),
            ("out.jpg", ".png"),
            ("out.JPEG", ".png"),
            ("{class}/%d.png", "the file's alone"),
        ] {
            let error = format!("{:#}", files(pattern, &TWO).unwrap_err());
            assert!(error.contains(word), "{pattern}: {error}");
        }
        let twice = [(3, "dress"), (3, "dress")];
        let error = files("{class}.png", &twice).unwrap_err().to_string();
        assert!(error.contains("dress.png"), "{error}");
        let long = files(&format!("{}{{seed}}.png", "x".repeat(260)), &TWO).unwrap_err();
        assert!(long.to_string().contains("255"), "{long}");
    }

    #[test]
    fn classes_are_safe_file_names_and_alike_ones_get_their_ids() {
        for (classes, expected) in [
            ([(0, "a b"), (1, "a/b")], ["a_b-0.png", "a_b-1.png"]),
            ([(2, "Cat"), (5, "cat")], ["Cat-2.png", "cat-5.png"]),
            ([(0, "../../etc"), (1, "")], ["______etc.png", "_.png"]),
            ([(0, "CON"), (1, "-rf")], ["_CON.png", "_-rf.png"]),
            ([(0, "猫\u{202e}\n"), (1, "é")], ["猫__.png", "é.png"]),
        ] {
            assert_eq!(files("{class}.png", &classes).unwrap(), expected);
        }
    }

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
            Names::new(&at(name), (0..8).map(picture), others, overwrite)
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
