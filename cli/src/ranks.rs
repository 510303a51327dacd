//! Ranks that `mpirun` started: one program on many of them, of which the first speaks and writes.

use crate::{cut, hint, interrupt, output};
use anyhow::{Context, Result, bail};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tessera::attention2d::{Comm, Grid, TokenSharding, panic_message};
use tessera::backend::DEVICE_FAILED;
use tessera::pictures::is_decoding;
use tessera::train::Ranks;
use tessera::{Device, Model};

static WORLD: OnceLock<Comm> = OnceLock::new();

/// Where the first panic of this process was, and what it said.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// How long a rank waits before it reports its failure: where all fail alike, the first has said so and ended them all.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a process is among the ranks of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// The one that prints and writes files; also where there is but one.
    First,
    /// Any other.
    Other,
}

/// Whether a command can run on more than one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRanks {
    /// On one alone.
    One,
    /// On any number.
    Many,
}

/// How a job is started.
#[derive(Debug, Clone, Copy)]
pub struct Launch {
    /// Compare the ranks' arguments before every collective.
    pub check: bool,
    /// Whether there may be several ranks.
    pub on_many: OnRanks,
}

/// All ranks of the job; one where nobody started more.
pub fn world() -> &'static Comm {
    WORLD.get_or_init(Comm::single)
}

/// Whether this is the rank that prints and writes files.
pub fn first() -> bool {
    world().rank() == 0
}

/// What the first rank has, at all ranks.
///
/// # Errors
/// When a rank failed.
pub fn of_first(value: u64) -> Result<u64> {
    let world = world();
    Ok(world.all_gather(&[value], &vec![1; world.size()])?[0])
}

/// A variable that a launcher sets, whichever it is.
fn told<const N: usize>(names: [&str; N]) -> Option<usize> {
    let value = |name: &str| std::env::var(name).ok()?.parse().ok();
    names.into_iter().find_map(value)
}

/// Compares what the ranks have, such as the digest of their data: once, before the work.
///
/// # Errors
/// When it differs; names the rank.
pub fn require_same(what: &str, text: &str) -> Result<()> {
    Ok(world().require_same(what, text)?)
}

/// Compares what the ranks draw with: a model, opened from `path`, and the tokenizer that was given for it, or that
/// lies in its folder. The one that is built in is the same for all.
///
/// # Errors
/// When they differ; names the rank.
pub fn require_same_model(
    model: &Model,
    path: Option<&Path>,
    vae: Option<&Path>,
    device: &Device,
) -> Result<()> {
    let Some(path) = path.filter(|_| world().size() > 1) else {
        return Ok(());
    };
    let tokenizer = tessera::sha256_of_tokenizer(path, vae, device)?;
    let digest = model.digest().unwrap_or_default();
    require_same("the ranks' models differ", digest)?;
    require_same("the ranks' tokenizers differ", &tokenizer)
}

