//! `tessera man`.

use crate::output;
use anyhow::Result;
use clap::{Args, Command};
use std::io::Write;
use std::path::PathBuf;
use tessera::checkpoint::write_atomically;
use tessera_command_line::{ManualPage, manual_pages};

/// Print the manual page, or write those of all commands.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera man | man -l -\n  \
    tessera man -o ~/.local/share/man/man1 --overwrite")]
pub struct Man {
    /// Folder for tessera.1 and a page per command, such as tessera-generate.1; without it the first goes to stdout.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write into a folder that is not empty.
    #[arg(long, requires = "output")]
    overwrite: bool,
}

impl Man {
    /// Prints or writes the pages of `program`.
    ///
    /// # Errors
    /// An output folder that is in use, a file that cannot be written.
    pub fn run(self, program: Command) -> Result<()> {
        let pages = manual_pages(program)?;
        let Some(folder) = self.output else {
            let first = pages.first().map_or(&[][..], |page| &page.text);
            return output::text(String::from_utf8_lossy(first).trim_end());
        };
        output::folder(&folder, self.overwrite)?;
        for ManualPage { file, text } in &pages {
            write_atomically(&folder.join(file), |out| out.write_all(text))?;
        }
        output::text(format!("{} pages in {}", pages.len(), folder.display()))
    }
}
