//! Manual pages, one per command.

use clap::Command;
use clap_mangen::Man;
use std::io;

/// A page of the manual.
#[derive(Debug, Clone)]
pub struct ManualPage {
    /// Its file, such as `program-command.1`.
    pub file: String,
    /// Its text, as troff.
    pub text: Vec<u8>,
}

/// The page of `program`, then those of the commands below it, except hidden ones.
///
/// # Errors
/// When a page cannot be rendered.
pub fn manual_pages(program: Command) -> io::Result<Vec<ManualPage>> {
    // `program help X` says what the page of X does.
    let mut command = program.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages)?;
    Ok(pages)
}

fn collect(command: &Command, pages: &mut Vec<ManualPage>) -> io::Result<()> {
    let page = Man::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text)?;
    pages.push(ManualPage {
        file: page.get_filename(),
        text,
    });
    let shown = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set());
    shown
        .into_iter()
        .try_for_each(|below| collect(below, pages))
}
