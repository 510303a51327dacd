//! A decoder's panic is the fault of one file, not of the program.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// A decoder gave up with a panic.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Whether this thread is inside a decoder, whose panic becomes an error of [`read`](crate::read). A panic hook that
/// prints or counts asks this first.
pub fn is_decoding() -> bool {
    DECODING.get()
}

/// What `work` returns, or that it panicked.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let before = DECODING.replace(true);
    // Nothing outlives a panic but the file's bytes, which are only read.
    let result = catch_unwind(AssertUnwindSafe(work));
    DECODING.set(before);
    result.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_the_hook_can_tell() {
        assert!(!is_decoding());
        assert!(matches!(guarded(is_decoding), Ok(true)));
        // Without the default hook's message in the output of the tests.
        assert!(guarded(|| std::panic::resume_unwind(Box::new(()))).is_err());
        assert!(!is_decoding());
    }
}
