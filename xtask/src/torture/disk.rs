//! A full or failing disk at every operation: one line that names the file and the cause, and nothing half.

use super::sandbox::{Ended, Sandbox, Scratch, TEMPORARY, Tree, Watch};
use super::tally::{Outcome, Tally, in_parallel};
use super::trace::{Event, Op, message_is_whole, operations};
use super::undisturbed::Undisturbed;
use super::whole::{difference, halves, timeless};
use anyhow::Result;
use std::path::Path;

/// What the disk says, and the words of the system for it.
const ERRORS: [(&str, &str); 2] = [
    ("ENOSPC", "No space left on device"),
    ("EIO", "Input/output error"),
];

/// Fails each operation that writes, opens for writing, syncs or renames, `every` of them, with each error.
///
/// # Errors
/// When a command cannot be started.
pub fn torture(sandbox: &Sandbox, run: &Undisturbed, every: usize, jobs: usize) -> Result<Tally> {
    let may_fail = |op: &&Op| {
        !matches!(
            op.event,
            Event::Lock(_) | Event::Unlink(_) | Event::RemoveFolder(_)
        )
    };
    let ops = run.ops.iter().filter(may_fail).step_by(every);
    let points: Vec<_> = ops.flat_map(|op| ERRORS.map(|error| (op, error))).collect();
    in_parallel(
        &format!("{}, disk", run.name()),
        &points,
        jobs,
        |(op, (error, words))| {
            let scratch = sandbox.scratch(run.before.as_ref())?;
            let inject = format!("{}:error={error}:when={}", op.call, op.nth);
            let ended = sandbox.run(&scratch, &run.args, Watch::Fail(&inject))?;
            let hit = operations(&ended.log, &scratch.path)
                .into_iter()
                .find(|op| op.injected);
            let Some(hit) = hit else {
                // Another thread was faster this time, and what failed was no file of this command.
                return Ok(Outcome::Missed);
            };
            let name = hit.event.path().strip_prefix(&scratch.path);
            let at = format!(
                "{error} at {} of {}",
                hit.call,
                name.unwrap_or(hit.event.path()).display()
            );
            let broken = match (ended.code, ended.signal) {
                (Some(0), _) => after_success(run, &scratch, &ended.stderr, words),
                (Some(1), _) => {
                    let said = said_wrong(&ended, words);
                    said.or_else(|| after_failure(run, &scratch))
                }
                (code, signal) => Some(format!("ended with {code:?}, signal {signal:?}")),
            };
            Ok(match broken {
                Some(broken) => Outcome::Broken(format!("{at}: {broken}")),
                None => Outcome::Held,
            })
        },
    )
}

/// What is wrong with success: all is there, but for what a command can do without and says that it lacks.
fn after_success(
    run: &Undisturbed,
    scratch: &Scratch,
    stderr: &str,
    words: &str,
) -> Option<String> {
    let warnings = stderr.lines().filter(|line| line.starts_with("warning:"));
    let warnings: Vec<_> = warnings.filter(|line| line.contains(words)).collect();
    let said = |name: &Path| {
        let name = Path::new("out").join(name).display().to_string();
        warnings.iter().any(|line| line.contains(&name))
    };
    let [mut left, mut expected] = [scratch.out(), run.after.clone()].map(|tree| timeless(&tree));
    for tree in [&mut left, &mut expected] {
        tree.retain(|name, _| !said(name));
    }
    let name = difference(&left, &expected)?;
    Some(format!("exit 0, and {} is another", name.display()))
}

/// What is wrong with the message, if it could be written: a call fails in every thread that comes so far, and the
/// message's own write may be among them.
fn said_wrong(ended: &Ended, words: &str) -> Option<String> {
    if !message_is_whole(&ended.log) {
        return None;
    }
    let stderr = &ended.stderr;
    let errors: Vec<_> = stderr
        .lines()
        .filter(|line| line.starts_with("error:"))
        .collect();
    let [line] = errors[..] else {
        return Some(format!("{} lines of errors: {stderr}", errors.len()));
    };
    if line.matches(words).count() != 1 {
        return Some(format!("the cause is not said once: {line}"));
    }
    if stderr.contains(TEMPORARY) || !line.contains("out") {
        return Some(format!("the file is not named as it will be: {line}"));
    }
    None
}

fn after_failure(run: &Undisturbed, scratch: &Scratch) -> Option<String> {
    let left = scratch.out();
    if let Some(half) = halves(&left).first() {
        return Some(format!("{} is half a file", half.display()));
    }
    let none = Tree::new();
    let before = run.before.as_ref().unwrap_or(&none);
    if run.case.is_one && left != run.after && left != *before {
        return Some("a mixture of old and new".into());
    }
    let temporary = scratch.temporaries();
    let left = temporary.first()?;
    Some(format!("{} is left", left.display()))
}
