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
use crate::ranks::{OnRanks, Rank};
use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

/// Image generation over discrete tokens: images to tokens to new images.
#[derive(Debug, Parser)]
#[command(
    name = "tessera",
    version,
    propagate_version = true,
    max_term_width = 110
)]
#[command(after_help = "Examples:\n  \
    tessera generate --class sneaker -n 8 --seed 1 -o out --grid\n  \
    tessera reconstruct -i photo.png -o out --grid\n  \
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

/// Runs the command line.
///
/// # Errors
/// Whatever the command gives.
pub fn run(cli: Cli) -> Result<()> {
    let threads = cli.global.threads.unwrap_or_else(crate::ranks::threads);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    crate::interrupt::listen(cli.global.quiet)?;
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
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
