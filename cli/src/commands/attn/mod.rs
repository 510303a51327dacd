//! `tessera attn`: attention divided between ranks.

mod bench;
mod plan;
mod setting;
mod simulate;

use crate::args::Global;
use anyhow::Result;
use clap::Subcommand;

/// Divide attention between ranks: which way, on what grid, and what it costs.
#[derive(Debug, Clone, Subcommand)]
pub enum Attn {
    Bench(Box<bench::Bench>),
    Plan(Box<plan::Plan>),
    Simulate(Box<simulate::Simulate>),
}

impl Attn {
    /// Computes and prints.
    ///
    /// # Errors
    /// Heads or ranks that do not go together, a file that cannot be written.
    pub fn run(self, global: &Global) -> Result<()> {
        match self {
            Self::Bench(command) => command.run(global, crate::ranks::world()),
            Self::Plan(command) => command.run(),
            Self::Simulate(command) => command.run(global),
        }
    }
}
