//! One file per command.

pub mod train_ar;
pub mod train_vae;

use crate::args::{Cli, Command, TrainCommand};
use anyhow::Result;

/// Runs the command line.
///
/// # Errors
/// Whatever the command gives.
pub fn run(cli: Cli) -> Result<()> {
    let threads = cli.global.threads.unwrap_or(0);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    crate::interrupt::listen()?;
    match cli.command {
        Command::Train(TrainCommand::Vae(command)) => command.run(&cli.global),
        Command::Train(TrainCommand::Ar(command)) => command.run(&cli.global),
    }
}
