//! `tessera reference`: docs/commands.md, which `cargo xtask docs` writes.

use crate::output;
use anyhow::Result;
use clap::{Args, Command};

/// Print the help of all commands as Markdown.
#[derive(Debug, Clone, Args)]
#[command(
    hide = true,
    after_help = "Example:\n  tessera reference > commands.md"
)]
pub struct Reference {}

impl Reference {
    /// Prints the page of `program`.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn run(self, program: Command) -> Result<()> {
        let preface = "`cargo xtask docs` writes this page from the program's own help.";
        output::text(tessera_command_line::markdown(program, preface).trim_end())
    }
}
