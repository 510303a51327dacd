//! The allocator, and what becomes of the program when there is no memory: a line on stderr and exit code 1.

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// mimalloc, as page faults of freshly mapped buffers cost more than the arithmetic on them; without memory it ends
/// the program in place of returning nothing, which the standard library would abort on.
pub struct Allocator;

#[allow(unsafe_code)] // SAFETY: every call goes on to mimalloc as it is, and what that returns is returned.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        there(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        there(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        there(unsafe { MiMalloc.realloc(at, layout, size) }, size)
    }
}

/// Freed memory stays with the process for this long: a training step needs what the last one freed, and having the
/// system clear its pages again takes a fifth of the time.
const KEPT: Duration = Duration::from_secs(60);

/// Sets how long freed memory is kept, unless `MIMALLOC_PURGE_DELAY` says.
#[allow(unsafe_code)]
pub fn keep_freed_memory() {
    /// `mi_option_purge_delay`, in milliseconds, of mimalloc 2 and 3.
    const PURGE_DELAY: libc::c_int = 15;
    unsafe extern "C" {
        fn mi_option_set_default(option: libc::c_int, value: libc::c_long);
    }
    // SAFETY: the function takes any option and value, and mimalloc is linked as the allocator.
    unsafe { mi_option_set_default(PURGE_DELAY, KEPT.as_millis() as libc::c_long) }
}

/// `at`, unless it is null where nobody expects it.
fn there(at: *mut u8, bytes: usize) -> *mut u8 {
    if at.is_null() && !tessera::pictures::is_reserving() {
        end(bytes);
    }
    at
}

/// Says that there is no memory, without any, and ends the process.
#[cold]
#[allow(unsafe_code)]
fn end(bytes: usize) -> ! {
    static ENDING: AtomicBool = AtomicBool::new(false);
    // Other threads find none either; one line is enough.
    while ENDING.swap(true, Ordering::SeqCst) {
        std::thread::sleep(Duration::from_secs(1));
    }
    let mut line = [0; 128];
    let mut text = Cursor::new(&mut line[..]);
    let _ = writeln!(
        text,
        "error: out of memory: {bytes} bytes more were asked for"
    );
    let length = text.position() as usize;
    let _ = std::io::stderr().write_all(&line[..length]);
    // SAFETY: it ends the process and touches nothing of it: handlers at exit could ask for memory again.
    unsafe { libc::_exit(1) }
}
