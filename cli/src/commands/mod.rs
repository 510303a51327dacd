//! One file per command.

pub mod attn;
pub mod bench;
pub mod calibrate;
pub mod classes;
pub mod completions;
pub mod convert;
pub mod doctor;
pub mod eval;
pub mod generate;
pub mod init;
pub mod inspect;
pub mod man;
pub mod reconstruct;
pub mod reference;
pub mod route;
pub mod tokenize;
pub mod train_ar;
pub mod train_dit;
pub mod train_judge;
pub mod train_vae;
mod training;

use crate::args::Global;
use crate::output;
use crate::ranks::{OnRanks, Rank};
use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tessera_command_line::negative_numbers;

/// Image generation over discrete tokens: images to tokens to new images.
#[derive(Debug, Parser)]
#[command(
    name = "tessera",
    version,
    propagate_version = true,
    max_term_width = 110
)]
#[command(after_help = "Examples:\n  \
    tessera generate --class dress -n 8 --seed 1 -o out --grid\n  \
    tessera reconstruct -i photo.png -o restored --grid\n  \
    tessera train vae --data pictures/ --img-size 64 -o runs/vae")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Generate pictures of a class.
    Generate(Box<generate::Generate>),
    /// Judge a model: its pictures by a classifier, its reconstructions by PSNR and SSIM.
    Eval(Box<eval::Eval>),
    Reconstruct(Box<reconstruct::Reconstruct>),
    Tokenize(Box<tokenize::Tokenize>),
    Decode(Box<tokenize::Decode>),
    Calibrate(Box<calibrate::Calibrate>),
    Route(Box<route::Route>),
    Inspect(inspect::Inspect),
    Convert(Box<convert::Convert>),
    Init(init::Init),
    Classes(classes::Classes),
    #[command(subcommand)]
    Bench(bench::Bench),
    #[command(subcommand)]
    Attn(attn::Attn),
    Doctor(doctor::Doctor),
    /// Train a tokenizer or a generator on your own pictures.
    #[command(subcommand)]
    Train(TrainCommand),
    Completions(completions::Completions),
    Man(man::Man),
    Reference(reference::Reference),
}

/// What can be trained.
#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Train a KL-VAE: L1 reconstruction plus a small KL term.
    Vae(Box<train_vae::TrainVae>),
    /// Train a generator on the tokens of a VAE.
    Ar(Box<train_ar::TrainAr>),
    /// Train a diffusion transformer, dense or with racing experts.
    Dit(Box<train_dit::TrainDit>),
    /// Train the classifier that `eval` judges pictures with.
    Judge(Box<train_judge::TrainJudge>),
}

impl Cli {
    /// Reads the command line.
    ///
    /// # Errors
    /// What is wrong with it, or the help that it asks for.
    pub fn parsed<I, T>(args: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let matches = negative_numbers(Self::command()).try_get_matches_from(args)?;
        Self::from_arg_matches(&matches)
    }

    /// The command line for one rank: all but the first are quiet.
    pub fn on(mut self, rank: Rank) -> Self {
        self.global.quiet |= rank == Rank::Other;
        self
    }
}

impl Command {
    /// Whether more than one rank can run it: the others would do on every rank what one does.
    pub fn on_ranks(&self) -> OnRanks {
        match self {
            Self::Generate(_)
            | Self::Doctor(_)
            | Self::Attn(attn::Attn::Bench(_))
            | Self::Train(TrainCommand::Vae(_) | TrainCommand::Ar(_) | TrainCommand::Dit(_)) => {
                OnRanks::Many
            }
            _ => OnRanks::One,
        }
    }
}

/// How many threads to work with: no more than there are processors, on which more only wait for each other.
fn threads(given: Option<usize>, quiet: bool) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let variable = || std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok();
    let asked = [given.or_else(variable), Some(crate::ranks::threads())];
    let asked = asked.into_iter().flatten().find(|&count| count > 0);
    match asked {
        Some(asked) if asked > processors => {
            if !quiet {
                output::note(format_args!(
                    "note: {asked} threads, of which this machine runs {processors} at a time: working with \
                     {processors}"
                ));
            }
            processors
        }
        Some(asked) => asked,
        None => processors,
    }
}

/// Runs the command line.
///
/// # Errors
/// Whatever the command gives.
pub fn run(cli: Cli) -> Result<()> {
    let threads = threads(cli.global.threads, cli.global.quiet);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .with_context(|| format!("cannot start {threads} threads"))?;
    crate::interrupt::listen(cli.global.quiet, crate::ranks::launched())?;
    // On a worker of the pool: from any other thread every operation would wait for one to wake up.
    rayon::scope(|_| dispatch(cli))
}

