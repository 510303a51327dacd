//! Power cuts, modeled on the operations of an undisturbed run.
//!
//! The model is of a disk that keeps as little as it may: the bytes of a file are on it after a sync of that file, and
//! a change of names (a new file or folder, a rename, a removal) after a sync of the folder that it is in. Whatever is
//! not synced may be there or not after the cut, each change for itself and in any order: a name without its bytes, a
//! removal without the rename before it. That covers ext4, XFS, Btrfs and APFS, which all keep more. It does not cover
//! a disk that says it has synced and has not, nor bytes that rot.
//!
//! So a cut after any operation leaves each result old or new and whole exactly if the following hold, and they are
//! what is checked: nothing is written into a file under a final name but a log; what gets a final name, with all that
//! is in it, is synced before; a result that is replaced is never without a name; nothing is removed while a rename
//! beside it is not synced; the lines of a log are synced before the checkpoint that follows them is in place; and at
//! the end all of it is synced, new folders and those above them too.

use super::sandbox::{TEMPORARY, Tree};
use super::tally::{Outcome, Tally};
use super::trace::Event;
use super::undisturbed::Undisturbed;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What is not on the disk yet.
#[derive(Debug, Default)]
struct Disk {
    /// Files with bytes that are not.
    bytes: BTreeSet<PathBuf>,
    /// Names that are not, by the folder that they are in.
    names: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    /// Names that went and were there before the command.
    gone: BTreeSet<PathBuf>,
}

/// A cut after every operation.
pub fn torture(run: &Undisturbed, root: &Path) -> Tally {
    let mut tally = Tally::default();
    let mut disk = Disk::default();
    let none = Tree::new();
    let before = run.before.as_ref().unwrap_or(&none);
    let mut said = BTreeSet::new();
    let mut count = |fault: Option<String>| {
        tally.count(match fault {
            // One cause is met at every cut after it.
            Some(fault) if said.insert(fault.clone()) => Outcome::Broken(fault),
            _ => Outcome::Held,
        });
    };
    for op in &run.ops {
        let path = op.event.path().to_owned();
        let fault = disk.apply(&op.event);
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .display()
            .to_string();
        count(fault.map(|fault| format!("a cut after {} of {name}: {fault}", op.call)));
    }
    let missing = |path: &Path| {
        path.strip_prefix(root)
            .unwrap_or(path)
            .display()
            .to_string()
    };
    for path in disk
        .bytes
        .iter()
        .filter(|path| is_final(path) && !is_lock(path))
    {
        count(Some(format!("at the end {} is not synced", missing(path))));
    }
    for path in disk
        .names
        .values()
        .flatten()
        .filter(|path| is_final(path) && !is_lock(path))
    {
        count(Some(format!(
            "at the end the name {} is not synced",
            missing(path)
        )));
    }
    let kept = |path: &&PathBuf| {
        let name = path
            .strip_prefix(root.join("out"))
            .unwrap_or(path)
            .to_owned();
        before.contains_key(&name) && run.after.contains_key(&name) && !run.case.resumes
    };
    for path in disk.gone.iter().filter(kept) {
        count(Some(format!(
            "{} is without a name for a while",
            missing(path)
        )));
    }
    tally
}

fn is_final(path: &Path) -> bool {
    !path
        .iter()
        .any(|part| part.to_string_lossy().starts_with(TEMPORARY))
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "jsonl")
}

/// Locks hold nothing.
fn is_lock(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_owned()
}

impl Disk {
    fn named(&mut self, path: &Path) {
        self.names
            .entry(parent(path))
            .or_default()
            .insert(path.to_owned());
    }

    /// What of `path`, and below it, is not on the disk.
    fn unsynced(&self, path: &Path) -> Option<&PathBuf> {
        let below = |other: &&PathBuf| other.starts_with(path);
        let names = self
            .names
            .iter()
            .filter(|(folder, _)| folder.starts_with(path));
        self.bytes
            .iter()
            .find(below)
            .or_else(|| names.flat_map(|(_, names)| names).next())
    }

