//! The crates of the workspace and their files.

use super::source::Source;
use crate::workspace;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a Rust file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Compiled into a library crate.
    Library,
    /// Compiled into one of the programs, `tessera` or `xtask`.
    Program,
    /// A test, bench, example or build script.
    Support,
}

/// A file of the workspace.
#[derive(Debug)]
pub struct File {
    /// Its path from the workspace root.
    pub name: PathBuf,
    /// What it holds.
    pub text: String,
}

/// A Rust file of the workspace.
pub struct RustFile<'a> {
    /// Its path from the workspace root.
    pub name: &'a Path,
    /// What it holds.
    pub text: &'a str,
    /// What it is for.
    pub role: Role,
    /// Its pieces.
    pub source: Source<'a>,
}

/// Reads all files that a rule applies to, by name.
///
/// # Errors
/// If a file cannot be read or is not UTF-8.
pub fn files(root: &Path) -> Result<Vec<File>> {
    let mut paths = Vec::new();
    walk(root, &mut paths);
    let read = |path: PathBuf| {
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
        Ok(File { name, text })
    };
    paths.into_iter().map(read).collect()
}

/// The files below `folder` except build output and hidden folders other than those of CI.
fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for path in workspace::list(folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let hidden = name.starts_with('.') && !matches!(&*name, ".ci" | ".github");
        if path.is_dir() {
            if name != "target" && !hidden {
                walk(&path, paths);
            }
        } else if ["rs", "md", "toml", "yml", "py"]
            .iter()
            .any(|end| path.extension().is_some_and(|e| e == *end))
        {
            paths.push(path);
        }
    }
}

/// The Rust files among `files`, with their roles.
pub fn rust(files: &[File]) -> Vec<RustFile<'_>> {
    let sources = files
        .iter()
        .filter(|file| file.name.extension().is_some_and(|end| end == "rs"));
    let mut parsed: Vec<RustFile<'_>> = sources
        .map(|File { name, text }| RustFile {
            name,
            text,
            role: role(name),
            source: Source::parse(text),
        })
        .collect();
    let tests: BTreeSet<PathBuf> = parsed.iter().flat_map(test_modules).collect();
    for file in &mut parsed {
        let below = |tests: &PathBuf| file.name.with_extension("").starts_with(tests);
        if tests.iter().any(below) {
            file.role = Role::Support;
        }
    }
    parsed
}

fn role(name: &Path) -> Role {
    let mut parts = name.iter().filter_map(|part| part.to_str());
    match (parts.next(), parts.next()) {
        (Some("cli" | "xtask"), Some("src")) => Role::Program,
        (_, Some("src")) => Role::Library,
        _ => Role::Support,
    }
}

/// The modules, as paths without extension, that a file declares under `#[cfg(test)]`.
fn test_modules<'a>(file: &'a RustFile<'_>) -> impl Iterator<Item = PathBuf> + 'a {
    let own = file.name.with_extension("");
    let names_its_folder = own
        .file_name()
        .is_some_and(|stem| ["lib", "main", "mod"].iter().any(|name| stem == *name));
    let folder = if names_its_folder {
        own.parent().map(Path::to_owned).unwrap_or_default()
    } else {
        own
    };
    file.source
        .test_modules()
        .into_iter()
        .map(move |name| folder.join(name))
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// Files of the workspace that a test needs.
    pub fn files(files: &[(&str, &str)]) -> Vec<File> {
        files
            .iter()
            .map(|(name, text)| File {
                name: name.into(),
                text: (*text).into(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_role_follows_from_its_place_and_its_declaration() {
        let files = testing::files(&[
            ("moe/src/lib.rs", "#[cfg(test)]\nmod cases;\nmod race;\n"),
            ("moe/src/cases/mod.rs", ""),
            ("moe/src/cases/deep.rs", ""),
            ("moe/src/race.rs", ""),
            ("moe/tests/it/main.rs", ""),
            ("moe/build.rs", ""),
            ("cli/src/main.rs", ""),
            ("moe/Cargo.toml", ""),
        ]);
        let roles: Vec<_> = rust(&files).iter().map(|file| file.role).collect();
        use Role::{Library, Program, Support};
        assert_eq!(
            roles,
            [
                Library, Support, Support, Library, Support, Support, Program
            ]
        );
    }
}