fn dispatch(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Train(TrainCommand::Vae(command)) => command.run(&cli.global),
        Command::Train(TrainCommand::Ar(command)) => command.run(&cli.global),
        Command::Train(TrainCommand::Dit(command)) => command.run(&cli.global),
        Command::Train(TrainCommand::Judge(command)) => command.run(&cli.global),
        Command::Generate(command) => command.run(&cli.global),
        Command::Eval(command) => command.run(&cli.global),
        Command::Reconstruct(command) => command.run(&cli.global),
        Command::Tokenize(command) => command.run(&cli.global),
        Command::Decode(command) => command.run(&cli.global),
        Command::Calibrate(command) => command.run(&cli.global),
        Command::Inspect(command) => command.run(&cli.global),
        Command::Convert(command) => command.run(&cli.global),
        Command::Route(command) => command.run(&cli.global),
        Command::Init(command) => command.run(&cli.global),
        Command::Classes(command) => command.run(&cli.global),
        Command::Bench(command) => command.run(&cli.global),
        Command::Attn(command) => command.run(&cli.global),
        Command::Doctor(command) => command.run(&cli.global),
        Command::Completions(command) => command.run(Cli::command()),
        Command::Man(command) => command.run(Cli::command()),
        Command::Reference(command) => command.run(Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cli, negative_numbers};
    use clap::error::ErrorKind;
    use clap::{ArgAction, Command, CommandFactory};
    use tessera_command_line::{calls, is_number, leaves, valued};

    #[test]
    fn the_command_line_is_well_formed() {
        negative_numbers(Cli::command()).debug_assert();
    }

    /// Every command that does something, as it is when it runs.
    fn commands() -> Vec<(Vec<String>, Command)> {
        leaves(negative_numbers(Cli::command()))
    }

    #[test]
    fn every_number_is_answered_with_what_was_expected() {
        let bad = "-1 -1.5 nan inf 1e999 x  99999999999999999999999";
        let mut numbers = 0;
        for (path, command) in commands() {
            for arg in valued(&command).filter(|arg| is_number(arg)) {
                let option = format!("--{}", arg.get_long().expect("a long name"));
                for value in bad.split(' ') {
                    let line = path.iter().map(|word| &**word).chain([&*option, value]);
                    let said = match Cli::parsed(line) {
                        Err(error) if error.kind() == ErrorKind::ValueValidation => {
                            error.to_string()
                        }
                        // A range without an end.
                        _ if value.starts_with('9') => continue,
                        other => panic!("{path:?} {option} {value}: {other:?}"),
                    };
                    let first = said.lines().next().unwrap_or_default();
                    assert!(
                        first.contains("expected a") && first.contains(&option),
                        "{path:?} {option} {value}: {said}"
                    );
                }
                numbers += 1;
            }
        }
        assert!(numbers > 100, "{numbers}");
    }

    #[test]
    fn every_command_has_an_example_and_the_global_options_last() {
        for (path, command) in commands() {
            let call = path.join(" ");
            let examples = command.get_after_help().map(ToString::to_string);
            let examples = examples.unwrap_or_default();
            assert!(
                examples.contains("Example") && examples.contains(&call),
                "{call}: {examples:?}"
            );
            let help = command.clone().render_long_help().to_string();
            let (own, global) = help.split_once("Global options:").expect("a heading");
            for option in ["--device", "--threads", "--quiet"] {
                let stands = |text: &str| {
                    text.lines().any(|line| {
                        let mut words = line.split_whitespace().take(2);
                        line.trim_start().starts_with('-') && words.any(|word| word == option)
                    })
                };
                assert!(!stands(own) && stands(global), "{call} {option}: {help}");
            }
        }
    }

    #[test]
    fn every_example_is_taken_as_it_stands_and_none_is_in_the_way_of_another() {
        let mut commands = commands();
        commands.push((vec!["tessera".into()], Cli::command()));
        let mut taken = 0;
        for (path, command) in commands {
            let examples = command.get_after_help().map(ToString::to_string);
            let examples = examples.unwrap_or_default();
            let mut outputs = std::collections::BTreeSet::new();
            for call in examples.lines().flat_map(|line| calls("tessera", line)) {
                if let Err(error) = Cli::parsed(&call) {
                    panic!("{path:?}: {call:?}: {error}");
                }
                let output = call.iter().position(|word| word == "-o");
                if let Some(output) = output.and_then(|at| call.get(at + 1)) {
                    let first = outputs.insert(output.clone());
                    assert!(first, "{path:?}: two examples write to {output}");
                }
                taken += 1;
            }
        }
        assert!(taken > 60, "{taken}");
    }

    #[test]
    fn every_choice_and_number_says_what_it_is_unless_given() {
        let mut unsaid = Vec::new();
        for (path, command) in commands() {
            for arg in valued(&command) {
                let choices = arg.get_possible_values().len() > 1;
                if arg.is_required_set() || !(choices || is_number(arg)) {
                    continue;
                }
                let help = arg.get_long_help().or(arg.get_help());
                let help = help.map(ToString::to_string).unwrap_or_default();
                if arg.get_default_values().is_empty() && !help.contains("unless given") {
                    unsaid.push(format!("{} --{}", path.join(" "), arg.get_id()));
                }
            }
        }
        assert!(
            unsaid.is_empty(),
            "neither a default nor what is done without: {unsaid:#?}"
        );
    }

    #[test]
    fn an_option_means_one_thing() {
        let mut helps = std::collections::BTreeMap::new();
        for (path, command) in commands() {
            let switches = command.get_opts().chain(command.get_arguments());
            for arg in switches.filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue)) {
                let (Some(long @ "check"), Some(help)) = (arg.get_long(), arg.get_help()) else {
                    continue;
                };
                let first = helps
                    .entry(long.to_owned())
                    .or_insert_with(|| help.to_string());
                assert_eq!(*first, help.to_string(), "--{long} of {path:?}");
            }
        }
        assert!(helps.contains_key("check"));
    }
}
