//! A folder as it is: which of its files are pictures, and what else lies there.
//!
//! Folders are walked to any depth and symbolic links are followed, each real file and folder once, so that a link to
//! a folder above ends nothing and repeats nothing. Real entries come first: where a link points to what the folder
//! holds anyway, the link is the one left out.

use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

/// Endings of the files that are taken from folders, in any case.
pub const ENDINGS: [&str; 12] = [
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "gif", "tif", "tiff",
];

/// Kinds that a summary names; the rest is counted together.
const NAMED_KINDS: usize = 8;
/// The longest ending that is taken for one.
const LONGEST_ENDING: usize = 10;

/// What was not taken from a folder, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    entries: Vec<(PathBuf, Kind)>,
}

/// Why something is left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A folder that may not be listed.
    Unreadable,
    /// A name that begins with a dot, or one that a system keeps for itself.
    Hidden,
    /// An ending that is no picture's.
    Ending(String),
    /// A link to what is taken under another name.
    Repeated,
    /// A link to the folder itself, or to one that it lies in.
    Above,
    /// A link to nothing.
    Dangling,
    /// A pipe, a socket or a device.
    Special,
}

impl LeftOut {
    /// Whether everything was taken.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What of it lies in `folder`, at any depth.
    pub(crate) fn within(&self, folder: &Path) -> Self {
        // In order, so that what lies in one folder lies together.
        let start = self
            .entries
            .partition_point(|(path, _)| path.as_path() < folder);
        let within = self.entries[start..].iter();
        let within = within.take_while(|(path, _)| path.starts_with(folder));
        Self {
            entries: within.cloned().collect(),
        }
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.entries.append(&mut other.entries);
    }

    fn add(&mut self, path: PathBuf, kind: Kind) {
        self.entries.push((path, kind));
    }

    /// Counts a file whose ending is no picture's.
    pub(crate) fn add_other(&mut self, path: PathBuf) {
        let kind = Kind::Ending(ending(&path));
        self.add(path, kind);
    }
}

/// So many pictures, in words.
pub fn counted(pictures: usize) -> String {
    match pictures {
        1 => "1 picture".into(),
        _ => format!("{pictures} pictures"),
    }
}

/// The kinds with their numbers, the most frequent first: `3 .heic, 1 hidden`; empty if all was taken.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = BTreeMap::new();
        for (_, kind) in &self.entries {
            *counts.entry(kind).or_insert(0_usize) += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        // A folder that is closed may be all that was wanted.
        counts.sort_by_key(|&(kind, count)| (*kind != Kind::Unreadable, Reverse(count), kind));
        let others: usize = counts
            .iter()
            .skip(NAMED_KINDS)
            .map(|(_, count)| count)
            .sum();
        counts.truncate(NAMED_KINDS);
        let kinds = counts.into_iter().map(|(kind, count)| {
            let plural = if count == 1 { "" } else { "s" };
            match kind {
                Kind::Hidden => format!("{count} hidden"),
                Kind::Ending(ending) if ending.is_empty() => format!("{count} without ending"),
                Kind::Ending(ending) => format!("{count} .{ending}"),
                Kind::Repeated => format!("{count} link{plural} to what is taken already"),
                Kind::Above => format!("{count} link{plural} to a folder above"),
                Kind::Dangling => format!("{count} link{plural} to nothing"),
                Kind::Special => format!("{count} pipe{plural} or device{plural}"),
                Kind::Unreadable => format!("{count} folder{plural} that cannot be listed"),
            }
        });
        let others = (others > 0).then(|| format!("{others} more"));
        let kinds: Vec<_> = kinds.chain(others).collect();
        f.write_str(&kinds.join(", "))
    }
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Files with the endings of pictures, sorted.
    pub(crate) pictures: Vec<PathBuf>,
    /// Its sub-folders of the first level, links to folders included, sorted.
    pub(crate) folders: Vec<PathBuf>,
    /// Everything else.
    pub(crate) left_out: LeftOut,
}

/// Finds the pictures in `root`, at any depth.
///
/// # Errors
/// When `root` cannot be listed.
pub(crate) fn walk(root: &Path) -> Result<Walked> {
    let failed = |source| Error::ListFolder {
        folder: root.into(),
        source,
    };
    let canonical = root.canonicalize().map_err(failed)?;
    let mut walk = Walk {
        root: canonical.clone(),
        ..Walk::default()
    };
    walk.folders(root, canonical).map_err(failed)?;
    // Links to folders may hold further links to folders and to files.
    while let Some((path, canonical)) = walk.linked_folders.pop_first() {
        if walk.folders(&path, canonical).is_err() {
            walk.left_out.add(path, Kind::Unreadable);
        }
    }
    walk.linked_files();
    let mut pictures: Vec<_> = walk.pictures.into_iter().map(|(path, _)| path).collect();
    pictures.sort();
    walk.left_out.entries.sort();
    let first_level = |path: &PathBuf| path.parent() == Some(root);
    let folders = walk.seen.into_values().filter(first_level);
    let mut folders: Vec<_> = folders.collect();
    folders.sort();
    Ok(Walked {
        pictures,
        folders,
        left_out: walk.left_out,
    })
}