    /// All that is below `from` is below `to` now.
    fn moved(&mut self, from: &Path, to: &Path) {
        let new = |path: &PathBuf| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.clone(),
        };
        self.bytes = self.bytes.iter().map(new).collect();
        self.names = self
            .names
            .iter()
            .map(|(folder, names)| (new(folder), names.iter().map(new).collect()))
            .collect();
        if let Some(names) = self.names.get_mut(&parent(from)) {
            names.remove(from);
        }
    }

    fn forget(&mut self, path: &Path) {
        self.bytes.retain(|other| !other.starts_with(path));
        self.names.retain(|folder, _| !folder.starts_with(path));
        if let Some(names) = self.names.get_mut(&parent(path)) {
            names.remove(path);
        }
    }

    /// Does it; what a cut now might break.
    fn apply(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Create(path) => {
                self.named(path);
                None
            }
            Event::Open(path) => {
                if is_log(path) {
                    self.named(path);
                }
                None
            }
            Event::MakeFolder(path) => {
                self.named(path);
                None
            }
            Event::Write(path) => {
                self.bytes.insert(path.clone());
                let in_place = is_final(path) && !is_log(path) && !is_lock(path);
                in_place.then(|| "it is written under its final name".into())
            }
            Event::Sync(path) => {
                self.bytes.remove(path);
                self.names.remove(path);
                None
            }
            Event::Rename(from, to) | Event::Link(from, to) => {
                let half = self
                    .unsynced(from)
                    .map(|half| format!("{} is not synced", half.display()));
                let log = self.bytes.iter().find(|path| is_log(path));
                let log = log.map(|_| "the lines of the log before it are not synced".to_owned());
                self.moved(from, to);
                self.named(to);
                match is_final(to) {
                    true => half
                        .or(log.filter(|_| to.extension().is_some_and(|end| end == "safetensors"))),
                    false => None,
                }
            }
            Event::Exchange(one, other) => {
                let half = self
                    .unsynced(one)
                    .map(|half| format!("{} is not synced", half.display()));
                self.moved(one, other);
                self.named(other);
                half
            }
            Event::Unlink(path) | Event::RemoveFolder(path) => {
                let beside = self.names.get(&parent(path));
                let pending = beside
                    .and_then(|names| names.iter().find(|name| is_final(name) && !is_lock(name)));
                let fault = pending
                    .filter(|_| is_final(path))
                    .map(|pending| format!("it goes before {} is synced", pending.display()));
                self.forget(path);
                if is_final(path) {
                    self.gone.insert(path.clone());
                }
                fault
            }
            Event::Lock(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(events: &[Event]) -> Vec<bool> {
        let mut disk = Disk::default();
        events
            .iter()
            .map(|event| disk.apply(event).is_some())
            .collect()
    }

    #[test]
    fn a_name_without_its_bytes_is_a_fault_and_a_sync_mends_it() {
        let (temporary, whole) = (
            PathBuf::from("/d/.tessera-tmp-1-0-a"),
            PathBuf::from("/d/a"),
        );
        let write = [
            Event::Create(temporary.clone()),
            Event::Write(temporary.clone()),
        ];
        let rename = Event::Rename(temporary.clone(), whole.clone());
        let [create, bytes] = write.clone();
        assert_eq!(
            faults(&[create.clone(), bytes.clone(), rename.clone()]),
            [false, false, true]
        );
        let synced = [
            create,
            bytes,
            Event::Sync(temporary),
            rename,
            Event::Unlink("/d/b".into()),
        ];
        assert_eq!(faults(&synced), [false, false, false, false, true]);
        assert_eq!(
            faults(&[Event::Create(whole.clone()), Event::Write(whole)]),
            [false, true]
        );
        let log = PathBuf::from("/d/metrics.jsonl");
        assert_eq!(
            faults(&[Event::Open(log.clone()), Event::Write(log)]),
            [false, false]
        );
    }

    #[test]
    fn a_folder_is_synced_with_all_that_is_in_it() {
        let aside = PathBuf::from("/d/.tessera-tmp-1-0-m");
        let file = aside.join("vae/x");
        let made = [
            Event::MakeFolder(aside.clone()),
            Event::MakeFolder(aside.join("vae")),
            Event::Create(file.clone()),
            Event::Write(file.clone()),
            Event::Sync(file),
            Event::Sync(aside.join("vae")),
        ];
        let place = Event::Exchange(aside.clone(), "/d/m".into());
        let mut half = made.to_vec();
        half.push(place.clone());
        assert_eq!(faults(&half).last(), Some(&true));
        let mut whole = made.to_vec();
        whole.extend([Event::Sync(aside), place]);
        assert_eq!(faults(&whole).last(), Some(&false));
    }
}
