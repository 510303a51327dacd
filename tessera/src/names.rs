//! Names of pictures that are written together: one file, a folder, or a pattern. All are known before the first is
//! drawn.

use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// A name that pictures cannot be written under.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameFault {
    /// Nothing.
    #[error("expected a folder, a file.png or a pattern, found no name")]
    Empty,
    /// Bytes that are no text.
    #[error("expected a name in UTF-8")]
    NotUtf8,
    /// A part of patterns where none can be.
    #[error("{part} stands in a folder's name, expected it in the file's alone")]
    InFolder {
        /// The part.
        part: &'static str,
    },
    /// A number with too many digits.
    #[error("a number of {digits} digits, expected {MOST_DIGITS} or fewer")]
    Digits {
        /// How many.
        digits: usize,
    },
    /// A name that is too long for a file system.
    #[error("a file's name of {bytes} bytes, expected {MOST_BYTES} or fewer")]
    Long {
        /// How long it is.
        bytes: usize,
    },
    /// One name for two files.
    #[error(
        "more than one file would be {name}; give a folder, or a pattern with %05d or {{seed}}"
    )]
    Alike {
        /// The name.
        name: String,
    },
    /// The name of another format's file.
    #[error("pictures are written as PNG; expected a name that ends in .png, or a folder")]
    NotPng,
}

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
    is_folder: bool,
    folder: PathBuf,
    parts: Vec<Part>,
    /// The classes in file names, those that would be alike with their ids.
    classes: BTreeMap<Option<usize>, String>,
    /// All files, in lower case.
    files: HashSet<String>,
}

impl Names {
    /// `out.png` for one picture; `out` for `out/00000.png`, …; a pattern with `%05d` (the number), `{class}` or
    /// `{seed}` in the file's name, where `%%` is a percent sign. Classes whose names would be the same file's get
    /// their ids behind them. `others` are files that are written into the same folder.
    ///
    /// # Errors
    /// [`NameFault`], or a folder with the name of a file.
    pub fn new<'a>(
        output: &Path,
        pictures: impl Iterator<Item = Named<'a>> + Clone,
        others: &[&str],
    ) -> Result<Self> {
        let mut names = Self::parsed(output, pictures.clone())?;
        names.files = names.all(pictures, others)?;
        Ok(names)
    }

    fn parsed<'a>(output: &Path, pictures: impl Iterator<Item = Named<'a>>) -> Result<Self> {
        if output.as_os_str().is_empty() {
            return Err(NameFault::Empty.into());
        }
        let is_file = is_file(output)?;
        let (folder, parts) = match (is_file, output.file_name()) {
            (true, Some(name)) => {
                let name = name.to_str().ok_or(NameFault::NotUtf8)?;
                let folder = output.parent().unwrap_or(Path::new(""));
                let folder = match folder.as_os_str().is_empty() {
                    true => Path::new("."),
                    false => folder,
                };
                let text = folder.to_string_lossy();
                if let Some(part) = ["{class}", "{seed}"]
                    .into_iter()
                    .find(|part| text.contains(part))
                {
                    return Err(NameFault::InFolder { part }.into());
                }
                (folder.to_owned(), parts(name)?)
            }
            _ => (output.to_owned(), numbered()),
        };
        let classes = match parts.contains(&Part::Class) {
            true => classes(pictures),
            false => BTreeMap::new(),
        };
        Ok(Self {
            is_folder: !is_file,
            folder,
            parts,
            classes,
            files: HashSet::new(),
        })
    }

    /// The names of all files, none twice, whatever the case of their letters.
    fn all<'a>(
        &self,
        pictures: impl Iterator<Item = Named<'a>>,
        others: &[&str],
    ) -> Result<HashSet<String>, NameFault> {
        let mut files: HashSet<String> = others.iter().map(|name| (*name).to_owned()).collect();
        for picture in pictures {
            let name = self.name(picture);
            let bytes = name.len();
            if bytes > MOST_BYTES {
                return Err(NameFault::Long { bytes });
            }
            if files.contains(&name.to_lowercase()) {
                return Err(NameFault::Alike { name });
            }
            files.insert(name.to_lowercase());
        }
        Ok(files)
    }

    /// Whether the pictures have a folder to themselves, where they are numbered.
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// How many files there will be.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Which of the files are there already, in order, whatever the case of their letters; their folder must be there.
    ///
    /// # Errors
    /// When the folder cannot be listed, or has a folder with the name of a file.
    pub fn existing(&self) -> Result<Vec<PathBuf>> {
        let mut there = Vec::new();
        let entries =
            std::fs::read_dir(&self.folder).map_err(Error::io("list this folder", &self.folder))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !self.files.contains(&name.to_string_lossy().to_lowercase()) {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                return Err(Error::IsFolder {
                    path,
                    expected: "a file or nothing",
                });
            }
            there.push(name);
        }
        there.sort_unstable();
        let shown = there.into_iter().map(|name| within(&self.folder, name));
        Ok(shown.collect())
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
        Some("png") if output.is_dir() => Err(Error::IsFolder {
            path: output.into(),
            expected: "a file name",
        }),
        Some("png") => Ok(true),
        Some(other) if !folder && OTHERS.contains(&other) => Err(NameFault::NotPng.into()),
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
fn parts(pattern: &str) -> Result<Vec<Part>, NameFault> {
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
            let digits = match width {
                "" => 0,
                digits => digits.parse().unwrap_or(usize::MAX),
            };
            if digits > MOST_DIGITS {
                return Err(NameFault::Digits { digits });
            }
            Some((Part::Number(digits), after))
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
