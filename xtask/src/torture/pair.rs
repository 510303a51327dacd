//! Two writers into one place at once: each ends well or is refused, and what is there in the end is whole.

use super::sandbox::{Sandbox, Tree, Watch};
use super::tally::{Outcome, Tally, in_parallel};
use super::undisturbed::Undisturbed;
use super::whole::{difference, halves, timeless};
use anyhow::Result;
use std::time::Duration;

/// How much later the second begins, from try to try.
const STEP: Duration = Duration::from_millis(40);

/// Runs the command twice at once, `tries` times.
///
/// # Errors
/// When a command cannot be started.
pub fn torture(sandbox: &Sandbox, run: &Undisturbed, tries: u32, jobs: usize) -> Result<Tally> {
    let points: Vec<u32> = (0..tries).collect();
    let what = format!("{}, pair", run.name());
    in_parallel(&what, &points, jobs.div_ceil(2), |&number| {
        let scratch = sandbox.scratch(run.before.as_ref())?;
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| sandbox.run(&scratch, &run.args, Watch::Off));
            std::thread::sleep(STEP * number);
            let second = sandbox.run(&scratch, &run.args, Watch::Off);
            (first.join(), second)
        });
        let first = first.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        let both = [first, second?];
        let at = format!("the second {} ms later", (STEP * number).as_millis());
        let said = || {
            let last = |text: &str| text.lines().last().unwrap_or_default().to_owned();
            format!("{}; {}", last(&both[0].stderr), last(&both[1].stderr))
        };
        let left = scratch.out();
        let none = Tree::new();
        let before = run.before.as_ref().unwrap_or(&none);
        let one_ended = both.iter().any(|ended| ended.code == Some(0));
        let broken = match () {
            () if both.iter().any(|ended| !matches!(ended.code, Some(0 | 1))) => {
                Some(format!("neither success nor a refusal: {}", said()))
            }
            () if !halves(&left).is_empty() => Some("half a file".into()),
            () if one_ended => difference(&timeless(&left), &timeless(&run.after))
                .map(|name| format!("{} is neither's: {}", name.display(), said())),
            () if left != *before => Some(format!("both failed: {}", said())),
            () => Some(format!("neither did it: {}", said())),
        };
        let broken = broken.or_else(|| {
            let left = scratch.temporaries();
            left.first()
                .map(|left| format!("{} is left", left.display()))
        });
        Ok(match broken {
            Some(broken) => Outcome::Broken(format!("{at}: {broken}")),
            None => Outcome::Held,
        })
    })
}
