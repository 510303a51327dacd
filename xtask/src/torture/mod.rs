//! `cargo xtask torture`: kills, failing disks, power cuts, second writers and damaged files, on every command.

mod cases;
mod disk;
mod formats;
mod kill;
mod mutate;
mod pair;
mod power;
mod sandbox;
mod tally;
mod trace;
mod undisturbed;
mod whole;

use crate::workspace;
use anyhow::{Context, Result, bail};
use cases::Case;
use clap::{Args, ValueEnum};
use sandbox::Sandbox;
use std::path::PathBuf;
use tally::Row;
use undisturbed::Undisturbed;
use xshell::Shell;

/// What is done to the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// SIGKILL at every operation on files; the same command, or --resume, must end as if nothing had been.
    Kill,
    /// A full and a failing disk at every operation that writes.
    Disk,
    /// Two writers into one place at once.
    Pair,
    /// Power cuts after every operation, by a model of what a disk keeps.
    Power,
    /// Damaged files of every format.
    Mutate,
}

/// Kill, fill the disk, cut the power, write twice at once and damage files, for every command that writes.
///
/// Needs Linux and strace. Prints what was tried and what did not hold; fails if anything did not.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask torture --quick                          a part of everything, in a minute\n  \
    cargo xtask torture --only kill,power --command convert,train-vae\n  \
    cargo xtask torture --only mutate --mutations 100000 --json")]
pub struct Torture {
    /// What to do; everything unless given.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,…")]
    only: Vec<Kind>,
    /// To which commands, by the names in the table; to all unless given.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    command: Vec<String>,
    /// Damaged files in all.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    mutations: usize,
    /// Try every Nth operation.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// A few commands, a few points of each.
    #[arg(long)]
    quick: bool,
    /// Runs at once; the processor's cores unless given.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// The program to try, such as an older one; the workspace's, built now, unless given.
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Torture {
    /// Tries everything that was asked for.
    ///
    /// # Errors
    /// When something does not hold, and when the tools are not there.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let chosen = self.cases()?;
        sandbox::require_strace()?;
        let program = match &self.program {
            Some(program) => std::path::absolute(program)?,
            None => workspace::build_tessera(sh)?,
        };
        // Not in the system's folder for temporary files, which may be memory.
        let base = workspace::root().join(format!("target/torture-{}", std::process::id()));
        workspace::create_folder(&base)?;
        let sandbox = Sandbox::new(program, base.canonicalize()?);
        let rows = cases::prepare(&sandbox).and_then(|()| self.all(&sandbox, &chosen));
        std::fs::remove_dir_all(&base)
            .with_context(|| format!("cannot remove {}", base.display()))?;
        let rows = rows?;
        if self.json {
            let rows: Vec<_> = rows.iter().map(Row::json).collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
        }
        let broken: usize = rows.iter().map(|row| row.tally.broken.len()).sum();
        let tried: usize = rows.iter().map(|row| row.tally.tried).sum();
        match broken {
            0 => {
                if !self.json {
                    println!("{tried} tries, all held");
                }
                Ok(())
            }
            _ => bail!("{broken} of {tried} tries broke a promise"),
        }
    }

    fn cases(&self) -> Result<Vec<Case>> {
        let all = cases::cases();
        let mut names: Vec<_> = all.iter().map(|case| case.name).collect();
        if let Some(unknown) = self
            .command
            .iter()
            .find(|name| !names.contains(&name.as_str()))
        {
            names.sort_unstable();
            bail!(
                "no command {unknown} here, expected some of {}",
                names.join(", ")
            );
        }
        let chosen = |case: &Case| match self.command.is_empty() {
            true => case.quick || !self.quick,
            false => self.command.iter().any(|name| name == case.name),
        };
        Ok(all.into_iter().filter(chosen).collect())
    }

    fn does(&self, kind: Kind) -> bool {
        self.only.is_empty() || self.only.contains(&kind)
    }

    fn all(&self, sandbox: &Sandbox, chosen: &[Case]) -> Result<Vec<Row>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.unwrap_or(cores);
        let mut rows = Vec::new();
        let mut add = |row: Row| {
            if !self.json {
                println!("{}", row.text());
            }
            rows.push(row);
        };
        let on_commands = [Kind::Kill, Kind::Disk, Kind::Pair, Kind::Power];
        let on_commands = on_commands.into_iter().any(|kind| self.does(kind));
        for &case in chosen.iter().filter(|_| on_commands) {
            for replaces in [false, true] {
                let run = Undisturbed::of(sandbox, case, replaces)?;
                // A few points of every command are a sample.
                let every = match self.quick {
                    true => run.ops.len().div_ceil(6),
                    false => self.every as usize,
                };
                let row = |kind, tally| Row {
                    name: run.name(),
                    kind,
                    tally,
                };
                if self.does(Kind::Power) {
                    add(row("power", power::torture(&run, &run.root)));
                }
                if self.does(Kind::Kill) {
                    add(row("kill", kill::torture(sandbox, &run, every, jobs)?));
                }
                if self.does(Kind::Disk) {
                    add(row("disk", disk::torture(sandbox, &run, every, jobs)?));
                }
                if self.does(Kind::Pair) {
                    let tries = if self.quick { 2 } else { 10 };
                    add(row("pair", pair::torture(sandbox, &run, tries, jobs)?));
                }
            }
        }
        if self.does(Kind::Mutate) {
            let count = match self.quick {
                true => self.mutations.min(500),
                false => self.mutations,
            };
            mutate::torture(sandbox, count, jobs, |name, tally| {
                add(Row {
                    name: name.into(),
                    kind: "mutate",
                    tally,
                });
            })?;
        }
        Ok(rows)
    }
}
