//! The length of files and of the program, and the width of lines.

use super::broken::Broken;
use super::members::{File, RustFile};
use std::path::{Path, PathBuf};

/// A reader can keep so many lines in mind.
const MOST_LINES: usize = 600;

/// Lines of the program: options, printing, progress, Ctrl-C and ranks need no more. What does is a library's.
const MOST_OF_PROGRAM: usize = 8500;

/// Columns of a line that two windows side by side can show.
const MOST_COLUMNS: usize = 120;

/// Refuses a Rust file that is too long.
pub fn lines(file: &RustFile<'_>) -> Vec<Broken> {
    let lines = file.text.lines().count();
    let broken = || {
        Broken::new(
            lines,
            format!("the file has {lines} lines, at most {MOST_LINES} are allowed"),
        )
    };
    (lines > MOST_LINES).then(broken).into_iter().collect()
}

/// Refuses a program that is longer than what only a program can do.
pub fn program(rust: &[RustFile<'_>]) -> Vec<(PathBuf, Broken)> {
    let sources = Path::new("cli/src");
    let own = rust.iter().filter(|file| file.name.starts_with(sources));
    let lines: usize = own.map(|file| file.text.lines().count()).sum();
    let broken = || {
        let rule = format!("the program has {lines} lines, at most {MOST_OF_PROGRAM} are allowed");
        (sources.to_owned(), Broken::new(lines, rule))
    };
    (lines > MOST_OF_PROGRAM).then(broken).into_iter().collect()
}

/// Refuses lines that are too wide, except rows of tables, addresses, and code blocks of Markdown.
pub fn columns(file: &File) -> Vec<Broken> {
    let markdown = file.name.extension().is_some_and(|end| end == "md");
    let mut in_block = false;
    let mut broken = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        in_block ^= markdown && line.trim_start().starts_with("```");
        let columns = width(line, markdown);
        if columns > MOST_COLUMNS && !in_block && !is_table(line) {
            let rule =
                format!("the line has {columns} columns, at most {MOST_COLUMNS} are allowed");
            broken.push(Broken::new(index + 1, rule));
        }
    }
    broken
}

/// The columns that count: nothing of a line that cannot be wrapped, such as an address, and not the targets of links.
fn width(line: &str, markdown: bool) -> usize {
    let raw_string = ["r\"", "r#\""].iter().any(|open| line.contains(open));
    if line.contains("://") || !markdown && raw_string || markdown && is_code(line) {
        return 0;
    }
    let mut columns = line.chars().count();
    let links = if markdown { line } else { "" };
    for link in links.split("](").skip(1) {
        columns -= link.split(')').next().unwrap_or_default().chars().count();
    }
    columns
}

/// Whether a line of Markdown has code, and spaces only inside of it.
fn is_code(line: &str) -> bool {
    let outside = line.split('`').step_by(2);
    line.contains('`') && !outside.into_iter().any(|text| text.trim().contains(' '))
}

/// Whether a line, or the comment in it, is a row of a table.
fn is_table(line: &str) -> bool {
    line.trim_start()
        .trim_start_matches(['/', '!'])
        .trim_start()
        .starts_with('|')
}

#[cfg(test)]
mod tests {
    use super::super::members::{rust, testing::files};
    use super::*;

    fn wide(name: &str, text: &str) -> Vec<usize> {
        columns(&files(&[(name, text)])[0])
            .iter()
            .map(|broken| broken.line)
            .collect()
    }

    #[test]
    fn a_file_of_601_lines_is_refused() {
        for (lines, broken) in [(MOST_LINES, vec![]), (MOST_LINES + 1, vec![601])] {
            let text = "\n".repeat(lines);
            let files = files(&[("a/src/b.rs", &text)]);
            let found: Vec<_> = self::lines(&rust(&files)[0])
                .iter()
                .map(|broken| broken.line)
                .collect();
            assert_eq!(found, broken);
        }
    }

    #[test]
    fn a_line_of_121_columns_is_refused() {
        let (fits, wider) = ("é".repeat(120), "é".repeat(121));
        for name in ["a.rs", "a.md", "a.toml"] {
            assert_eq!(wide(name, &format!("{fits}\n{wider}\n")), [2], "{name}");
        }
    }

    #[test]
    fn tables_addresses_and_blocks_may_be_wider() {
        let long = "x".repeat(121);
        assert!(wide("a.md", &format!("| {long} |\n```\n{long}\n```\n")).is_empty());
        assert_eq!(wide("a.md", &format!("```\n```\n{long}\n")), [3]);
        assert!(wide("a.rs", &format!("/// | {long} |\n// https://{long}\n")).is_empty());
        assert!(wide("a.md", &format!("[x]({long})\n`a {long}`:\n")).is_empty());
        assert!(wide("a.rs", &format!("let x = r#\"{long}\"#;\n")).is_empty());
        assert_eq!(wide("a.md", &format!("[x](y) {long}\n")), [1]);
    }
}
