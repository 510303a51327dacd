//! What only a program may do: print, and know its own options.

use super::broken::Broken;
use super::members::{Role, RustFile};
use super::source::Comment;

/// Macros that print.
const MACROS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

/// Streams of the process.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// An option of cargo, by which a user of a library selects its features.
const OF_CARGO: &str = "--features";

/// Refuses a library that prints.
pub fn prints(file: &RustFile<'_>) -> Vec<Broken> {
    if file.role != Role::Library {
        return Vec::new();
    }
    let macros = MACROS.iter().map(|name| [*name, "!"]);
    let streams = STREAMS.iter().map(|name| [*name, "("]);
    let mut broken = Vec::new();
    for call in macros.chain(streams) {
        let rule = format!(
            "{}{} in a library: only the programs print",
            call[0], call[1]
        );
        let lines = file.source.lines_with(&call).into_iter();
        broken.extend(lines.map(|line| Broken::new(line, rule.clone())));
    }
    broken
}

/// Refuses a library whose messages or docs name an option of a command line.
pub fn options(file: &RustFile<'_>) -> Vec<Broken> {
    if file.role != Role::Library {
        return Vec::new();
    }
    let docs = file
        .source
        .comments
        .iter()
        .filter(|(kind, _)| *kind != Comment::Plain);
    let texts = file
        .source
        .strings
        .iter()
        .chain(docs.map(|(_, piece)| piece));
    let mut broken = Vec::new();
    for piece in texts.filter(|piece| !piece.in_tests) {
        for option in named(piece.text).filter(|option| *option != OF_CARGO) {
            let rule = format!(
                "{option} in a library: only the programs know options of the command line"
            );
            broken.push(Broken::new(piece.line, rule));
        }
    }
    broken
}

/// The options in a text: `--` and a word.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("--").filter_map(|(at, _)| {
        let in_a_word = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-');
        let name = &text[at + 2..];
        let end = name
            .find(|c: char| !c.is_ascii_lowercase() && c != '-')
            .unwrap_or(name.len());
        let option = name.starts_with(|c: char| c.is_ascii_lowercase()) && !in_a_word;
        option.then(|| &text[at..at + 2 + end])
    })
}

#[cfg(test)]
mod tests {
    use super::super::members::{rust, testing::files};
    use super::*;

    fn broken(rule: fn(&RustFile<'_>) -> Vec<Broken>, name: &str, text: &str) -> Vec<usize> {
        let mut lines: Vec<_> = rule(&rust(&files(&[(name, text)]))[0])
            .iter()
            .map(|broken| broken.line)
            .collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn a_library_does_not_print() {
        let text = "fn f() {\n println!(\"x\");\n std::io::stdout().lock();\n dbg!(x);\n // eprintln!\n \
            write!(f, \"x\");\n}\n\
                    #[cfg(test)]\nfn g() { println!(\"x\") }\n";
        assert_eq!(broken(prints, "moe/src/a.rs", text), [2, 3, 4]);
        for name in [
            "cli/src/a.rs",
            "xtask/src/a.rs",
            "moe/tests/it/a.rs",
            "moe/examples/a.rs",
            "moe/build.rs",
        ] {
            assert!(broken(prints, name, text).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_library_names_no_option() {
        let text = "//! `--device`\n// --plain\nfn f() {\n \"give more --max-vram, or\"\n \"a -- b, |---|---|, x--y, \
            build with --features x\"\n}\n";
        assert_eq!(broken(options, "moe/src/a.rs", text), [1, 4]);
        assert!(broken(options, "cli/src/a.rs", text).is_empty());
        let found: Vec<_> = named("(--one, --two-three=4 --5").collect();
        assert_eq!(found, ["--one", "--two-three"]);
    }
}
