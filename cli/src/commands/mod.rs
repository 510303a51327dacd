//! One file per command.

pub mod attn;
pub mod bench;
pub mod calibrate;
pub mod classes;
pub mod completions;
pub mod convert;
pub mod doctor;
pub mod eval;
pub mod generate;
pub mod init;
pub mod inspect;
pub mod man;
pub mod reconstruct;
pub mod route;
pub mod tokenize;
pub mod train_ar;
pub mod train_dit;
pub mod train_judge;
pub mod train_vae;

use crate::args::{Cli, Command, TrainCommand};
use anyhow::Result;

/// Runs the command line.
///
/// # Errors
/// Whatever the command gives.
pub fn run(cli: Cli) -> Result<()> {
    let threads = cli.global.threads.unwrap_or_else(crate::ranks::threads);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    crate::interrupt::listen()?;
    if let Some(mib) = cli.global.max_vram {
        crate::memory::set_max_vram(mib);
    }
    // On a worker of the pool: from any other thread every operation would wait for one to wake up.
    rayon::scope(|_| dispatch(cli))
}

fn dispatch(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Train(TrainCommand::Vae(command)) => command.run(&cli.global),
        Command::Train(TrainCommand::Ar(command)) => command.run(&cli.global),
        Command::Train(TrainCommand::Dit(command)) => command.run(&cli.global),
        Command::Train(TrainCommand::Judge(command)) => command.run(&cli.global),
        Command::Generate(command) => command.run(&cli.global),
        Command::Eval(command) => command.run(&cli.global),
        Command::Reconstruct(command) => command.run(&cli.global),
        Command::Tokenize(command) => command.run(&cli.global),
        Command::Decode(command) => command.run(&cli.global),
        Command::Calibrate(command) => command.run(&cli.global),
        Command::Inspect(command) => command.run(&cli.global),
        Command::Convert(command) => command.run(&cli.global),
        Command::Route(command) => command.run(&cli.global),
        Command::Init(command) => command.run(&cli.global),
        Command::Classes(command) => command.run(&cli.global),
        Command::Bench(command) => command.run(&cli.global),
        Command::Attn(command) => command.run(&cli.global),
        Command::Doctor(command) => command.run(&cli.global),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }
}
