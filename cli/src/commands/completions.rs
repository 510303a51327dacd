//! `tessera completions`.

use crate::output;
use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;

/// Print what a shell needs to complete commands and options.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera completions bash > ~/.local/share/bash-completion/completions/tessera\n  \
    tessera completions zsh > ~/.zfunc/_tessera\n  \
    tessera completions fish > ~/.config/fish/completions/tessera.fish")]
pub struct Completions {
    /// The shell that the script is for.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    /// Prints the script for `program`.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn run(self, mut program: Command) -> Result<()> {
        // Into memory first: the generator panics when its writer fails, as in `tessera completions bash | head`.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "tessera", &mut script);
        output::text(String::from_utf8_lossy(&script).trim_end())
    }
}