#[derive(Default)]
struct Walk {
    /// The canonical folder that the walk began in.
    root: PathBuf,
    /// With the canonical folder that each lies in.
    pictures: Vec<(PathBuf, PathBuf)>,
    left_out: LeftOut,
    /// The name under which each canonical folder was entered.
    seen: BTreeMap<PathBuf, PathBuf>,
    linked_folders: BTreeSet<(PathBuf, PathBuf)>,
    linked_files: BTreeSet<PathBuf>,
}

impl Walk {
    /// Enters a folder and all below it, each once and not through links. Fails if the folder itself cannot be listed.
    fn folders(&mut self, path: &Path, canonical: PathBuf) -> std::io::Result<()> {
        let mut pending = vec![(path.to_path_buf(), canonical)];
        let mut first = true;
        while let Some((path, canonical)) = pending.pop() {
            if self.seen.contains_key(&canonical) {
                self.left_out.add(path, Kind::Repeated);
                continue;
            }
            match self.folder(&path, &canonical, &mut pending) {
                Err(error) if first => return Err(error),
                Err(_) => self.left_out.add(path, Kind::Unreadable),
                Ok(()) => {
                    self.seen.insert(canonical, path);
                }
            }
            first = false;
        }
        Ok(())
    }

    fn folder(
        &mut self,
        path: &Path,
        canonical: &Path,
        pending: &mut Vec<(PathBuf, PathBuf)>,
    ) -> std::io::Result<()> {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if is_hidden(&entry.file_name()) {
                self.left_out.add(path, Kind::Hidden);
            } else if kind.is_dir() {
                pending.push((path, canonical.join(entry.file_name())));
            } else if kind.is_file() {
                self.file(path, canonical);
            } else if kind.is_symlink() {
                match (path.metadata(), path.canonicalize()) {
                    (Ok(_), Ok(target)) if self.root.starts_with(&target) => {
                        self.left_out.add(path, Kind::Above);
                    }
                    (Ok(target), Ok(canonical)) if target.is_dir() => {
                        self.linked_folders.insert((path, canonical));
                    }
                    (Ok(target), Ok(_)) if target.is_file() => {
                        self.linked_files.insert(path);
                    }
                    (Ok(_), _) => self.left_out.add(path, Kind::Special),
                    (Err(_), _) => self.left_out.add(path, Kind::Dangling),
                }
            } else {
                self.left_out.add(path, Kind::Special);
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, canonical: &Path) {
        match is_picture(&path) {
            true => self.pictures.push((path, canonical.into())),
            false => self.left_out.add_other(path),
        }
    }

    /// Takes the links to files that are not taken under a name of their own.
    fn linked_files(&mut self) {
        if self.linked_files.is_empty() {
            return;
        }
        let real = self.pictures.iter().map(|(path, canonical)| {
            let name = path.file_name().unwrap_or_default();
            canonical.join(name)
        });
        let mut taken: HashSet<PathBuf> = real.collect();
        for path in std::mem::take(&mut self.linked_files) {
            if !is_picture(&path) {
                self.left_out.add_other(path);
            } else if let Ok(target) = path.canonicalize() {
                match taken.insert(target) {
                    true => self.pictures.push((path, PathBuf::new())),
                    false => self.left_out.add(path, Kind::Repeated),
                }
            } else {
                self.left_out.add(path, Kind::Dangling);
            }
        }
    }
}

/// Whether a name never counts as content: hidden ones, and those that Windows and macOS leave behind.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    let of_a_system = [
        "__macosx",
        "thumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
    ];
    name.as_encoded_bytes().starts_with(b".")
        || of_a_system
            .iter()
            .any(|kept| name.eq_ignore_ascii_case(kept))
}

/// Whether a name ends as a picture's does.
pub(crate) fn is_picture(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default();
    ENDINGS
        .iter()
        .any(|known| ending.eq_ignore_ascii_case(known))
}

/// The ending of a name in small letters; none where what follows the last dot is too long for one.
fn ending(path: &Path) -> String {
    let ending = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    match ending.chars().count() <= LONGEST_ENDING && !ending.contains(char::is_whitespace) {
        true => ending,
        false => String::new(),
    }
}

/// A name as text: what is no UTF-8 is written as `\xE9`, so that two names never become one.
pub(crate) fn text_of(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        chunk
            .invalid()
            .iter()
            .for_each(|byte| text.push_str(&format!("\\x{byte:02X}")));
    }
    text
}

/// The first folder below `root` that `path` lies in, if it lies in one.
pub(crate) fn class_of(root: &Path, path: &Path) -> Option<OsString> {
    let below = path.strip_prefix(root).ok()?;
    let mut parts = below.components();
    let (first, rest) = (parts.next()?, parts.next());
    rest.map(|_| first.as_os_str().into())
}
