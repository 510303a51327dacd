//! Versions of dependencies, and tests that no build would have.

use super::broken::Broken;
use super::members::{File, RustFile};
use std::path::PathBuf;

/// Refuses a dependency of a member whose version is not the workspace's.
pub fn versions(file: &File) -> Vec<Broken> {
    let is_workspace = file.text.lines().any(|line| line == "[workspace]");
    if is_workspace
        || file
            .name
            .file_name()
            .is_none_or(|name| name != "Cargo.toml")
    {
        return Vec::new();
    }
    let mut broken = Vec::new();
    let (mut listing, mut depth) = (false, 0);
    for (index, line) in file.text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let opened = line.matches(['[', '{']).count();
        let closed = line.matches([']', '}']).count();
        if depth == 0 && line.starts_with('[') {
            let section = line.trim_matches(['[', ']']);
            listing = section.ends_with("dependencies");
            if section.contains("dependencies.") {
                broken.push(Broken::new(
                    index + 1,
                    "a dependency in a section of its own",
                ));
            }
        } else if depth == 0 && listing && !line.is_empty() {
            let workspace = line.replace(' ', "").contains("workspace=true");
            if !workspace {
                let name = line.split(['=', '.']).next().unwrap_or_default().trim();
                let rule = format!("the version of {name} is not from the workspace");
                broken.push(Broken::new(index + 1, rule));
            }
        }
        depth = (depth + opened).saturating_sub(closed);
    }
    broken
}

/// Refuses tests in the library of a crate whose manifest builds none: they would never run.
pub fn unbuilt_tests(files: &[File], rust: &[RustFile<'_>]) -> Vec<(PathBuf, Broken)> {
    let without = files.iter().filter(|file| {
        let compact = file.text.replace(' ', "");
        file.name.ends_with("Cargo.toml") && compact.contains("[lib]\ntest=false")
    });
    let mut broken = Vec::new();
    for manifest in without {
        let sources = manifest.name.with_file_name("src");
        for file in rust.iter().filter(|file| file.name.starts_with(&sources)) {
            let rule = "a test that is never built: the manifest says test = false";
            let test = file.source.first_test();
            broken.extend(test.map(|line| (file.name.to_owned(), Broken::new(line, rule))));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::members::testing::files;
    use super::*;

    #[test]
    fn versions_come_from_the_workspace() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = { workspace = true, features = \
            [\n  \
                    \"c\",\n] }\nd = \"1\"\n[dev-dependencies]\ne = { version = \"1\" } # why\n[features]\nf = []\n\
                    [dependencies.g]\nversion = \"1\"\n";
        let files = files(&[
            ("a/Cargo.toml", text),
            ("Cargo.toml", &format!("[workspace]\n{text}")),
            ("a/other.toml", text),
        ]);
        let lines = |file: &File| {
            versions(file)
                .iter()
                .map(|broken| broken.line)
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(&files[0]), [8, 10, 13]);
        assert!(lines(&files[1]).is_empty() && lines(&files[2]).is_empty());
    }

    #[test]
    fn tests_are_where_they_are_built() {
        let tested = "//! A.\n#[cfg(test)]\nmod tests {}\n";
        let files = files(&[
            ("a/Cargo.toml", "[lib]\ntest = false\n"),
            ("a/src/lib.rs", tested),
            ("b/Cargo.toml", "[package]\n"),
            ("b/src/lib.rs", tested),
        ]);
        let broken = unbuilt_tests(&files, &super::super::members::rust(&files));
        let places: Vec<_> = broken
            .iter()
            .map(|(file, broken)| (file.to_str().unwrap(), broken.line))
            .collect();
        assert_eq!(places, [("a/src/lib.rs", 2)]);
    }
}
