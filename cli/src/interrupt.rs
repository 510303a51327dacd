//! Signals. Ctrl-C, SIGTERM and a terminal that closes: training finishes the step in progress and saves it; any other
//! command stops within seconds. Ctrl-C twice stops at once. SIGUSR1: training saves and goes on.
//!
//! The rule for commands: what runs for long asks [`requested`], or passes [`flow`] on, per unit of work, and ends with
//! an error that says how far it came. Whatever does not is ended after a moment, which is safe: files appear whole or
//! not at all. Only what has something to save holds a [`Saving`].

use crate::output;
use anyhow::{Result, ensure};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tessera::checkpoint::abandon;
use tessera::train::{Outcome, Trained};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static SAVE: AtomicBool = AtomicBool::new(false);
static SAVING: AtomicUsize = AtomicUsize::new(0);

/// How long a command may take to stop by itself.
const GRACE: Duration = Duration::from_secs(2);
/// What a process ends with that a signal stopped.
const INTERRUPTED: i32 = 130;

/// While it lives, the program is not ended before its work saw that it should stop.
pub struct Saving(());

impl Saving {
    /// From now on.
    pub fn begin() -> Self {
        SAVING.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        SAVING.fetch_sub(1, Ordering::SeqCst);
    }
}

fn is_saving() -> bool {
    SAVING.load(Ordering::SeqCst) > 0
}

/// What a signal asks for.
#[derive(Clone, Copy)]
enum Asked {
    /// Ctrl-C: to stop, or, the second time, to stop at once.
    Interrupt,
    /// To stop.
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no such signals"))]
    Terminate,
    /// To save.
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no such signals"))]
    Save,
}

/// Begins to listen; says on stderr what happens then, unless it should be quiet. `ranks` is how many a launcher
/// started, if one did.
///
/// # Errors
/// When the system refuses a handler.
pub fn listen(quiet: bool, ranks: Option<usize>) -> Result<()> {
    let handle = move |asked: Asked| match asked {
        Asked::Save => SAVE.store(true, Ordering::SeqCst),
        Asked::Interrupt | Asked::Terminate => stop(asked, quiet, ranks),
    };
    on_signals(handle)
}

fn stop(asked: Asked, quiet: bool, ranks: Option<usize>) {
    if REQUESTED.swap(true, Ordering::SeqCst) {
        // A terminal that closes may send two signals of its own: only somebody who presses again means it.
        if let Asked::Interrupt = asked {
            // Held to the end: a writer must not find its file gone and say so.
            let _abandoned = abandon();
            std::process::exit(INTERRUPTED);
        }
        return;
    }
    if !quiet {
        let what = match is_saving() {
            true => "stopping after this step",
            false => "stopping",
        };
        let launcher = match ranks {
            Some(2..) if is_saving() => {
                "; mpirun may end a step that takes seconds before it is saved, unless started with \
                 --mca odls_base_sigkill_timeout 600"
            }
            _ => "",
        };
        output::note(format_args!(
            "{what}; press Ctrl-C again to stop now{launcher}"
        ));
    }
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(GRACE);
            // What began to save meanwhile has as long again when it is done.
            if !is_saving() {
                break;
            }
            while is_saving() {
                std::thread::sleep(GRACE / 20);
            }
        }
        if !quiet {
            output::note("stopped");
        }
        let _abandoned = abandon();
        std::process::exit(INTERRUPTED);
    });
}

#[cfg(unix)]
fn on_signals(handle: impl Fn(Asked) + Send + 'static) -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    let mut heard = vec![SIGINT, SIGTERM, SIGUSR1];
    // Under nohup a closed terminal is no reason to stop.
    if !is_ignored(SIGHUP) {
        heard.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(heard)?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            handle(match signal {
                SIGINT => Asked::Interrupt,
                SIGUSR1 => Asked::Save,
                _ => Asked::Terminate,
            });
        }
    });
    Ok(())
}

/// Whether whoever started this process made it ignore a signal. Known on Linux alone.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
fn on_signals(handle: impl Fn(Asked) + Send + 'static) -> Result<()> {
    Ok(ctrlc::set_handler(move || handle(Asked::Interrupt))?)
}

/// Whether the program should stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Whether a checkpoint was asked for since the last call.
pub fn save_requested() -> bool {
    SAVE.swap(false, Ordering::SeqCst)
}

/// `Break` once the program should stop.
pub fn flow() -> ControlFlow<()> {
    match requested() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

/// Refuses to finish a run that a signal stopped.
///
/// # Errors
/// When it was; says how to go on.
pub fn not_stopped<M>(trained: &Trained<M>) -> Result<()> {
    let step = trained.step;
    ensure!(
        trained.outcome == Outcome::Finished,
        "stopped at step {step}; go on with --resume latest"
    );
    Ok(())
}
