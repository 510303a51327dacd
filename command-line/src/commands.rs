//! A program's commands and their options, for those who check what help says of them.

use clap::{Arg, Command};
use std::any::TypeId;

/// Every command of `program` that does something, with the words that call it, as it is when it runs.
pub fn leaves(mut program: Command) -> Vec<(Vec<String>, Command)> {
    fn below(path: Vec<String>, command: &Command) -> Vec<(Vec<String>, Command)> {
        let commands = command
            .get_subcommands()
            .filter(|one| one.get_name() != "help");
        let below: Vec<_> = commands
            .flat_map(|one| below([&path[..], &[one.get_name().to_owned()]].concat(), one))
            .collect();
        match below.is_empty() {
            true => vec![(path, command.clone())],
            false => below,
        }
    }
    program.build();
    below(vec![program.get_name().to_owned()], &program)
}

/// The options of a command that take values, except hidden ones.
pub fn valued(command: &Command) -> impl Iterator<Item = &Arg> {
    let options = command.get_opts().filter(|arg| !arg.is_hide_set());
    options.filter(|arg| arg.get_action().takes_values())
}

/// Whether an option takes a number.
pub fn is_number(arg: &Arg) -> bool {
    let types = [
        TypeId::of::<usize>(),
        TypeId::of::<u64>(),
        TypeId::of::<u32>(),
        TypeId::of::<u16>(),
        TypeId::of::<u8>(),
        TypeId::of::<f32>(),
        TypeId::of::<f64>(),
    ];
    types
        .iter()
        .any(|&of| arg.get_value_parser().type_id() == of)
}

/// The commands of a line of a shell that are `program` with arguments, in words.
pub fn calls(program: &str, line: &str) -> Vec<Vec<String>> {
    let (mut words, mut quoted) = (Vec::new(), false);
    let mut word = String::new();
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    let parts = words.split(|word| ["&&", "|", ">"].contains(&&**word));
    let begin = |part: &[String]| part.iter().position(|word| word == program);
    let calls = parts.filter_map(|part| begin(part).map(|at| part[at..].to_vec()));
    calls.filter(|call| call.len() > 1).collect()
}
