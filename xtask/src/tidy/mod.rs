//! `cargo xtask tidy`: the rules of this workspace that no lint checks, a file per family of rules.

mod boundary;
mod broken;
mod habits;
mod imports;
mod manifest;
mod members;
mod shapes;
mod size;
mod source;

use crate::workspace;
use anyhow::{Result, bail};
use broken::Broken;
use clap::Args;
use members::{File, RustFile};

/// Check the rules that no lint checks; list every line that breaks one.
///
/// The rules: at most 600 lines a file and 120 columns a line; docs on every module; no `unwrap` outside tests; no work
/// announced in comments; dependency versions from the workspace; no tests where the manifest builds none; no circle of
/// imports between more than three files; no library that prints or names a command-line option; shapes in the docs of
/// public functions on tensors; transfers between host and device only through `tessera_backend`; random streams only
/// from its registry.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask tidy\n  cargo xtask tidy --graph")]
pub struct Tidy {
    /// Check nothing; print for every crate which file imports from which, and all circles of imports.
    #[arg(long)]
    graph: bool,
}

/// Rules on any file.
const FILE_RULES: [fn(&File) -> Vec<Broken>; 2] = [size::columns, manifest::versions];

/// Rules on one Rust file.
const RUST_RULES: [fn(&RustFile<'_>) -> Vec<Broken>; 9] = [
    size::lines,
    habits::module_docs,
    habits::unwraps,
    habits::unfinished,
    habits::transfers,
    habits::streams,
    boundary::prints,
    boundary::options,
    shapes::documented,
];

impl Tidy {
    /// Checks the workspace, or prints its imports.
    ///
    /// # Errors
    /// If a rule is broken.
    pub fn run(&self) -> Result<()> {
        if self.graph {
            let files = members::files(workspace::root())?;
            print!("{}", imports::describe(&members::rust(&files)));
            return Ok(());
        }
        check()
    }
}

/// Checks the workspace.
///
/// # Errors
/// If a rule is broken; the message lists every place.
pub fn check() -> Result<()> {
    let files = members::files(workspace::root())?;
    let broken = broken(&files);
    if !broken.is_empty() {
        bail!("{} broken rules\n{}", broken.len(), broken.join("\n"));
    }
    eprintln!("tidy: {} files checked", files.len());
    Ok(())
}

fn broken(files: &[File]) -> Vec<String> {
    let rust = members::rust(files);
    let mut found = imports::circles(&rust);
    found.extend(manifest::unbuilt_tests(files, &rust));
    for file in files {
        let broken = FILE_RULES.iter().flat_map(|rule| rule(file));
        found.extend(broken.map(|broken| (file.name.clone(), broken)));
    }
    for file in &rust {
        let broken = RUST_RULES.iter().flat_map(|rule| rule(file));
        found.extend(broken.map(|broken| (file.name.to_owned(), broken)));
    }
    found.sort_by(|a, b| (&a.0, a.1.line).cmp(&(&b.0, b.1.line)));
    found
        .iter()
        .map(|(file, Broken { line, rule })| format!("{}:{line}: {rule}", file.display()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::members::testing::files;

    #[test]
    fn every_family_of_rules_is_applied_and_names_its_place() {
        let wide = "x".repeat(121);
        let source = "pub fn f(x: Tensor<1>) { x.unwrap(); println!(); }\n";
        let found = super::broken(&files(&[
            ("docs/a.md", &wide),
            ("moe/Cargo.toml", "[dependencies]\na = \"1\"\n"),
            ("moe/src/lib.rs", source),
        ]));
        let places: Vec<_> = found
            .iter()
            .map(|line| line.rsplit_once(": ").map_or("", |(place, _)| place))
            .collect();
        let first: Vec<_> = places
            .iter()
            .map(|place| place.split(": ").next().unwrap_or_default())
            .collect();
        assert_eq!(
            first,
            [
                "docs/a.md:1",
                "moe/Cargo.toml:2",
                "moe/src/lib.rs:1",
                "moe/src/lib.rs:1",
                "moe/src/lib.rs:1",
                "moe/src/lib.rs:1"
            ]
        );
    }

    #[test]
    fn a_tidy_workspace_breaks_no_rule() {
        let source =
            "//! Docs.\n\n/// Adds one to `[N]`.\npub fn f(x: Tensor<1>) -> Tensor<1> { x + 1 }\n";
        let found = super::broken(&files(&[
            ("moe/Cargo.toml", "[dependencies]\na.workspace = true\n"),
            ("moe/src/lib.rs", source),
        ]));
        assert!(found.is_empty(), "{found:?}");
    }
}
