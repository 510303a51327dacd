//! `cargo xtask tidy`: the house rules that no lint checks.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// A reader can hold this many lines.
const LONGEST_LINES: usize = 600;

/// Words of work that is not done, put together here so that this file does not hold them.
const LEFTOVERS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// How tensors cross between host and device behind the back of `tessera_backend`, which counts how often they do.
const CROSSINGS: [&str; 3] = [
    concat!("::from_", "data("),
    concat!(".into_", "data()"),
    concat!(".into_", "scalar"),
];

/// A random stream that the registry of `tessera_backend` does not name.
const UNNAMED_STREAM: &str = concat!("Rng::", "new(");

/// The same for the call.
const UNWRAP: &str = concat!(".unwr", "ap()");

/// Checks the workspace.
///
/// # Errors
/// When a rule is broken: lists where.
pub fn run() -> Result<()> {
    let root = workspace::root();
    let mut files = Vec::new();
    walk(root, &mut files);
    let mut broken = Vec::new();
    for file in &files {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(file);
        let found = match name.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => source(name, &text),
            _ if name.parent() != Some(Path::new("")) => manifest(&text),
            _ => Vec::new(),
        };
        broken.extend(
            found
                .into_iter()
                .map(|(line, rule)| format!("{}:{line}: {rule}", name.display())),
        );
    }
    match broken.is_empty() {
        true => {
            eprintln!("tidy: {} files in order", files.len());
            Ok(())
        }
        false => bail!("{} rules broken\n{}", broken.len(), broken.join("\n")),
    }
}

/// The sources and manifests below `folder`, without what is built or hidden.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in workspace::list(folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                walk(&path, files);
            }
        } else if name.ends_with(".rs") || name == "Cargo.toml" {
            files.push(path);
        }
    }
}

/// The broken rules of a source file, with their lines.
fn source(name: &Path, text: &str) -> Vec<(usize, String)> {
    let mut broken = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST_LINES {
        broken.push((lines, format!("{lines} lines, at most {LONGEST_LINES}")));
    }
    let first = text
        .lines()
        .find(|line| !line.is_empty() && !line.starts_with("#!["));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        broken.push((1, "a module begins with a //! line".into()));
    }
    let mut in_tests = ["tests", "benches"]
        .iter()
        .any(|part| name.iter().any(|folder| folder == *part))
        || name.ends_with("testing.rs")
        || name.ends_with("tests.rs");
    for (index, line) in text.lines().enumerate() {
        in_tests |= line.trim() == "#[cfg(test)]";
        let code = line.split("//").next().unwrap_or_default();
        if !in_tests && code.contains(UNWRAP) {
            broken.push((index + 1, "unwrap outside tests".into()));
        }
        let crosses = CROSSINGS.iter().any(|crossing| code.contains(crossing));
        let counted = !["backend/src", "examples"]
            .iter()
            .any(|part| name.starts_with(part));
        if !in_tests && crosses && counted {
            let rule = "a tensor crosses between host and device uncounted: see tessera_backend::host_values";
            broken.push((index + 1, rule.into()));
        }
        if !in_tests && code.contains(UNNAMED_STREAM) && !name.starts_with("backend/src") {
            let rule = "a random stream without a name: see tessera_backend::streams";
            broken.push((index + 1, rule.into()));
        }
        if let Some(word) = LEFTOVERS.iter().find(|word| line.contains(**word)) {
            broken.push((index + 1, format!("{word} left")));
        }
    }
    broken
}

/// The dependencies of a member's manifest whose version is not the workspace's, with their lines.
fn manifest(text: &str) -> Vec<(usize, String)> {
    let mut broken = Vec::new();
    let (mut listing, mut depth) = (false, 0);
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let opened = line.matches(['[', '{']).count();
        let closed = line.matches([']', '}']).count();
        if depth == 0 && line.starts_with('[') {
            let section = line.trim_matches(['[', ']']);
            listing = section.ends_with("dependencies");
            if section.contains("dependencies.") {
                broken.push((index + 1, "a dependency in a section of its own".into()));
            }
        } else if depth == 0 && listing && !line.is_empty() {
            let workspace = line.replace(' ', "").contains("workspace=true");
            if !workspace {
                let name = line.split(['=', '.']).next().unwrap_or_default().trim();
                broken.push((
                    index + 1,
                    format!("the version of {name} is not from the workspace"),
                ));
            }
        }
        depth = (depth + opened).saturating_sub(closed);
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(name: &str, text: &str) -> Vec<usize> {
        source(Path::new(name), text)
            .into_iter()
            .map(|(line, _)| line)
            .collect()
    }

    #[test]
    fn a_tidy_source_breaks_no_rule() {
        let text = format!(
            "#![forbid(unsafe_code)]\n\n//! Docs.\n// x{UNWRAP}\nfn f() {{}}\n#[cfg(test)]\nx{UNWRAP}\n"
        );
        assert!(rules("a/src/b.rs", &text).is_empty());
    }

    #[test]
    fn only_the_backend_and_examples_read_tensors_directly() {
        let text = format!("//! Docs.\nlet x = y{}();\n", CROSSINGS[2]);
        assert_eq!(rules("a/src/b.rs", &text), [2]);
        assert!(rules("backend/src/host.rs", &text).is_empty());
        assert!(rules("examples/a.rs", &text).is_empty());
    }

    #[test]
    fn every_rule_names_its_line() {
        let text = format!(
            "fn f() {{\n    x{UNWRAP}\n    // {}: later\n    {UNNAMED_STREAM}0, 1);\n}}\n",
            LEFTOVERS[0]
        );
        assert_eq!(rules("a/src/b.rs", &text), [1, 2, 3, 4]);
        assert_eq!(rules("a/tests/it/b.rs", &text), [1, 3]);
        let long = format!("//! Docs.\n{}", "\n".repeat(LONGEST_LINES));
        assert_eq!(rules("a/src/b.rs", &long), [601]);
    }

    #[test]
    fn versions_come_from_the_workspace() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = { workspace = true, features = [\n  \
                    \"c\",\n] }\nd = \"1\"\n[dev-dependencies]\ne = { version = \"1\" } # why\n[features]\nf = []\n\
                    [dependencies.g]\nversion = \"1\"\n";
        let lines: Vec<_> = manifest(text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [8, 10, 13]);
    }
}
