//! Pipelines and chores: `cargo xtask demo | study | bench | ci | tidy | dist`.
//!
//! Nothing here computes: a pipeline runs the commands of the program `tessera` one after the other, a chore those of
//! cargo. It links no model, so that it compiles in seconds.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod data;
mod demo;
mod dist;
mod docs;
mod install;
mod recipe;
mod report;
mod step;
mod study;
mod synthetic;
mod tidy;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use xshell::Shell;

/// Pipelines and chores of Tessera.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From Fashion-MNIST to pictures and a report: VAE, calibration, generator, judge, measurements.
    Demo(demo::Demo),
    #[command(subcommand)]
    Study(study::Study),
    Bench(bench::Bench),
    /// Format, lints, tidy, tests, docs and benches, with one summary.
    Ci,
    Tidy(tidy::Tidy),
    Docs(docs::Docs),
    Dist(dist::Dist),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let sh = Shell::new()?;
    match command {
        Command::Demo(demo) => demo.run(&sh),
        Command::Study(study::Study::ExpertRace(study)) => study.run(&sh),
        Command::Bench(command) => command.run(&sh),
        Command::Ci => ci::run(&sh),
        Command::Tidy(tidy) => tidy.run(),
        Command::Docs(docs) => docs.run(&sh),
        Command::Dist(dist) => dist.run(&sh),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
