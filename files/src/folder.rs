//! A folder of files that belong together, whole or absent.

use crate::error::{Error, Result};
use crate::file::Existing;
use crate::rename::{exchange, rename_new};
use crate::temporary::{TEMPORARY, Temporary, folder_of, open_folder, remove};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Syncs the names in a folder. Where a system or a file system cannot, it keeps names in some other way or not at all.
///
/// # Errors
/// When the disk fails.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    let synced = open_folder(folder).and_then(|file| file.sync_all());
    match synced {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Unsupported | ErrorKind::InvalidInput | ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Makes a folder with all above it, and syncs their names.
///
/// # Errors
/// When one cannot be made, or is no folder.
pub fn create_folder(path: &Path) -> Result<()> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !at.is_dir() {
        missing.push(at);
        at = folder_of(at);
    }
    for folder in missing.iter().rev() {
        let made = match fs::create_dir(folder) {
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(io::Error::new(
                error.kind(),
                "a file is there, expected a folder",
            )),
            Err(error) => Err(error),
            Ok(()) => sync_folder(folder_of(folder)),
        };
        made.map_err(Error::of("cannot create", folder))?;
    }
    Ok(())
}

/// The names in a folder that count, sorted: not hidden files, nor what macOS adds to archives. None if nothing is at
/// `path`.
///
/// # Errors
/// When it cannot be listed, as a file cannot.
pub fn visible_entries(path: &Path) -> Result<Vec<OsString>> {
    let mut names = entries(path).map_err(Error::of("cannot list", path))?;
    names.retain(|name| !is_hidden(name));
    Ok(names)
}

/// Whether nothing is at `path`, or a folder that has no [visible entries](visible_entries).
///
/// # Errors
/// When it cannot be listed, as a file cannot.
pub fn is_vacant(path: &Path) -> Result<bool> {
    Ok(visible_entries(path)?.is_empty())
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || name == "__MACOSX"
}

/// Writes the folder `path` as one thing: `write` fills a folder aside, which is synced and put in place. A kill or
/// a power cut at any instant leaves the old folder, or none, or the new one; when this returns, the new one is on the
/// disk. Folders above it are made if absent.
///
/// `owns` says by their names which entries of a folder to be replaced are of the same kind as the new one. If all are,
/// the two folders change places at once (`renameat2` with `RENAME_EXCHANGE`) and the old one is removed. Otherwise the
/// others stay and the new entries are moved in between them, one by one, and so it is where a system, a file system or
/// a mounted folder lets no folders change places: the JSON files directly in the folder, which describe the rest, go
/// first of all and come last, so that a kill leaves a folder that is not mistaken for a whole one.
///
/// # Errors
/// Those of `write`; when the system refuses; [`ErrorKind::AlreadyExists`] for a folder to be kept, unless it
/// [is vacant](is_vacant). Nothing is left behind then.
pub fn write_folder_atomically<T, E: From<Error>>(
    path: &Path,
    existing: Existing,
    owns: impl Fn(&OsStr) -> bool,
    write: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let vacant = is_vacant(path)?;
    if existing == Existing::Keep && !vacant {
        Err(Error::of("cannot write", path)(
            ErrorKind::AlreadyExists.into(),
        ))?;
    }
    let failed = || Error::of("cannot write", path);
    // A link stays one.
    let whole = match path.is_symlink() {
        true => fs::canonicalize(path).map_err(failed())?,
        false => path.to_owned(),
    };
    let parent = folder_of(&whole);
    create_folder(parent)?;
    let at_once = can_be_moved(&whole)
        && entries(&whole)
            .map_err(failed())?
            .iter()
            .all(|name| owns(name));
    let made = match at_once {
        true => Temporary::folder(parent, whole.file_name().unwrap_or_default()),
        false => Temporary::folder(&whole, OsStr::new("")),
    };
    let aside = match made {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && whole.is_dir() => {
            Temporary::folder(&whole, OsStr::new(""))
        }
        made => made,
    }
    .map_err(failed())?;
    let written = write(&aside.path)?;
    let place = || {
        sync_all(&aside.path)?;
        match at_once {
            true => swap(&aside.path, &whole, existing, &owns),
            false => merge(&aside.path, &whole, &owns),
        }
    };
    place().map_err(failed())?;
    // Whatever has the temporary name now is the old folder, or nothing.
    drop(aside);
    Ok(written)
}

