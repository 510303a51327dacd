//! A file that is cut while the program reads it.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::process::Command;
use tessera::checkpoint::{Checkpoint, Dtype, Entry, write};

/// Where the process that the test starts finds the file.
const FILE: &str = "TESSERA_TEST_CUT";

#[test]
fn a_file_that_is_cut_while_it_is_read_is_named() {
    if let Some(file) = std::env::var_os(FILE) {
        tessera_cli::cut::listen();
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
    let test = "cut::a_file_that_is_cut_while_it_is_read_is_named";
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
