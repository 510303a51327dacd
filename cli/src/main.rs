//! The program `tessera`: images to discrete tokens to new images.
#![deny(unsafe_code)]
#![recursion_limit = "256"]

mod args;
mod bundle;
mod commands;
mod data;
mod dit;
mod generator;
mod heat;
mod hub;
mod interrupt;
mod labels;
mod latents;
mod memory;
mod names;
mod output;
mod pictures;
mod plot;
mod progress;
mod ranks;
mod sampling;
mod tokenizer;
mod weights;

use clap::Parser;
use std::process::ExitCode;

// Page faults of freshly mapped buffers cost more than the arithmetic on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match args::Cli::try_parse() {
        Ok(cli) => ranks::run(cli, commands::run),
        Err(error) => {
            // Where all ranks are told the same, one of them passes it on.
            if ranks::launched_rank() == 0 {
                let _ = error.print();
            }
            ExitCode::from(error.exit_code() as u8)
        }
    }
}