/// The names in a folder but temporary ones; none if it is not there.
fn entries(folder: &Path) -> io::Result<Vec<OsString>> {
    let list = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        list => list?,
    };
    let mut names = Vec::new();
    for entry in list {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with(TEMPORARY) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether another folder may take this one's place: not below a process that works in it, nor where a file system is
/// mounted.
fn can_be_moved(folder: &Path) -> bool {
    if !folder.exists() {
        return true;
    }
    let inside = match (std::env::current_dir(), fs::canonicalize(folder)) {
        (Ok(current), Ok(folder)) => current.starts_with(folder),
        _ => false,
    };
    !inside && folder.file_name().is_some() && !is_mounted(folder)
}

#[cfg(unix)]
fn is_mounted(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(folder), fs::metadata(folder_of(folder))) {
        (Ok(own), Ok(parent)) => own.dev() != parent.dev(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_mounted(_: &Path) -> bool {
    false
}

/// Puts `aside` in the place of `whole`, which has nothing but what may be replaced.
fn swap(
    aside: &Path,
    whole: &Path,
    existing: Existing,
    owns: &impl Fn(&OsStr) -> bool,
) -> io::Result<()> {
    let moved = match (whole.exists(), existing) {
        (false, _) => rename_new(aside, whole).map(|()| true),
        // It had nothing to be seen, and a plain rename replaces only what is empty.
        (true, Existing::Keep) => match fs::rename(aside, whole) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                Err(ErrorKind::AlreadyExists.into())
            }
            Err(_) => Ok(false),
            Ok(()) => Ok(true),
        },
        (true, Existing::Replace) => exchange(aside, whole),
    };
    match moved? {
        true => sync_folder(folder_of(whole)),
        false => merge(aside, whole, owns),
    }
}

/// Moves what `aside` holds into `whole`, between entries that stay.
fn merge(aside: &Path, whole: &Path, owns: &impl Fn(&OsStr) -> bool) -> io::Result<()> {
    let describes = |name: &OsStr| Path::new(name).extension() == Some(OsStr::new("json"));
    let new = entries(aside)?;
    let old = entries(whole)?;
    let gone = |name: &&OsString| owns(name) || new.contains(name);
    let (first, rest): (Vec<_>, Vec<_>) = old.iter().filter(gone).partition(|name| describes(name));
    for names in [&first, &rest] {
        for name in names.iter() {
            remove(&whole.join(name))?;
        }
        sync_folder(whole)?;
    }
    let (last, before): (Vec<_>, Vec<_>) = new.iter().partition(|name| describes(name));
    for names in [&before, &last] {
        for name in names.iter() {
            move_to(&aside.join(name), &whole.join(name))?;
        }
        sync_folder(whole)?;
    }
    Ok(())
}

/// Renames, or copies where a folder is mounted in between.
fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {}
        done => return done,
    }
    if from.is_dir() {
        fs::create_dir(to)?;
        for name in entries(from)? {
            move_to(&from.join(&name), &to.join(&name))?;
        }
        return sync_folder(to);
    }
    crate::file::write_atomically(to, Existing::Replace, |out| {
        io::copy(&mut File::open(from)?, out).map(drop)
    })
    .map_err(|error| error.source)
}

