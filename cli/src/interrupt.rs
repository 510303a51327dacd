//! Ctrl-C: once, the step in progress is finished and saved; twice, the program stops at once.

use crate::output;
use anyhow::{Result, ensure};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use tessera::train::{Outcome, Trained};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Begins to listen; says on stderr what happens then, unless it should be quiet.
///
/// # Errors
/// When the system refuses a handler.
pub fn listen(quiet: bool) -> Result<()> {
    ctrlc::set_handler(move || {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        if !quiet {
            output::note("stopping after this step; press Ctrl-C again to stop now");
        }
    })?;
    Ok(())
}

/// Whether Ctrl-C was pressed.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// `Break` once Ctrl-C was pressed.
pub fn flow() -> ControlFlow<()> {
    match requested() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

/// Refuses to finish a run that Ctrl-C stopped.
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
