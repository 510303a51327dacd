//! The files that a person means by a path: a file, a folder, or a pattern.

use crate::error::{Error, Result};
use crate::walk::{ENDINGS, LeftOut, is_hidden, is_picture, walk};
use std::path::{Component, Path, PathBuf};

/// The files that paths stand for.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of the paths, and of the names within one.
    pub files: Vec<PathBuf>,
    /// What folders and patterns hold besides.
    pub left_out: LeftOut,
}

/// The files that paths stand for: themselves, the pictures of a folder at any depth, or the matches of a pattern,
/// where `*` stands for any characters of a name and `?` for one. A folder that matches is read as if it were given.
/// Hidden names count where they are given.
///
/// # Errors
/// When a path does not exist or is no regular file, a pattern matches nothing, or a folder holds no picture.
pub fn find(paths: &[PathBuf]) -> Result<Found> {
    let mut found = Found::default();
    for path in paths {
        let (before, mut left_out) = (found.files.len(), LeftOut::default());
        let no_match = |what: String| Error::NoMatch {
            path: path.clone(),
            what,
        };
        if path.exists() {
            take(path, &mut found.files, &mut left_out)?;
        } else if path.is_symlink() {
            return Err(no_match("a link to nothing".into()));
        } else if is_pattern(path.as_os_str().as_encoded_bytes()) {
            let matches = expand(path)?;
            if matches.is_empty() {
                return Err(no_match("no file matches".into()));
            }
            // `*.jpg` says what it wants, `*` does not.
            let any = !path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().contains(&b'.'));
            for path in matches {
                match any && path.is_file() && !is_picture(&path) {
                    true => left_out.add_other(path),
                    false => take(&path, &mut found.files, &mut left_out)?,
                }
            }
        } else {
            // A folder above it may be one that nobody may look into.
            return Err(match path.symlink_metadata() {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => Error::ReadFile {
                    path: path.clone(),
                    source,
                },
                _ => no_match("no such file".into()),
            });
        }
        if found.files.len() == before {
            return Err(no_match(none(&left_out)));
        }
        found.left_out.append(left_out);
    }
    Ok(found)
}

/// Both lists in the order of their names, each picture with the one of the same name, whatever their endings.
///
/// # Errors
/// [`Error::NoMatch`] names a picture that has no other.
pub fn paired(
    mut these: Vec<PathBuf>,
    mut those: Vec<PathBuf>,
) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    for files in [&mut these, &mut those] {
        files.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
    }
    let count = these.len().max(those.len());
    let unlike = (0..count).find_map(|index| {
        let [a, b] = [these.get(index), those.get(index)];
        let stem = |file: Option<&PathBuf>| file.and_then(|file| file.file_stem()).map(Into::into);
        let [of_a, of_b]: [Option<std::ffi::OsString>; 2] = [stem(a), stem(b)];
        (of_a != of_b).then(|| a.or(b).cloned())?
    });
    match unlike {
        Some(path) => Err(Error::NoMatch {
            path,
            what: "expected a picture of that name in the other folder, found none".into(),
        }),
        None => Ok((these, those)),
    }
}

/// What is said of a folder without pictures.
pub(crate) fn none(left_out: &LeftOut) -> String {
    let found = match left_out.is_empty() {
        true => "none".into(),
        false => left_out.to_string(),
    };
    format!("expected pictures ({}), found {found}", ENDINGS.join(", "))
}

fn take(path: &Path, files: &mut Vec<PathBuf>, left_out: &mut LeftOut) -> Result<()> {
    if path.is_dir() {
        let walked = walk(path)?;
        files.extend(walked.pictures);
        left_out.append(walked.left_out);
    } else {
        files.push(path.into());
    }
    Ok(())
}

/// What a folder holds, in the order of the names.
fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let here = Path::new(".");
    let list = std::fs::read_dir(if folder == Path::new("") {
        here
    } else {
        folder
    })?;
    let names = list.map(|entry| Ok(folder.join(entry?.file_name())));
    let mut paths = names.collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn is_pattern(part: &[u8]) -> bool {
    part.contains(&b'*') || part.contains(&b'?')
}

/// The paths that a pattern matches, part by part.
fn expand(pattern: &Path) -> Result<Vec<PathBuf>> {
    let mut bases = vec![PathBuf::new()];
    for part in pattern.components() {
        let name = part.as_os_str();
        if !matches!(part, Component::Normal(_)) || !is_pattern(name.as_encoded_bytes()) {
            bases.iter_mut().for_each(|base| base.push(name));
            bases.retain(|base| base.exists());
            continue;
        }
        let text = name.to_string_lossy();
        if text == "**" {
            return Err(Error::NoMatch {
                path: pattern.into(),
                what: "`**` is no pattern; a folder is read with all below it".into(),
            });
        }
        let hidden = text.starts_with('.');
        let fits = |entry: &PathBuf| {
            let name = entry.file_name().unwrap_or_default();
            (hidden || !is_hidden(name)) && glob(&text, &name.to_string_lossy())
        };
        // What cannot be listed holds no match: a file, or a folder that is closed.
        let below = bases.iter().filter_map(|base| entries(base).ok()).flatten();
        bases = below.filter(fits).collect();
    }
    Ok(bases)
}

/// Whether `name` is what `pattern` says, where `*` stands for any characters and `?` for one.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // The last star, and how far it reaches: only that one need ever reach farther.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&letter) if letter == '?' || letter == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, reached)) => {
                    star = Some((at, reached + 1));
                    (p, n) = (at + 1, reached + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_a_question_mark_for_one() {
        for (pattern, name, holds) in [
            ("*.png", "a.png", true),
            ("a*b*c", "aXbYbc", true),
            ("a*", "ba", false),
            ("*", "", true),
            ("a.png", "a.png", true),
            ("?.png", "å.png", true),
            ("?.png", "ab.png", false),
            ("a?*", "a", false),
            (
                "*a*a*a*a*a*a*b",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                false,
            ),
        ] {
            assert_eq!(glob(pattern, name), holds, "{pattern} {name}");
        }
    }
}
