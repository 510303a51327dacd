//! `tessera bench`: how fast this machine is, and where the time goes.

mod generate;
mod ops;

pub use ops::Line;

use crate::args::Global;
use anyhow::Result;
use clap::Subcommand;

/// Measure this machine: whole pictures by part, or the operations they are made of.
#[derive(Debug, Clone, Subcommand)]
pub enum Bench {
    Generate(Box<generate::Generate>),
    Ops(ops::Ops),
}

impl Bench {
    /// Measures and prints.
    ///
    /// # Errors
    /// A device that does not open, an unknown name, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        match self {
            Self::Generate(command) => command.run(global),
            Self::Ops(command) => command.run(global),
        }
    }
}
