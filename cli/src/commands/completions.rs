//! `tessera completions`.

use crate::output;
use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;

/// Print what a shell needs to complete commands and options.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    cd ~/.local/share/bash-completion/completions && tessera completions bash > tessera\n  \
    cd ~/.zfunc && tessera completions zsh > _tessera\n  \
    cd ~/.config/fish/completions && tessera completions fish > tessera.fish\n\n\
    These folders are where the shells look; make them with mkdir -p where they are not there.")]
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
    pub fn run(self, program: Command) -> Result<()> {
        output::text(script(self.shell, &program).trim_end())
    }
}

/// In memory, as the generator panics when its writer fails, as in `tessera completions bash | head`. It knows of no
/// hidden commands, so they are left out before.
fn script(shell: Shell, program: &Command) -> String {
    let shown = program
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let mut shown = Command::new("tessera")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .args(program.get_arguments())
        .subcommands(shown);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown, "tessera", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Cli;
    use clap::{CommandFactory, ValueEnum};

    #[test]
    fn what_help_lists_is_completed_and_nothing_else() {
        for &shell in Shell::value_variants() {
            let script = script(shell, &Cli::command());
            for word in ["generate", "simulate", "unconditional", "max-vram"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
            assert!(!script.contains("reference"), "{shell}");
        }
    }
}
