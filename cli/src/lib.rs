//! All of the program `tessera`: flags, printing, progress, Ctrl-C and the launch of ranks. All else is the front
//! library's. A library itself, as cargo compiles those beside what they depend on, and programs after it.
#![deny(unsafe_code)]
// These panic where stderr or stdout has gone away, and pass on whatever a file holds: `output` prints.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![recursion_limit = "256"]

mod allocator;
mod args;
mod commands;
pub mod cut;
mod data;
mod draw;
mod hint;
mod interrupt;
pub mod names;
mod output;
mod pictures;
mod progress;
mod ranks;
mod sampling;

use commands::Cli;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    allocator::keep_freed_memory();
    match Cli::parsed(std::env::args_os()) {
        Ok(cli) => {
            let launch = ranks::Launch {
                check: cli.global.check,
                on_many: cli.command.on_ranks(),
            };
            ranks::run(launch, |rank| commands::run(cli.on(rank)))
        }
        Err(error) => ranks::wrong_usage(&error),
    }
}
