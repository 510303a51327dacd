//! `cargo xtask`: pipelines that run the commands of `tessera` in sequence, and the checks and artifacts of this
//! workspace. It links no model, so it compiles in seconds.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod data;
mod demo;
mod dist;
mod docs;
mod fuzz;
mod install;
mod recipe;
mod report;
mod step;
mod study;
mod synthetic;
mod tidy;
#[cfg(unix)]
mod torture;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use xshell::Shell;

/// Pipelines over the commands of tessera, and the checks and artifacts of its workspace.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "Examples:\n  \
        cargo xtask ci                           every check that a change must pass\n  \
        cargo xtask tidy --graph                 the imports between the files of every crate\n  \
        cargo xtask docs                         docs/commands.md, after a change of the command line\n  \
        cargo xtask fuzz --lists 20000           random arguments for the program\n  \
        cargo xtask demo --quick                 data, training, pictures and a report in minutes\n  \
        cargo xtask study expert-race --quick    the comparisons of a paper in minutes\n  \
        cargo xtask bench --peer attention       attention in Tessera and PyTorch\n  \
        cargo xtask dist                         the artifacts of a release\n  \
        cargo xtask torture --quick              kills, full disks, power cuts and damaged files in a minute"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    #[command(subcommand)]
    Study(study::Study),
    Bench(bench::Bench),
    Ci(ci::Ci),
    Tidy(tidy::Tidy),
    Docs(docs::Docs),
    Fuzz(fuzz::Fuzz),
    Dist(dist::Dist),
    #[cfg(unix)]
    Torture(torture::Torture),
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
        Command::Study(study::Study::Sampling(study)) => study.run(&sh),
        Command::Bench(command) => command.run(&sh),
        Command::Ci(ci) => ci.run(&sh),
        Command::Tidy(tidy) => tidy.run(),
        Command::Docs(docs) => docs.run(&sh),
        Command::Fuzz(fuzz) => fuzz.run(&sh),
        Command::Dist(dist) => dist.run(&sh),
        #[cfg(unix)]
        Command::Torture(torture) => torture.run(&sh),
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
