//! SIGKILL at every operation on files: what is left is whole, and the same command ends as if nothing had been.

use super::sandbox::{Sandbox, Scratch, Watch};
use super::tally::{Outcome, Tally, in_parallel};
use super::undisturbed::Undisturbed;
use super::whole::{difference, halves, timeless};
use anyhow::Result;

/// The signal.
const KILL: i32 = 9;

/// Kills the command at each of its operations, `every` of them.
///
/// # Errors
/// When a command cannot be started.
pub fn torture(sandbox: &Sandbox, run: &Undisturbed, every: usize, jobs: usize) -> Result<Tally> {
    let points: Vec<_> = run.ops.iter().step_by(every).collect();
    in_parallel(&format!("{}, kill", run.name()), &points, jobs, |op| {
        let at = format!("killed at {} of {}", op.call, shown(op.event.path()));
        let scratch = sandbox.scratch(run.before.as_ref())?;
        let inject = format!("{}:signal=KILL:when={}", op.call, op.nth);
        let killed = sandbox.run(&scratch, &run.args, Watch::Signal(&inject))?;
        if killed.signal != Some(KILL) && killed.code != Some(128 + KILL) {
            // Another thread was faster this time, and the call was never reached.
            return Ok(Outcome::Missed);
        }
        Ok(match fault(sandbox, run, &scratch)? {
            Some(fault) => Outcome::Broken(format!("{at}: {fault}")),
            None => Outcome::Held,
        })
    })
}

/// The end of a path, which tells the files of a run apart.
fn shown(path: &std::path::Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts[parts.len().saturating_sub(2)..].join("/")
}

/// What is wrong after a kill, if anything.
fn fault(sandbox: &Sandbox, run: &Undisturbed, scratch: &Scratch) -> Result<Option<String>> {
    let left = scratch.out();
    if let Some(half) = halves(&left).first() {
        return Ok(Some(format!("{} is half a file", half.display())));
    }
    let none = super::sandbox::Tree::new();
    let before = run.before.as_ref().unwrap_or(&none);
    if run.case.is_one && left != run.after && left != *before {
        let name = difference(&left, before).unwrap_or_default();
        return Ok(Some(format!(
            "a mixture of old and new: {}",
            name.display()
        )));
    }
    let ended = sandbox.run(scratch, &run.args, Watch::Off)?;
    let mut said = vec![ended.stderr];
    if ended.code != Some(0) {
        let next = match run.case.resumes {
            true => format!("{} --resume latest", run.case.args),
            false => format!("{} --overwrite", run.case.args),
        };
        // Results that are whole stay until they may be replaced; anything else must not be in the way.
        if left.is_empty() {
            return Ok(Some(format!(
                "refused with nothing there: {}",
                last(&said[0])
            )));
        }
        let again = sandbox.run(scratch, &next, Watch::Off)?;
        said.push(again.stderr);
        if again.code != Some(0) {
            return Ok(Some(format!(
                "neither again nor on: {}; {}",
                last(&said[0]),
                last(&said[1])
            )));
        }
    }
    if let Some(name) = difference(&timeless(&scratch.out()), &timeless(&run.after)) {
        return Ok(Some(format!("{} differs in the end", name.display())));
    }
    Ok(scratch
        .temporaries()
        .first()
        .map(|left| format!("{} is left", left.display())))
}

/// The last line of what was said.
fn last(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}
