//! Ctrl-C: once, the step in progress is finished and saved; twice, the program stops at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Begins to listen.
///
/// # Errors
/// When the system refuses a handler.
pub fn listen() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step; press Ctrl-C again to stop now");
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
