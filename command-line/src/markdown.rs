//! The help of all commands of a program as one page of Markdown.

use clap::{Arg, Command};
use std::fmt::Write;

/// Columns of a line of text.
const WIDTH: usize = 120;

/// The help of `program` and of all its commands, except hidden ones. `preface` stands below the heading.
pub fn markdown(program: Command, preface: &str) -> String {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let commands = listed(&program);
    let mut text = format!("# Commands\n\n{preface}\n\n");
    for command in &commands {
        let name = name(command);
        let about = about(command);
        let first_sentence = about
            .split(". ")
            .next()
            .unwrap_or_default()
            .trim_end_matches('.');
        let item = format!("[{name}](#{}): {first_sentence}", name.replace(' ', "-"));
        text += &wrapped(&item, "- ", "  ");
    }
    for command in commands {
        section(&mut text, command);
    }
    text
}

/// A command and all below it, except hidden ones.
fn listed(command: &Command) -> Vec<&Command> {
    let below = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set());
    [command]
        .into_iter()
        .chain(below.flat_map(listed))
        .collect()
}

fn section(text: &mut String, command: &Command) {
    let _ = write!(text, "\n## {}\n\n", name(command));
    let about = about(command);
    let end = if about.ends_with('.') { "" } else { "." };
    *text += &wrapped(&(about + end), "", "");
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let _ = write!(text, "\n```\n{usage}\n```\n");
    // Options of every command are listed with the program.
    let is_program = command.get_name() == name(command);
    let arguments = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set());
    let own = arguments.filter(|argument| is_program || !argument.is_global_set());
    let own: Vec<_> = own
        .filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
        .collect();
    if !own.is_empty() {
        text.push('\n');
    }
    for argument in own {
        *text += &wrapped(&described(argument), "- ", "  ");
    }
    if let Some(examples) = command.get_after_help() {
        *text += &blocks(&examples.to_string());
    }
}

/// The command as a user types it.
fn name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or(command.get_name())
}

fn about(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    about
        .map(|about| escaped(&about.to_string()))
        .unwrap_or_default()
}

/// An argument, what it is for, its default and its values.
fn described(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help());
    let mut text = format!("`{}`", spelled(argument));
    if let Some(help) = help {
        let _ = write!(text, ": {}", escaped(&help.to_string()));
    }
    if !text.ends_with('.') {
        text.push('.');
    }
    if !argument.get_action().takes_values() {
        return text;
    }
    let defaults = argument
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.display()));
    let defaults: Vec<_> = defaults.collect();
    if !defaults.is_empty() && !argument.is_hide_default_value_set() {
        let _ = write!(text, " Default: {}.", defaults.join(", "));
    }
    let values = argument
        .get_possible_values()
        .into_iter()
        .filter(|value| !value.is_hide_set());
    let values: Vec<_> = values
        .map(|value| match value.get_help() {
            Some(help) => format!(
                "`{}` ({})",
                value.get_name(),
                escaped(help.to_string().trim_end_matches('.'))
            ),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    if !values.is_empty() && !argument.is_hide_possible_values_set() {
        let _ = write!(text, " Values: {}.", values.join(", "));
    }
    text
}

/// The names of an argument and those of its values, as help has them.
fn spelled(argument: &Arg) -> String {
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let flags: Vec<_> = short.into_iter().chain(long).collect();
    if flags.is_empty() {
        return argument.to_string();
    }
    let names = argument.get_value_names().unwrap_or_default();
    let values = match argument.get_action().takes_values() {
        true => names.iter().map(|name| format!(" <{name}>")).collect(),
        false => String::new(),
    };
    flags.join(", ") + &values
}

/// Text with indented lines as code.
fn blocks(text: &str) -> String {
    let mut blocks = String::new();
    let mut in_code = false;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let code = line.strip_prefix("  ");
        match (in_code, code.is_some()) {
            (false, true) => blocks += "\n```\n",
            (true, false) => blocks += "```\n\n",
            (false, false) => blocks += "\n",
            (true, true) => {}
        }
        in_code = code.is_some();
        blocks += &match code {
            Some(code) => format!("{}\n", code.trim_start()),
            None => wrapped(&escaped(line), "", ""),
        };
    }
    if in_code {
        blocks += "```\n";
    }
    blocks
}

/// Text that Markdown shows as it is: outside of code, no character is markup.
fn escaped(text: &str) -> String {
    let parts = text
        .split('`')
        .enumerate()
        .map(|(index, part)| match index % 2 {
            0 => part
                .replace('<', "\\<")
                .replace('*', "\\*")
                .replace('[', "\\["),
            _ => part.to_owned(),
        });
    parts.collect::<Vec<_>>().join("`")
}

/// Text in lines that fit, the first after `first`, the others after `then`.
fn wrapped(text: &str, first: &str, then: &str) -> String {
    let mut lines = String::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let fits = line.chars().count() + 1 + word.chars().count() <= WIDTH;
        // A line that begins with one of these would be an item of a list, or a heading.
        let is_markup = matches!(word, "-" | "+" | "#");
        if is_empty {
            is_empty = false;
        } else if fits || is_markup {
            line.push(' ');
        } else {
            lines += &line;
            lines.push('\n');
            line = then.to_owned();
        }
        line += word;
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_lose_no_word() {
        let text = "word ".repeat(60);
        let found = wrapped(&text, "- ", "  ");
        assert!(found.lines().all(|line| line.len() <= WIDTH), "{found}");
        assert!(
            found.lines().skip(1).all(|line| line.starts_with("  word")),
            "{found}"
        );
        assert_eq!(found.matches("word").count(), 60);
    }

    #[test]
    fn markup_is_escaped_outside_code() {
        assert_eq!(escaped("a <b> `<c>` [d]*"), "a \\<b> `<c>` \\[d]\\*");
    }

    #[test]
    fn indented_lines_are_code() {
        assert_eq!(
            blocks("Examples:\n  tessera a\n  tessera b"),
            "\nExamples:\n\n```\ntessera a\ntessera b\n```\n"
        );
    }

    #[test]
    fn an_argument_has_its_names_its_default_and_its_values() {
        let argument = Arg::new("n")
            .short('n')
            .long("count")
            .value_name("N")
            .default_value("4")
            .help("How many");
        assert_eq!(
            described(&argument),
            "`-n, --count <N>`: How many. Default: `4`."
        );
        let argument = Arg::new("shell")
            .value_parser(["bash", "zsh"])
            .help("The shell.");
        assert!(described(&argument).ends_with("The shell. Values: `bash`, `zsh`."));
    }
}
