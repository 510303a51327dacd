//! Where the program runs: a scratch folder per run, limits, and what it says in the end.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the names of unfinished files begin with.
pub const TEMPORARY: &str = ".tessera-tmp-";
/// The system calls that change files, and the one that opens them.
pub const CALLS: &str = "openat,write,pwrite64,writev,copy_file_range,fsync,fdatasync,rename,renameat,renameat2,unlink,\
    unlinkat,mkdir,mkdirat,rmdir,link,linkat,ftruncate,flock";
/// How long a command may take, in seconds.
const PATIENCE: &str = "120";

/// Relative paths and contents of the files below a folder.
pub type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// The program, what it reads, and where it runs.
#[derive(Debug)]
pub struct Sandbox {
    /// The program.
    pub program: PathBuf,
    /// Has `in/`, which every command reads and none writes.
    pub base: PathBuf,
    next: AtomicUsize,
}

/// A folder to run commands in, removed when dropped. It has `in`, a link, and in the end `out`.
#[derive(Debug)]
pub struct Scratch {
    /// Where it is.
    pub path: PathBuf,
    /// Of it alone, for the file of the system calls.
    log: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, if no signal ended it.
    pub code: Option<i32>,
    /// The signal.
    pub signal: Option<i32>,
    /// All that it wrote on stderr.
    pub stderr: String,
    /// The system calls, if they were asked for.
    pub log: String,
}

/// Whether and how the system calls of a command are watched.
#[derive(Debug, Clone, Copy)]
pub enum Watch<'a> {
    /// Not at all.
    Off,
    /// They are listed.
    List,
    /// Some of them end in an error, as strace's `inject` says.
    Fail(&'a str),
    /// At some of them a signal comes, as strace's `inject` says.
    Signal(&'a str),
}

impl Sandbox {
    /// Around a program and a folder of inputs.
    pub fn new(program: PathBuf, base: PathBuf) -> Self {
        Self {
            program,
            base,
            next: AtomicUsize::new(0),
        }
    }

    /// A new folder with the inputs, and with `out` as it was before if there was one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self, out: Option<&Tree>) -> Result<Scratch> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.base.join(format!("run-{number}"));
        let log = self.base.join(format!("run-{number}.strace"));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let scratch = Scratch { path, log };
        symlink(self.base.join("in"), scratch.path.join("in"))?;
        if let Some(tree) = out {
            plant(&scratch.path.join("out"), tree)?;
        }
        Ok(scratch)
    }

    /// Runs the program in a scratch folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, scratch: &Scratch, args: &str, watch: Watch<'_>) -> Result<Ended> {
        let inject = |what: &str| format!("inject={what}");
        let mut command = Command::new("timeout");
        command.arg(PATIENCE);
        if !matches!(watch, Watch::Off) {
            command
                .args(["strace", "-f", "-y", "-s", "0", "-qq", "-e"])
                .arg(format!("trace={CALLS}"))
                .arg("-o")
                .arg(&scratch.log);
        }
        match watch {
            Watch::Off => {}
            // Faster, but it delivers no signals.
            Watch::List => drop(command.arg("--seccomp-bpf")),
            Watch::Fail(what) => drop(command.args(["--seccomp-bpf", "-e", &inject(what)])),
            Watch::Signal(what) => drop(command.args(["-e", &inject(what)])),
        }
        let output = command
            .arg(&self.program)
            .args(args.split_whitespace())
            .current_dir(&scratch.path)
            .stdin(Stdio::null())
            .output()
            .context("cannot start `timeout`, of coreutils")?;
        let log = fs::read(&scratch.log).unwrap_or_default();
        Ok(Ended {
            code: output.status.code(),
            signal: output.status.signal(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            log: String::from_utf8_lossy(&log).into_owned(),
        })
    }
}

impl Scratch {
    /// What the results are now, hidden files left out.
    pub fn out(&self) -> Tree {
        tree(&self.path.join("out"))
    }

    /// The temporary files and folders that are left.
    pub fn temporaries(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.path, &mut |path, hidden| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if hidden && name.starts_with(TEMPORARY) {
                found.push(path.to_owned());
            }
        });
        found
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Another run does not see it; the whole folder is removed in the end.
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(&self.log);
    }
}

/// The files below a folder, hidden ones left out.
pub fn tree(folder: &Path) -> Tree {
    let mut found = Tree::new();
    walk(folder, &mut |path, hidden| {
        if let (false, Ok(name)) = (hidden, path.strip_prefix(folder))
            && let Ok(bytes) = fs::read(path)
        {
            found.insert(name.to_owned(), bytes);
        }
    });
    found
}

/// Writes a tree of files.
///
/// # Errors
/// When a file cannot be written.
pub fn plant(folder: &Path, tree: &Tree) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (name, bytes) in tree {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Every file below, and every hidden file and folder as what it is; links are not followed.
fn walk(folder: &Path, each: &mut dyn FnMut(&Path, bool)) {
    for path in crate::workspace::list(folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let hidden = name.starts_with('.');
        if path.is_dir() && !path.is_symlink() && !hidden {
            walk(&path, each);
        } else if hidden || path.is_file() {
            each(&path, hidden);
        }
    }
}

/// Refuses to begin without the tools that watch system calls.
///
/// # Errors
/// When strace is not installed or may not trace.
pub fn require_strace() -> Result<()> {
    let tried = Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-qq", "-e", "trace=none", "true"])
        .output()
        .context("strace is not installed; Debian has it as `apt-get install strace`")?;
    anyhow::ensure!(
        tried.status.success(),
        "strace may not trace here: {}",
        String::from_utf8_lossy(&tried.stderr).trim()
    );
    Ok(())
}
