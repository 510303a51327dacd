//! `cargo xtask fuzz`: random argument lists, more than the suite tries.

use crate::workspace;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use xshell::{Shell, cmd};

/// Run the program with random arguments, and print how often each command ended with each exit code.
///
/// It fails where an answer is a panic, a signal, an exit code that is not documented, or none in time; each such list
/// is printed when it is found, with its number, which --first repeats. A line after every thousand lists says how far
/// it is: interrupted, it goes on with --first.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fuzz --lists 20000\n  cargo xtask fuzz --first 4711 --lists 1\n  \
        cargo xtask fuzz --first 8000 --lists 12000 --jobs 1"
)]
pub struct Fuzz {
    /// How many.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    lists: u64,
    /// The number of the first.
    #[arg(long, default_value_t = 0, value_name = "N")]
    first: u64,
    /// Runs at once; twice the processor's cores unless given, as some wait until they are stopped.
    #[arg(long, value_name = "N")]
    jobs: Option<u64>,
    /// The program to try; the workspace's unless given. Another one is not replaced by a build while lists are tried.
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
}

impl Fuzz {
    /// Tries them.
    ///
    /// # Errors
    /// Where the program does not compile, or an answer is a fault.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let program = self.program.map(std::path::absolute).transpose()?;
        let _root = sh.push_dir(workspace::root());
        let [lists, first] = [self.lists, self.first].map(|number| number.to_string());
        let test = cmd!(
            sh,
            "cargo test --release -p tessera-cli --test it fuzz -- --nocapture"
        );
        let mut test = test
            .env("TESSERA_FUZZ_LISTS", lists)
            .env("TESSERA_FUZZ_SEED", first);
        if let Some(jobs) = self.jobs {
            test = test.env("TESSERA_FUZZ_JOBS", jobs.to_string());
        }
        if let Some(program) = program {
            test = test.env("TESSERA_FUZZ_PROGRAM", program);
        }
        Ok(test.quiet().run()?)
    }
}
