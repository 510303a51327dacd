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
mod sampling;
mod tokenizer;
mod weights;

use clap::Parser;
use std::process::ExitCode;

// Page faults of freshly mapped buffers cost more than the arithmetic on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            match interrupt::requested() {
                true => ExitCode::from(130),
                false => ExitCode::FAILURE,
            }
        }
    }
}
