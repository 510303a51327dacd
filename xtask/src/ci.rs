//! `cargo xtask ci`: every check that a change must pass, in the release profile, so that dependencies compile once.

use crate::{tidy, workspace};
use anyhow::{Result, bail};
use clap::Args;
use std::time::Instant;
use xshell::Shell;

/// The checks of cargo: names and arguments.
const CHECKS: [(&str, &str); 5] = [
    ("format", "fmt --all --check"),
    (
        "clippy",
        "clippy --workspace --all-targets --release -- -D warnings",
    ),
    ("test", "test --workspace --release"),
    ("doc", "doc --workspace --no-deps --release"),
    ("bench", "bench --workspace --no-run"),
];

/// Run every check that a change must pass, and print a summary.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo xtask ci")]
pub struct Ci {}

impl Ci {
    /// Runs all checks, also after a failure, and prints the summary.
    ///
    /// # Errors
    /// If a check fails.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let _root = sh.push_dir(workspace::root());
        let _warnings = sh.push_env("RUSTDOCFLAGS", "-D warnings");
        let cargo = workspace::cargo();
        let mut results = vec![timed("tidy", || {
            tidy::check().map_err(|error| eprintln!("{error}")).is_ok()
        })];
        for (name, arguments) in CHECKS {
            let command = sh.cmd(&cargo).args(arguments.split(' '));
            results.push(timed(name, || {
                command.run().map_err(|error| eprintln!("{error}")).is_ok()
            }));
        }
        print!("{}", summary(&results));
        match results.iter().all(|result| result.passed) {
            true => Ok(()),
            false => bail!("some checks failed"),
        }
    }
}

struct Checked {
    name: &'static str,
    passed: bool,
    seconds: f64,
}

fn timed(name: &'static str, check: impl FnOnce() -> bool) -> Checked {
    let started = Instant::now();
    let passed = check();
    Checked {
        name,
        passed,
        seconds: started.elapsed().as_secs_f64(),
    }
}

fn summary(results: &[Checked]) -> String {
    let line = |Checked {
                    name,
                    passed,
                    seconds,
                }: &Checked| {
        let verdict = if *passed { "ok" } else { "FAILED" };
        format!("{name:<8}{verdict:<8}{seconds:>8.1} s\n")
    };
    results.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_failed() {
        let results = [
            timed("tidy", || true),
            Checked {
                name: "test",
                passed: false,
                seconds: 61.25,
            },
        ];
        let text = summary(&results);
        assert!(text.starts_with("tidy    ok "), "{text}");
        assert!(text.ends_with("test    FAILED      61.2 s\n"), "{text}");
    }
}
