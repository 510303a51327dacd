//! A file that is cut while it is mapped: touching it raises SIGBUS, which ends a program without a word.

/// From now on such a file is named before the program ends, with exit code 1.
#[cfg(unix)]
#[allow(unsafe_code)]
pub fn listen() {
    // SAFETY: zeros are a valid sigaction, and the handler has the type that SA_SIGINFO asks for. Should the system
    // refuse, all stays as it was.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(_, _, _) = say_and_end;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

#[cfg(not(unix))]
pub fn listen() {}

/// Says which file it was, without allocating or locking, and ends the process.
#[cfg(unix)]
#[allow(unsafe_code)]
extern "C" fn say_and_end(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    use std::io::{Cursor, Write};
    use std::sync::atomic::{AtomicBool, Ordering};
    use tessera::checkpoint::mapped_file;

    static ENDING: AtomicBool = AtomicBool::new(false);
    // Other threads find the file cut too; one line is enough.
    while ENDING.swap(true, Ordering::SeqCst) {
        // SAFETY: it waits for a signal.
        unsafe { libc::pause() };
    }
    let mut name = [0; 256];
    // SAFETY: the system passes what it knows of the signal; SIGBUS has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    let length = mapped_file(address, &mut name).unwrap_or(0);
    let name = &mut name[..length];
    for byte in &mut *name {
        if byte.is_ascii_control() {
            *byte = b'?';
        }
    }
    let mut line = [0; 512];
    let mut text = Cursor::new(&mut line[..]);
    let _ = text.write_all(b"error: ");
    let _ = text.write_all(match &*name {
        [] => b"memory of this process",
        name => name,
    });
    let _ = text.write_all(b": was cut or could not be read while it was in use\n");
    let length = text.position() as usize;
    // SAFETY: both calls may stand in a handler; the line has so many bytes.
    unsafe {
        libc::write(2, line.as_ptr().cast(), length);
        libc::_exit(1)
    }
}
