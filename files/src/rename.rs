//! Renames that the standard library lacks, with what is done where a system or a file system lacks them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// What the system has beyond a plain rename.
#[derive(Debug, Clone, Copy)]
enum Beyond {
    /// Both names must exist, and change places.
    Exchange,
    /// The new name must not exist.
    NoReplace,
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_with(from: &Path, to: &Path, beyond: Beyond) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let flags = match beyond {
        Beyond::Exchange => RenameFlags::EXCHANGE,
        Beyond::NoReplace => RenameFlags::NOREPLACE,
    };
    Ok(renameat_with(CWD, from, CWD, to, flags)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_with(_: &Path, _: &Path, _: Beyond) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Whether the file system, or the system, has no such rename.
fn is_lacking(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unsupported | ErrorKind::InvalidInput
    )
}

/// Exchanges two names; `false` where that is not to be had, as across file systems and for a mounted folder.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    match rename_with(one, other, Beyond::Exchange) {
        Ok(()) => Ok(true),
        Err(error)
            if is_lacking(&error)
                || matches!(
                    error.kind(),
                    ErrorKind::CrossesDevices | ErrorKind::ResourceBusy
                ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Renames unless the new name exists, also against another process that makes it at this instant. A file system
/// without such a rename and without links leaves that instant open.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`], and others.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rename_with(from, to, Beyond::NoReplace) {
        Err(error) if is_lacking(&error) => {}
        done => return done,
    }
    if from.is_file() && fs::hard_link(from, to).is_ok() {
        return fs::remove_file(from);
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}