/// Syncs all files and folders in `folder`, whoever wrote them.
fn sync_all(folder: &Path) -> io::Result<()> {
    for name in entries(folder)? {
        let path: PathBuf = folder.join(name);
        match path.is_dir() {
            true => sync_all(&path)?,
            // Windows syncs only what is open for writing.
            false => File::options().write(true).open(&path)?.sync_all()?,
        }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// All files below a folder with what they hold.
    fn tree(folder: &Path) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_owned();
            match path.is_dir() {
                true => found.extend(
                    tree(&path)
                        .into_iter()
                        .map(|(below, text)| (name.join(below), text)),
                ),
                false => drop(found.insert(name, fs::read_to_string(&path).unwrap())),
            }
        }
        found
    }

    fn files(list: &[(&str, &str)]) -> BTreeMap<PathBuf, String> {
        list.iter()
            .map(|(name, text)| (name.into(), (*text).into()))
            .collect()
    }

    fn write(path: &Path, existing: Existing, list: &[(&str, &str)]) -> Result<()> {
        let owns = |name: &OsStr| {
            ["model.json", "vae", "judge", "model.safetensors"].contains(&&*name.to_string_lossy())
        };
        write_folder_atomically(path, existing, owns, |aside| {
            for (name, text) in list {
                create_folder(folder_of(&aside.join(name)))?;
                fs::write(aside.join(name), text).unwrap();
            }
            Ok(())
        })
    }

    const OLD: [(&str, &str); 3] = [
        ("model.json", "a"),
        ("vae/model.safetensors", "a"),
        ("judge/config.json", "a"),
    ];
    const NEW: [(&str, &str); 2] = [("model.json", "b"), ("vae/model.safetensors", "b")];

    #[test]
    fn a_folder_is_replaced_whole_and_only_if_it_may_be() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/model");
        write(&path, Existing::Keep, &OLD).unwrap();
        assert_eq!(
            tree(root.path()),
            files(&OLD.map(|(n, t)| (&*format!("deep/model/{n}").leak(), t)))
        );
        let error = write(&path, Existing::Keep, &NEW).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::AlreadyExists);
        assert_eq!(tree(&path), files(&OLD));
        // Nothing of the old one is left, not the judge either.
        write(&path, Existing::Replace, &NEW).unwrap();
        assert_eq!(tree(&path), files(&NEW));
        assert_eq!(fs::read_dir(root.path().join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn files_of_the_user_stay_where_a_model_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model");
        write(&path, Existing::Keep, &OLD).unwrap();
        fs::write(path.join("notes.txt"), "mine").unwrap();
        write(&path, Existing::Replace, &NEW).unwrap();
        let mut expected = files(&NEW);
        expected.insert("notes.txt".into(), "mine".into());
        assert_eq!(tree(&path), expected);
    }

    #[test]
    fn a_folder_with_hidden_files_alone_is_vacant_and_keeps_them() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model");
        assert!(is_vacant(&path).unwrap());
        fs::create_dir(&path).unwrap();
        write(&path, Existing::Keep, &NEW).unwrap();
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join(".DS_Store"), "mac").unwrap();
        fs::write(path.join(".tessera-tmp-1-2-x"), "half").unwrap();
        assert!(is_vacant(&path).unwrap());
        write(&path, Existing::Keep, &NEW).unwrap();
        let mut expected = files(&NEW);
        expected.insert(".DS_Store".into(), "mac".into());
        if cfg!(unix) {
            assert_eq!(tree(&path), expected);
        }
        assert!(!is_vacant(&path).unwrap());
        assert!(is_vacant(&path.join("model.json")).is_err());
    }

    #[test]
    fn a_writer_that_fails_leaves_the_old_folder_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model");
        write(&path, Existing::Keep, &OLD).unwrap();
        let failed: Result<()> = write_folder_atomically(
            &path,
            Existing::Replace,
            |_| true,
            |aside| {
                fs::write(aside.join("half"), "half").unwrap();
                let file = aside.join("vae/none/config.json");
                crate::write_atomically(&file, Existing::Replace, |_| Ok(()))
            },
        );
        // Under the name that it would have had.
        let error = failed.unwrap_err().to_string();
        let file = path.join("vae/none/config.json");
        assert_eq!(error, format!("cannot write {}", file.display()));
        assert_eq!(tree(&path), files(&OLD));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
