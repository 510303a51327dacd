//! `cargo xtask docs`: the pages that the program writes itself.

use crate::workspace;
use anyhow::Result;
use clap::Args;
use xshell::{Shell, cmd};

/// Write docs/commands.md from the help of the program.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo xtask docs")]
pub struct Docs {}

impl Docs {
    /// Builds the program and writes what it says.
    ///
    /// # Errors
    /// If the program does not compile, or the page cannot be written.
    pub fn run(self, sh: &Shell) -> Result<()> {
        eprintln!("building tessera");
        let program = workspace::build_tessera(sh)?;
        let page = cmd!(sh, "{program} reference").quiet().read()?;
        let path = workspace::root().join("docs").join("commands.md");
        workspace::write(&path, format!("{page}\n").as_bytes())?;
        println!("{}", path.display());
        Ok(())
    }
}
