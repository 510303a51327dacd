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
use clap::{Args, ValueEnum};
use members::{File, RustFile};
use std::path::PathBuf;

/// Check the rules that no lint checks; list every line that breaks one.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask tidy\n  cargo xtask tidy --rule columns,lines\n  cargo xtask tidy --graph"
)]
pub struct Tidy {
    /// Check these rules alone; all of them unless given.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "RULE,…")]
    rule: Vec<Rule>,
    /// Check nothing; print for every crate which file imports from which, and all circles of imports.
    #[arg(long)]
    graph: bool,
}

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rule {
    /// At most 600 lines in a Rust file.
    Lines,
    /// At most 8500 lines in the program, `cli/src`.
    Program,
    /// At most 120 columns in a line.
    Columns,
    /// Docs on every module.
    ModuleDocs,
    /// No `unwrap` outside tests.
    Unwraps,
    /// No work announced in comments.
    Unfinished,
    /// Versions of dependencies from the workspace.
    Versions,
    /// No tests where the manifest builds none.
    UnbuiltTests,
    /// No circle of imports between more than three files.
    Circles,
    /// No library that prints.
    Prints,
    /// No library that names an option of a command line.
    Options,
    /// Shapes in the docs of public functions on tensors.
    Shapes,
    /// Transfers between host and device only through `tessera_backend`.
    Transfers,
    /// Random streams only from the registry of `tessera_backend`.
    Streams,
}

impl Rule {
    /// Where it is broken.
    fn broken(self, files: &[File], rust: &[RustFile<'_>]) -> Vec<(PathBuf, Broken)> {
        let in_files =
            |rule: fn(&File) -> Vec<Broken>| in_each(files, |file| file.name.clone(), rule);
        let in_rust = |rule: fn(&RustFile<'_>) -> Vec<Broken>| {
            in_each(rust, |file| file.name.to_owned(), rule)
        };
        match self {
            Self::Lines => in_rust(size::lines),
            Self::Program => size::program(rust),
            Self::Columns => in_files(size::columns),
            Self::ModuleDocs => in_rust(habits::module_docs),
            Self::Unwraps => in_rust(habits::unwraps),
            Self::Unfinished => in_rust(habits::unfinished),
            Self::Versions => in_files(manifest::versions),
            Self::UnbuiltTests => manifest::unbuilt_tests(files, rust),
            Self::Circles => imports::circles(rust),
            Self::Prints => in_rust(boundary::prints),
            Self::Options => in_rust(boundary::options),
            Self::Shapes => in_rust(shapes::documented),
            Self::Transfers => in_rust(habits::transfers),
            Self::Streams => in_rust(habits::streams),
        }
    }
}

/// Where a rule on single files is broken.
fn in_each<F>(
    files: &[F],
    name: impl Fn(&F) -> PathBuf,
    rule: impl Fn(&F) -> Vec<Broken>,
) -> Vec<(PathBuf, Broken)> {
    let of = |file| rule(file).into_iter().map(|broken| (name(file), broken));
    files.iter().flat_map(of).collect()
}

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
        match self.rule[..] {
            [] => check(),
            ref rules => check_these(rules),
        }
    }
}

/// Checks the workspace.
///
/// # Errors
/// If a rule is broken; the message lists every place.
pub fn check() -> Result<()> {
    check_these(Rule::value_variants())
}

fn check_these(rules: &[Rule]) -> Result<()> {
    let files = members::files(workspace::root())?;
    let broken = broken(&files, rules);
    if !broken.is_empty() {
        bail!("{} broken rules\n{}", broken.len(), broken.join("\n"));
    }
    eprintln!("tidy: {} files checked", files.len());
    Ok(())
}

