//! What strace writes, as operations on files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What a system call does to files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file is made or emptied.
    Create(PathBuf),
    /// A file is opened for writing and kept as it is.
    Open(PathBuf),
    /// Bytes come into a file, or its length changes.
    Write(PathBuf),
    /// A file or folder is put on the disk.
    Sync(PathBuf),
    /// A name changes.
    Rename(PathBuf, PathBuf),
    /// Two names change places.
    Exchange(PathBuf, PathBuf),
    /// A file has a second name.
    Link(PathBuf, PathBuf),
    /// A name of a file goes.
    Unlink(PathBuf),
    /// A folder is made.
    MakeFolder(PathBuf),
    /// A folder goes.
    RemoveFolder(PathBuf),
    /// A file is locked.
    Lock(PathBuf),
}

impl Event {
    /// The path that it is about, the new one of two.
    pub fn path(&self) -> &Path {
        match self {
            Self::Create(path)
            | Self::Open(path)
            | Self::Write(path)
            | Self::Sync(path)
            | Self::Unlink(path)
            | Self::MakeFolder(path)
            | Self::RemoveFolder(path)
            | Self::Lock(path)
            | Self::Rename(_, path)
            | Self::Exchange(_, path)
            | Self::Link(_, path) => path,
        }
    }
}

/// A system call that changes files below the folder that was watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// The name of the call.
    pub call: String,
    /// Which call of this name it is in its thread, from 1, as strace counts.
    pub nth: usize,
    /// What it does.
    pub event: Event,
    /// Whether strace changed it.
    pub injected: bool,
}

/// A system call in a log of `strace -f -y`.
struct Call<'a> {
    name: &'a str,
    /// Which of this name it is in its thread, from 1.
    nth: usize,
    /// Arguments and result.
    text: String,
}

impl Call<'_> {
    fn is_injected(&self) -> bool {
        self.text.contains("(INJECTED)")
    }
}

/// The system calls of a log, in the order in which they begin.
fn calls(log: &str) -> Vec<Call<'_>> {
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut open: HashMap<&str, (usize, &str, &str)> = HashMap::new();
    let mut calls: Vec<Call<'_>> = Vec::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            if let (Some((at, ..)), Some((_, end))) =
                (open.remove(thread), resumed.split_once("resumed>"))
            {
                calls[at].text.push_str(end);
            }
            continue;
        }
        let Some((name, args)) = rest.split_once('(') else {
            continue;
        };
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let nth = counts.entry((thread, name)).or_default();
        *nth += 1;
        let nth = *nth;
        let text = match args.strip_suffix("<unfinished ...>") {
            Some(begun) => {
                open.insert(thread, (calls.len(), name, begun));
                begun.to_owned()
            }
            None => args.to_owned(),
        };
        calls.push(Call { name, nth, text });
    }
    calls
}

/// Whether no write to stderr was made to fail.
pub fn message_is_whole(log: &str) -> bool {
    let to_stderr = |call: &Call<'_>| call.name.contains("write") && call.text.starts_with("2<");
    !calls(log)
        .iter()
        .any(|call| call.is_injected() && to_stderr(call))
}

/// The operations in a log of `strace -f -y`, in their order, on files below `folder`, which is the working folder.
pub fn operations(log: &str, folder: &Path) -> Vec<Op> {
    calls(log)
        .into_iter()
        .filter_map(|call| {
            let injected = call.is_injected();
            let failed = call
                .text
                .rsplit_once(" = ")
                .is_some_and(|(_, end)| end.starts_with('-'));
            if failed && !injected {
                return None;
            }
            let event = event(call.name, &arguments(&call.text), folder)?;
            let inside = event.path().starts_with(folder)
                && event
                    .path()
                    .strip_prefix(folder)
                    .is_ok_and(|rest| !rest.starts_with("in"));
            inside.then(|| Op {
                call: call.name.to_owned(),
                nth: call.nth,
                event,
                injected,
            })
        })
        .collect()
}