/// How many ranks a launcher says there are.
pub fn launched() -> Option<usize> {
    told(["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
}

/// The rank that a launcher says this is.
pub fn launched_rank() -> usize {
    told(["OMPI_COMM_WORLD_RANK", "PMI_RANK"]).unwrap_or(0)
}

/// Threads of a rank unless told otherwise: the processors of this machine, shared with the other ranks that are on it.
pub fn threads() -> usize {
    let here = told(["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"]);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    match here {
        Some(ranks) if ranks > 1 => (cores / ranks).max(1),
        _ => 0,
    }
}

/// Prints what is wrong with the command line: at the first rank at once, at the others if that did not end them, as it
/// does where all are told the same.
pub fn wrong_usage(error: &clap::Error) -> ExitCode {
    if launched_rank() > 0 {
        std::thread::sleep(PATIENCE);
        output::note(format_args!("rank {}:", launched_rank()));
    }
    output::usage(error);
    ExitCode::from(error.exit_code() as u8)
}

/// Runs a command on one rank, or on all that a launcher started, and makes of its result what the process ends with.
pub fn run(launch: Launch, command: impl FnOnce(Rank) -> Result<()>) -> ExitCode {
    let job = match Job::join() {
        Ok(job) => job,
        Err(error) => {
            if launched_rank() == 0 {
                report(&error);
            }
            return ExitCode::FAILURE;
        }
    };
    listen();
    // After MPI, which puts a handler of its own where there is none.
    cut::listen();
    let Some(job) = job else {
        return ended(caught(|| command(Rank::First)));
    };
    let world = world();
    if launch.check {
        world.enable_check();
    }
    let rank = match world.rank() {
        0 => Rank::First,
        _ => Rank::Other,
    };
    output::print_results(rank == Rank::First);
    let work = || {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        world.require_same("the ranks' arguments differ", &arguments.join(" "))?;
        if world.size() > 1 && launch.on_many == OnRanks::One {
            bail!(
                "started on {} ranks: only generate, train vae, train ar, train dit, attn bench and doctor run on more \
                 than one",
                world.size()
            );
        }
        command(rank)
    };
    let cause = match caught(work) {
        Ok(()) => {
            job.finish();
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    if rank == Rank::Other {
        std::thread::sleep(PATIENCE);
    }
    report(&match world.size() {
        1 => cause,
        _ => cause.context(format!("rank {}", world.rank())),
    });
    job.abort(if interrupt::requested() { 130 } else { 1 })
}

/// Keeps what the first panic says, of any thread, in place of printing it.
fn listen() {
    std::panic::set_hook(Box::new(|panic| {
        if is_decoding() {
            return; // the error of one picture
        }
        let said = match (said_by(panic), panic.location()) {
            (text, Some(at)) if !text.starts_with(DEVICE_FAILED) => format!("{text}, at {at}"),
            (text, _) => text,
        };
        let mut first = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(said);
    }));
}

/// What a command comes to, a panic of its being an error too: it may be one of a device's driver, for want of memory
/// say.
fn caught(command: impl FnOnce() -> Result<()>) -> Result<()> {
    let result = catch_unwind(AssertUnwindSafe(command));
    let heard = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    let panic = match result {
        Ok(result) => {
            if let Some(text) = heard {
                output::note(format_args!("warning: a thread gave up: {text}"));
            }
            return result;
        }
        Err(panic) => panic,
    };
    let text = heard.unwrap_or_else(|| panic_message(&*panic));
    let lower = text.to_lowercase();
    match ["memory", "allocat"]
        .iter()
        .any(|word| lower.contains(word))
    {
        true => Err(hint::NoMemory(text).into()),
        false => bail!("{text}"),
    }
}

fn said_by(panic: &std::panic::PanicHookInfo<'_>) -> String {
    let text = panic.payload_as_str();
    text.unwrap_or("a panic without a message").to_owned()
}

/// What a process ends with that is no rank.
fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            match interrupt::requested() {
                true => ExitCode::from(130),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// Prints an error, and what to try.
fn report(error: &anyhow::Error) {
    output::note(format_args!("error: {error:#}"));
    if let Some(hint) = hint::of(error) {
        output::note(format_args!("hint: {hint}"));
    }
}

/// Where the tokens of a model are that all ranks of `--attn-grid` draw with; without a grid each rank has all.
///
/// # Errors
/// When the grid has not as many ranks as there are.
pub fn sequence(grid: Option<Grid>) -> Result<TokenSharding> {
    let world = world();
    match grid {
        None => Ok(TokenSharding::Local),
        Some(grid) if grid.ranks() != world.size() => bail!(
            "--attn-grid {grid}: {} ranks, there are {}; start the program with mpirun -n {0}",
            grid.ranks(),
            world.size()
        ),
        Some(grid) => Ok(TokenSharding::on_grid(world, grid)?),
    }
}

/// The ranks that train one model, all of them those of mpirun, and where the tokens of each share of a batch are.
///
/// # Errors
/// When the ranks of a grid do not divide those there are.
pub fn training(grid: Option<Grid>) -> Result<(Ranks, TokenSharding)> {
    let grid = grid.unwrap_or(Grid { rows: 1, cols: 1 });
    let ranks =
        Ranks::new(world().clone(), grid.ranks()).with_context(|| format!("--attn-grid {grid}"))?;
    let sequence = TokenSharding::on_grid(&ranks.sequence()?, grid)?;
    Ok((ranks, sequence))
}

/// What the program knows of MPI, for `doctor`.
pub fn describe() -> String {
    let library = library();
    match launched() {
        Some(_) => format!("{library}, {} ranks", world().size()),
        None => library,
    }
}

#[cfg(feature = "mpi")]
fn library() -> String {
    tessera::attention2d::mpi::version()
}

#[cfg(not(feature = "mpi"))]
fn library() -> String {
    "not built in (feature `mpi`); ranks are threads".into()
}

/// The job of which this process is a rank.
struct Job {
    #[cfg(feature = "mpi")]
    mpi: tessera::attention2d::mpi::Mpi,
}

#[cfg(feature = "mpi")]
impl Job {
    /// Joins the job, if there is one.
    fn join() -> Result<Option<Self>> {
        if launched().is_none() {
            return Ok(None);
        }
        let mpi = tessera::attention2d::mpi::init(last_resort)?;
        WORLD.get_or_init(|| mpi.world());
        Ok(Some(Self { mpi }))
    }

    fn finish(self) {
        self.mpi.finish();
    }

    /// Ends all ranks.
    fn abort(self, code: i32) -> ! {
        tessera::attention2d::mpi::abort(code)
    }
}

/// Reports an error that the library cannot return, with what led to it, and ends all ranks.
#[cfg(feature = "mpi")]
fn last_resort(error: tessera::attention2d::Error) -> ! {
    match PANIC.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(cause) => output::note(format_args!("error: {error}: {cause}")),
        None => output::note(format_args!("error: {error}")),
    }
    tessera::attention2d::mpi::abort(1)
}

#[cfg(not(feature = "mpi"))]
impl Job {
    fn join() -> Result<Option<Self>> {
        match launched() {
            Some(ranks) if ranks > 1 => bail!(
                "started on {ranks} ranks, but this program was built without MPI: build it with --features mpi"
            ),
            _ => Ok(None),
        }
    }

    fn finish(self) {}

    fn abort(self, code: i32) -> ! {
        std::process::exit(code)
    }
}
