//! The files that a person means by a path: a file, a folder, or a pattern.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Endings of the files that are taken from folders.
pub const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// The files that paths stand for, in order: themselves, the pictures of a folder and its sub-folders, or the matches
/// of a pattern with `*` in its last part.
///
/// # Errors
/// When a path does not exist, a pattern matches nothing, or a folder holds no picture.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let (before, name) = (files.len(), last(path));
        let missing = if path.is_dir() {
            walk(path, &mut files)?;
            format!("expected pictures ({}), found none", ENDINGS.join(", "))
        } else if path.exists() {
            files.push(path.clone());
            continue;
        } else if name.contains('*') {
            let parent = path.parent().filter(|folder| *folder != Path::new(""));
            let entries = entries(parent.unwrap_or(Path::new(".")))?;
            let matches = |entry: &PathBuf| entry.is_file() && glob(&name, &last(entry));
            files.extend(entries.into_iter().filter(matches));
            "no file matches".into()
        } else {
            "no such file".into()
        };
        if files.len() == before {
            return Err(Error::NoMatch {
                path: path.clone(),
                what: missing,
            });
        }
    }
    Ok(files)
}

/// What a folder holds, in the order of the names.
///
/// # Errors
/// When it cannot be listed.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::ListFolder {
        folder: folder.into(),
        source,
    };
    let list = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths = list
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// Whether a path is a file whose name ends as a picture's does.
pub(crate) fn is_picture(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    path.is_file() && ENDINGS.contains(&&*ending.to_lowercase())
}

/// The last part of a path, as it is written.
fn last(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in entries(folder)? {
        if entry.is_dir() {
            walk(&entry, files)?;
        } else if is_picture(&entry) {
            files.push(entry);
        }
    }
    Ok(())
}

/// Whether `name` is what `pattern` says, where `*` stands for any characters.
fn glob(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(head) else {
        return false;
    };
    let starts = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    starts.into_iter().any(|at| glob(rest, &name[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, holds) in [
            ("*.png", "a.png", true),
            ("a*b*c", "aXbYbc", true),
            ("a*", "ba", false),
            ("*", "", true),
            ("a.png", "a.png", true),
        ] {
            assert_eq!(glob(pattern, name), holds, "{pattern} {name}");
        }
    }
}
