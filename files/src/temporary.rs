//! Temporary names: who has one, what it becomes, and when it may be removed.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the names of unfinished files and folders begin with.
pub const TEMPORARY: &str = ".tessera-tmp-";
/// The most bytes of a final name within a temporary one; file systems take 255 in all.
const LONGEST: usize = 180;
/// After this time a temporary file is nobody's, on file systems and systems that cannot lock.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// An unfinished file or folder, removed when dropped.
pub(crate) struct Temporary {
    pub path: PathBuf,
    pub file: File,
    placed: bool,
}

impl Temporary {
    /// A new file beside `becomes`.
    pub(crate) fn file(becomes: &Path) -> io::Result<Self> {
        let name = becomes.file_name().unwrap_or_default();
        Self::named(folder_of(becomes), name, |path| {
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)
        })
    }

    /// A new folder in `parent`, for what becomes `name`.
    pub(crate) fn folder(parent: &Path, name: &OsStr) -> io::Result<Self> {
        Self::named(parent, name, |path| {
            fs::create_dir(path)?;
            open_folder(path)
        })
    }

    fn named(
        parent: &Path,
        name: &OsStr,
        create: impl Fn(&Path) -> io::Result<File>,
    ) -> io::Result<Self> {
        remove_once(parent);
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let mut own = OsString::from(format!("{TEMPORARY}{}-{number}-", std::process::id()));
            if name.len() <= LONGEST {
                own.push(name);
            }
            let path = parent.join(own);
            let file = match create(&path) {
                Ok(file) => file,
                // Of a dead process that had the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            live().insert(path.clone());
            let made = Self {
                path,
                file,
                placed: false,
            };
            // Where there are no locks, age decides. Between its creation and the lock another process may have taken
            // this for a dead one's.
            if made.file.lock().is_err() || made.is_there() {
                return Ok(made);
            }
        }
    }

    #[cfg(unix)]
    fn is_there(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }

    #[cfg(not(unix))]
    fn is_there(&self) -> bool {
        true
    }

    /// Keeps it: it has its final name now.
    pub(crate) fn placed(mut self) {
        live().remove(&self.path);
        self.placed = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed now is removed by the next writer.
            let _ = remove(&self.path);
            live().remove(&self.path);
        }
    }
}

/// What this process has not finished.
fn live() -> MutexGuard<'static, HashSet<PathBuf>> {
    static LIVE: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all that this process has not finished, for one that ends now. Until what is returned is dropped, no writer
/// begins another file, or gives up and says so.
pub fn abandon() -> impl Drop {
    let live = live();
    for path in live.iter() {
        // What cannot be removed now is removed by the next writer.
        let _ = remove(path);
    }
    live
}

/// The folder that a path is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A folder as a file, to be locked and synced. Only Unix has such.
pub(crate) fn open_folder(path: &Path) -> io::Result<File> {
    match cfg!(unix) {
        true => File::open(path),
        false => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The name that something written under a temporary one gets in the end; other paths stay as they are.
pub fn final_path(path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for component in path.components() {
        let text = component.as_os_str().to_string_lossy();
        match (component, text.strip_prefix(TEMPORARY)) {
            (Component::Normal(_), Some(rest)) => {
                let name = rest.splitn(3, '-').nth(2).unwrap_or_default();
                if !name.is_empty() {
                    whole.push(name);
                }
            }
            _ => whole.push(component),
        }
    }
    whole
}

/// Removes what killed writers left in `folder`, files and folders. A writer holds a lock on what it writes, so what
/// can be locked is nobody's. Where files cannot be locked, what is older than a day is.
///
/// # Errors
/// When the folder cannot be listed. What cannot be removed stays: it may be another user's.
pub fn remove_temporaries(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            remove_if_dead(&entry.path());
        }
    }
    Ok(())
}

/// [`remove_temporaries`] once for each folder: what is killed later is another command's to remove.
fn remove_once(folder: &Path) {
    static DONE: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if done.insert(folder.to_owned()) {
        // A folder that cannot be listed may well be written into.
        let _ = remove_temporaries(folder);
    }
}

fn remove_if_dead(path: &Path) {
    let Ok(found) = fs::symlink_metadata(path) else {
        return;
    };
    let opened = match () {
        () if found.is_dir() => open_folder(path),
        // NFS locks only what is open for writing.
        () if found.is_file() => File::options().read(true).write(true).open(path),
        () => return,
    };
    let dead = match opened.as_ref().map(File::try_lock) {
        Ok(Ok(())) => cfg!(unix) || is_old(&found),
        Ok(Err(fs::TryLockError::WouldBlock)) => false,
        Ok(Err(fs::TryLockError::Error(_))) | Err(_) => is_old(&found),
    };
    if dead {
        let _ = remove(path);
    }
}

fn is_old(found: &fs::Metadata) -> bool {
    let age = found.modified().map(|time| time.elapsed());
    matches!(age, Ok(Ok(age)) if age > ABANDONED)
}

/// Removes a file or a folder with all it holds.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_tells_the_final_one() {
        for (temporary, whole) in [
            (
                "a/.tessera-tmp-12-3-model.safetensors",
                "a/model.safetensors",
            ),
            (
                "a/.tessera-tmp-12-3-my-model/vae/x.json",
                "a/my-model/vae/x.json",
            ),
            ("/m/.tessera-tmp-1-0-/config.json", "/m/config.json"),
            ("a/.tessera-tmp-abc/b", "a/b"),
            ("../plain/.hidden", "../plain/.hidden"),
        ] {
            assert_eq!(final_path(Path::new(temporary)), Path::new(whole));
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_a_living_writer_holds_stays_and_what_a_dead_one_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let file = Temporary::file(&root.join("a.png")).unwrap();
        let made = Temporary::folder(root, OsStr::new("model")).unwrap();
        let dead = root.join(format!("{TEMPORARY}{}-9999-x", std::process::id()));
        fs::create_dir_all(dead.join("vae")).unwrap();
        fs::write(dead.join("vae/half"), "half").unwrap();
        fs::write(root.join(".tessera-tmp-abc"), "of an older version").unwrap();
        fs::write(root.join(".hidden"), "the user's").unwrap();
        remove_temporaries(root).unwrap();
        assert!(file.path.is_file() && made.path.is_dir());
        assert!(!dead.exists() && !root.join(".tessera-tmp-abc").exists());
        assert!(root.join(".hidden").exists());
        drop((file, made));
        assert_eq!(fs::read_dir(root).unwrap().count(), 1);
    }

    #[test]
    fn the_first_writer_into_a_folder_removes_what_is_there_of_dead_ones() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(".tessera-tmp-1-0-b.png");
        fs::write(&left, "half").unwrap();
        drop(Temporary::file(&folder.path().join("a.png")).unwrap());
        assert_eq!(left.exists(), !cfg!(unix));
    }
}