/// The arguments of a call, separated by commas outside of strings and annotations.
fn arguments(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut depth, mut escaped) =
        (Vec::new(), 0, false, 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => depth += 1,
            '>' if !quoted && depth > 0 => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            ')' if !quoted && depth == 0 => {
                parts.push(text[start..at].trim());
                return parts;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn event(call: &str, args: &[&str], cwd: &Path) -> Option<Event> {
    let annotated = |at: usize| {
        let (_, path) = args.get(at)?.split_once('<')?;
        Some(PathBuf::from(
            path.trim_end_matches('>').trim_end_matches(" (deleted)"),
        ))
    };
    let named = |at: usize| Some(args.get(at)?.trim_matches('"'));
    let plain = |at: usize| Some(clean(&cwd.join(named(at)?)));
    let within = |folder: usize, at: usize| {
        Some(clean(
            &annotated(folder)
                .unwrap_or_else(|| cwd.to_owned())
                .join(named(at)?),
        ))
    };
    let has = |at: usize, flag: &str| args.get(at).is_some_and(|flags| flags.contains(flag));
    Some(match call {
        "openat" if has(2, "O_CREAT") && !has(2, "O_APPEND") && !has(2, "O_DIRECTORY") => {
            Event::Create(within(0, 1)?)
        }
        "openat" if has(2, "O_TRUNC") => Event::Create(within(0, 1)?),
        "openat" if has(2, "O_WRONLY") || has(2, "O_RDWR") => Event::Open(within(0, 1)?),
        "write" | "pwrite64" | "writev" | "ftruncate" => Event::Write(annotated(0)?),
        "copy_file_range" => Event::Write(annotated(2)?),
        "fsync" | "fdatasync" => Event::Sync(annotated(0)?),
        "flock" => Event::Lock(annotated(0)?),
        "rename" => Event::Rename(plain(0)?, plain(1)?),
        "renameat" => Event::Rename(within(0, 1)?, within(2, 3)?),
        "renameat2" if has(4, "RENAME_EXCHANGE") => Event::Exchange(within(0, 1)?, within(2, 3)?),
        "renameat2" => Event::Rename(within(0, 1)?, within(2, 3)?),
        "link" => Event::Link(plain(0)?, plain(1)?),
        "linkat" => Event::Link(within(0, 1)?, within(2, 3)?),
        "unlink" => Event::Unlink(plain(0)?),
        "unlinkat" if has(2, "AT_REMOVEDIR") => Event::RemoveFolder(within(0, 1)?),
        "unlinkat" => Event::Unlink(within(0, 1)?),
        "rmdir" => Event::RemoveFolder(plain(0)?),
        "mkdir" => Event::MakeFolder(plain(0)?),
        "mkdirat" => Event::MakeFolder(within(0, 1)?),
        _ => return None,
    })
}

/// Without `.` and the like.
fn clean(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| *part != std::path::Component::CurDir)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_becomes_operations() {
        let log = "\
            7  mkdir(\"out\", 0777)                 = 0\n\
            8  write(2<pipe:[1]>, \"\"..., 24 <unfinished ...>\n\
            7  openat(AT_FDCWD</d>, \"out/.t\", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0666) = 3</d/out/.t>\n\
            8  <... write resumed>) = 24\n\
            8  openat(AT_FDCWD</d>, \"in/x\", O_RDONLY) = 4</e/x>\n\
            7  write(3</d/out/.t>, \"\"..., 950)    = 950\n\
            7  write(3</d/out/.t>, \"\"..., 950)    = -1 ENOSPC (No space left on device) (INJECTED)\n\
            7  unlink(\"out/none\")                 = -1 ENOENT (No such file or directory)\n\
            7  renameat2(AT_FDCWD</d>, \"out/.t\", AT_FDCWD</d>, \"out/a, (b).png\", RENAME_NOREPLACE) = 0\n\
            7  +++ exited with 0 +++\n";
        let ops = operations(log, Path::new("/d"));
        let path = |name: &str| Path::new("/d/out").join(name);
        let events: Vec<_> = ops.iter().map(|op| op.event.clone()).collect();
        assert_eq!(
            events,
            [
                Event::MakeFolder("/d/out".into()),
                Event::Create(path(".t")),
                Event::Write(path(".t")),
                Event::Write(path(".t")),
                Event::Rename(path(".t"), path("a, (b).png")),
            ]
        );
        assert_eq!((ops[3].nth, ops[3].injected), (2, true));
        assert!(message_is_whole(log));
        let failed = "7  write(2<pipe:[1]>, \"\"..., 24 <unfinished ...>\n\
                      7  <... write resumed>) = -1 EIO (Input/output error) (INJECTED)\n";
        assert!(!message_is_whole(failed));
    }
}
