//! `tessera man`.

use crate::output;
use anyhow::Result;
use clap::{Args, Command};
use clap_mangen::Man as Page;
use std::io::Write;
use std::path::PathBuf;

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
        // `tessera help X` says what the page of X does.
        let mut command = program.disable_help_subcommand(true);
        command.build();
        let Some(folder) = self.output else {
            return output::text(String::from_utf8_lossy(&render(&Page::new(command))?).trim_end());
        };
        output::folder(&folder, self.overwrite)?;
        let mut pages = Vec::new();
        collect(command, &mut pages);
        for page in &pages {
            let path = folder.join(page.get_filename());
            let text = render(page)?;
            tessera::checkpoint::write_atomically(&path, |file| file.write_all(&text))?;
        }
        output::text(format!("{} pages in {}", pages.len(), folder.display()))
    }
}

/// The page of a command, then those below it.
fn collect(command: Command, pages: &mut Vec<Page>) {
    pages.push(Page::new(command.clone()));
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        collect(below.clone(), pages);
    }
}

fn render(page: &Page) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render(&mut text)?;
    Ok(text)
}
