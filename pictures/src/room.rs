//! Memory that may not be there, which an error says instead of the end of the program.

use std::cell::Cell;
use std::collections::TryReserveError;

thread_local! {
    static RESERVING: Cell<bool> = const { Cell::new(false) };
}

/// Reserves room for `more` bytes.
///
/// # Errors
/// When there is none.
pub(crate) fn reserve(data: &mut Vec<u8>, more: usize) -> Result<(), TryReserveError> {
    RESERVING.set(true);
    let reserved = data.try_reserve_exact(more);
    RESERVING.set(false);
    reserved
}

/// Whether this thread asks for memory whose absence it reports as an error. An allocator that ends the program where
/// there is none leaves that to it.
pub fn is_reserving() -> bool {
    RESERVING.try_with(Cell::get).unwrap_or(false)
}
