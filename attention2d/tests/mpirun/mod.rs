//! `mpirun` with a time limit, after which none of its processes is left.
#![allow(dead_code)] // Each test program uses a part of it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The result of a job.
#[derive(Debug)]
pub struct Job {
    /// The exit code; `None` if a signal or the time limit ended it.
    pub code: Option<i32>,
    /// The output of all ranks.
    pub stdout: String,
    /// The errors of all ranks and `mpirun`.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
    /// Whether the time limit ended it.
    pub late: bool,
}

/// Runs `mpirun` with these arguments, one job at a time, as waiting ranks keep their processor busy.
///
/// # Panics
/// When there is no `mpirun`.
pub fn mpirun<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    environment: &[(&str, &str)],
    limit: Duration,
) -> Job {
    mpirun_while(arguments, environment, limit, |_| ())
}

/// [`mpirun`], calling `meanwhile` with its process id once it has started.
///
/// # Panics
/// As [`mpirun`].
pub fn mpirun_while<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    environment: &[(&str, &str)],
    limit: Duration,
    meanwhile: impl FnOnce(u32),
) -> Job {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new("mpirun");
    command
        .args(arguments)
        // Test machines may run as root and with more ranks than processors.
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let started = Instant::now();
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("mpirun cannot be started: {error}"));
    let id = child.id();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    meanwhile(id);
    let (output, late) = match end.recv_timeout(limit) {
        Ok(output) => (output, false),
        Err(_) => {
            kill(id);
            (end.recv().expect("the thread sends once"), true)
        }
    };
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("the output of mpirun is read");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Job {
        code: status.code(),
        stdout: text(&stdout),
        stderr: text(&stderr),
        took: started.elapsed(),
        late,
    }
}

/// Processes by their parent.
fn families() -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name before may contain blanks and brackets.
        let after = stat.rsplit(')').next().unwrap_or_default();
        let parent = after.split_whitespace().nth(1);
        if let Some(parent) = parent.and_then(|parent| parent.parse().ok()) {
            children.entry(parent).or_default().push(child);
        }
    }
    children
}

/// The children of a process; those of `mpirun` are the ranks in order.
pub fn children(id: u32) -> Vec<u32> {
    let mut ranks = families().remove(&id).unwrap_or_default();
    ranks.sort_unstable();
    ranks
}

/// Ends a process at once.
pub fn kill_now(id: u32) {
    let _ = Command::new("kill")
        .args(["-KILL", &id.to_string()])
        .status();
}

/// Ends a process and its descendants.
fn kill(id: u32) {
    let mut children = families();
    let mut all = vec![id];
    let mut next = 0;
    while let Some(parent) = all.get(next) {
        all.extend(children.remove(parent).unwrap_or_default());
        next += 1;
    }
    let all = all.iter().map(u32::to_string);
    let _ = Command::new("kill").arg("-KILL").args(all).status();
}
