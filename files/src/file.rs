//! One file, whole or absent.

use crate::error::{Error, Result};
use crate::folder::sync_folder;
use crate::rename::rename_new;
use crate::temporary::{Temporary, folder_of};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// What becomes of something that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// It stays; writing is an error.
    #[default]
    Keep,
    /// It is replaced.
    Replace,
}

/// Writes `path` through `write`, in a folder that exists. A kill or a power cut at any instant leaves the old file, or
/// none, or the new one; when this returns, the new one is on the disk. What is no file but a device or a pipe is
/// written into.
///
/// # Errors
/// When the system refuses, with nothing left behind; [`io::ErrorKind::AlreadyExists`] for a file to be kept, also
/// against another process that puts it there in the meantime.
pub fn write_atomically(
    path: &Path,
    existing: Existing,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    into_place(path, existing, write).map_err(Error::of("cannot write", path))
}

fn into_place(
    path: &Path,
    existing: Existing,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let filled = |file: &File| {
        let mut buffer = BufWriter::with_capacity(1 << 20, file);
        write(&mut buffer)?;
        buffer.flush()
    };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => return filled(&File::options().write(true).open(path)?),
        _ => {}
    }
    if existing == Existing::Keep && fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let temporary = Temporary::file(path)?;
    filled(&temporary.file)?;
    // Without it a power cut may keep the new name and lose the bytes.
    temporary.file.sync_all()?;
    match existing {
        Existing::Keep => rename_new(&temporary.path, path)?,
        Existing::Replace => fs::rename(&temporary.path, path)?,
    }
    temporary.placed();
    // Without it a power cut may lose the new name.
    sync_folder(folder_of(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_only_if_it_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let write = |text: &'static str, existing| {
            write_atomically(&path, existing, |out| out.write_all(text.as_bytes()))
        };
        write("one", Existing::Keep).unwrap();
        let error = write("two", Existing::Keep).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        write("two", Existing::Replace).unwrap();
        let half = write_atomically(&path, Existing::Replace, |out| {
            out.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        let error = half.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot write {}", path.display())
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_have_the_final_name_and_the_cause_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/a.txt");
        let error = write_atomically(&path, Existing::Replace, |_| Ok(())).unwrap_err();
        assert_eq!(error.path, path);
        assert!(!error.source.to_string().contains("tessera-tmp"), "{error}");
        let error = write_atomically(folder.path(), Existing::Replace, |_| Ok(())).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::IsADirectory);
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_into_and_not_replaced() {
        use std::os::unix::fs::FileTypeExt;
        let null = Path::new("/dev/null");
        write_atomically(null, Existing::Replace, |out| writeln!(out, "x")).unwrap();
        assert!(fs::metadata(null).unwrap().file_type().is_char_device());
    }

    #[cfg(unix)]
    #[test]
    fn the_permissions_are_those_that_other_files_get() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (folder.path().join("a"), folder.path().join("b"));
        write_atomically(&ours, Existing::Keep, |_| Ok(())).unwrap();
        fs::write(&other, "x").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&other));
    }
}
