//! One writer of a run folder at a time: a lock on a file in it, which the system lets go of when its holder dies.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// The file that is locked. It stays: removing it would let two writers lock two files of one name.
const LOCK_FILE: &str = ".lock";

/// Keeps others from writing into a run folder as long as it, or a clone, lives.
#[derive(Debug, Clone)]
pub struct RunLock {
    /// `None` on a file system without locks.
    _file: Option<Arc<Locked>>,
}

/// Unlocks when dropped. Closing the file would not do: a process that another thread just starts has a copy of the
/// file until it runs its program.
#[derive(Debug)]
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // What fails here ends with the process.
        let _ = self.0.unlock();
    }
}

impl RunLock {
    /// Locks the folder, which must exist.
    pub(crate) fn take(root: &Path) -> Result<Self> {
        let path = root.join(LOCK_FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = file.map_err(Error::io("cannot write", &path))?;
        match file.try_lock() {
            Ok(()) => {
                // For whoever is refused. The lock holds without it, on a full disk too.
                let _ = file.set_len(0);
                let _ = writeln!(file, "{}", std::process::id());
                Ok(Self {
                    _file: Some(Arc::new(Locked(file))),
                })
            }
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                Err(Error::InUse {
                    folder: root.into(),
                    pid: pid.trim().parse().ok(),
                })
            }
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                Ok(Self { _file: None })
            }
            Err(TryLockError::Error(error)) => Err(Error::io("cannot lock", &path)(error)),
        }
    }

    /// Refuses a folder that another process writes into, if there was one; leaves no trace in it.
    pub(crate) fn require_free(root: &Path) -> Result<()> {
        match root.join(LOCK_FILE).is_file() {
            true => Self::take(root).map(drop),
            false => Ok(()),
        }
    }
}
