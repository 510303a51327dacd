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

#[cfg(all(test, unix))]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::OpenOptions;
    use std::process::Command;
    use tessera::checkpoint::{Checkpoint, Dtype, Entry, write};

    /// Where the process that the test starts finds the file.
    const FILE: &str = "TESSERA_TEST_CUT";

    #[test]
    fn a_file_that_is_cut_while_it_is_read_is_named() {
        if let Some(file) = std::env::var_os(FILE) {
            super::listen();
            let checkpoint = Checkpoint::open(&file).expect("a checkpoint");
            let state = checkpoint.state_dict(None).expect("a state dict");
            let whole = std::fs::metadata(&file).expect("a file").len();
            let writer = OpenOptions::new().write(true).open(&file).expect("a file");
            std::thread::spawn(move || {
                loop {
                    let both = writer.set_len(4096).and_then(|()| writer.set_len(whole));
                    both.expect("it is cut, and as long as before");
                }
            });
            // Between two reads the file may be found cut, which is an error like others.
            loop {
                let _ = state.tensors["w"].bytes();
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("cut.safetensors");
        let entry = Entry {
            name: "w".into(),
            dtype: Dtype::U8,
            shape: (&[16 << 20]).into(),
            bytes: Box::new(|out| out.write_all(&vec![1; 16 << 20])),
        };
        write(&file, &BTreeMap::new(), vec![entry]).expect("it is written");
        let test = "cut::tests::a_file_that_is_cut_while_it_is_read_is_named";
        let itself = std::env::current_exe().expect("this program");
        let mut child = Command::new(itself);
        child
            .args(["--exact", test, "--nocapture"])
            .env(FILE, &file);
        let ended = child.output().expect("it runs");
        assert_eq!(ended.status.code(), Some(1), "{:?}", ended.status);
        let said = format!(
            "error: {}: was cut or could not be read while it was in use\n",
            file.display()
        );
        assert_eq!(String::from_utf8_lossy(&ended.stderr), said);
    }
}