fn broken(files: &[File], rules: &[Rule]) -> Vec<String> {
    let rust = members::rust(files);
    let mut found: Vec<_> = rules
        .iter()
        .flat_map(|rule| rule.broken(files, &rust))
        .collect();
    found.sort_by(|a, b| (&a.0, a.1.line).cmp(&(&b.0, b.1.line)));
    found
        .iter()
        .map(|(file, Broken { line, rule })| format!("{}:{line}: {rule}", file.display()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::members::testing::files;
    use super::{Rule, ValueEnum, broken};

    /// Files that break one rule and no other.
    fn breaking(rule: Rule) -> Vec<(&'static str, String)> {
        let lib = |text: &str| vec![("moe/src/lib.rs", format!("//! Docs.\n{text}\n"))];
        match rule {
            Rule::Lines => lib(&"\n".repeat(600)),
            Rule::Program => {
                let names = [
                    "cli/src/a.rs",
                    "cli/src/b.rs",
                    "cli/src/c.rs",
                    "cli/src/d.rs",
                    "cli/src/e.rs",
                    "cli/src/f.rs",
                    "cli/src/g.rs",
                    "cli/src/h.rs",
                    "cli/src/i.rs",
                    "cli/src/j.rs",
                    "cli/src/k.rs",
                    "cli/src/l.rs",
                    "cli/src/m.rs",
                    "cli/src/n.rs",
                    "cli/src/o.rs",
                ];
                let text = format!("//! Docs.\n{}", "\n".repeat(570));
                names.map(|name| (name, text.clone())).into()
            }
            Rule::Columns => vec![("docs/a.md", "x".repeat(121))],
            Rule::ModuleDocs => vec![("moe/src/lib.rs", "fn f() {}\n".into())],
            Rule::Unwraps => lib("fn f(x: Option<u8>) -> u8 { x.unwrap() }"),
            Rule::Unfinished => lib(concat!("// TO", "DO: more")),
            Rule::Versions => vec![("moe/Cargo.toml", "[dependencies]\na = \"1\"\n".into())],
            Rule::UnbuiltTests => {
                let mut files = lib("#[cfg(test)]\nmod tests { #[test] fn one() {} }");
                files.push(("moe/Cargo.toml", "[lib]\ntest = false\n".into()));
                files
            }
            Rule::Circles => {
                let file = |own: &str, next: &str| {
                    format!("//! Docs.\nuse crate::{next}::of_{next};\npub fn of_{own}() {{}}\n")
                };
                let mut files = lib("");
                files.extend([
                    ("moe/src/a.rs", file("a", "b")),
                    ("moe/src/b.rs", file("b", "c")),
                    ("moe/src/c.rs", file("c", "d")),
                    ("moe/src/d.rs", file("d", "a")),
                ]);
                files
            }
            Rule::Prints => lib("fn f() { println!(); }"),
            Rule::Options => lib("const X: &str = \"give another --seed\";"),
            Rule::Shapes => lib("/// Adds one.\npub fn f(x: Tensor<1>) -> Tensor<1> { x + 1 }"),
            Rule::Transfers => lib("fn f(x: Tensor<1>) { x.into_data(); }"),
            Rule::Streams => lib("fn f() { Rng::new(1, 2); }"),
        }
    }

    #[test]
    fn every_rule_has_a_name_and_is_broken_alone() {
        for &rule in Rule::value_variants() {
            let made = breaking(rule);
            let made: Vec<_> = made.iter().map(|(name, text)| (*name, &**text)).collect();
            let made = files(&made);
            let value = rule.to_possible_value().unwrap();
            let named = Rule::from_str(value.get_name(), false).unwrap();
            let found = broken(&made, &[named]);
            assert_eq!(found.len(), 1, "{rule:?}: {found:?}");
            assert_eq!(found, broken(&made, Rule::value_variants()), "{rule:?}");
            assert!(value.get_help().is_some(), "{rule:?}");
        }
    }

    #[test]
    fn a_tidy_workspace_breaks_no_rule() {
        let source =
            "//! Docs.\n\n/// Adds one to `[N]`.\npub fn f(x: Tensor<1>) -> Tensor<1> { x + 1 }\n";
        let made = files(&[
            ("moe/Cargo.toml", "[dependencies]\na.workspace = true\n"),
            ("moe/src/lib.rs", source),
        ]);
        let found = broken(&made, Rule::value_variants());
        assert!(found.is_empty(), "{found:?}");
    }
}
