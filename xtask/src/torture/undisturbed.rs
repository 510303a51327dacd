//! A command as it ends when nobody disturbs it: its results and its operations.

use super::cases::Case;
use super::sandbox::{Sandbox, Tree, Watch};
use super::trace::{Op, operations};
use super::whole::{difference, timeless};
use anyhow::{Result, bail};
use std::path::PathBuf;

/// What a command does, into an empty place or over what another one wrote.
#[derive(Debug)]
pub struct Undisturbed {
    /// The command.
    pub case: Case,
    /// Its arguments, `--overwrite` among them if it replaces something.
    pub args: String,
    /// What was there before.
    pub before: Option<Tree>,
    /// What is there in the end.
    pub after: Tree,
    /// What it did to files.
    pub ops: Vec<Op>,
    /// The folder in which it did that, which is no more.
    pub root: PathBuf,
}

impl Undisturbed {
    /// Runs the command twice, the second time listing its operations.
    ///
    /// # Errors
    /// When it fails, or leaves other bytes the second time.
    pub fn of(sandbox: &Sandbox, case: Case, replaces: bool) -> Result<Self> {
        let before = match replaces {
            true => Some(run(sandbox, &case.before(), None, Watch::Off)?.0),
            false => None,
        };
        let args = match replaces {
            true => format!("{} --overwrite", case.args),
            false => case.args.to_owned(),
        };
        let (after, ..) = run(sandbox, &args, before.as_ref(), Watch::Off)?;
        let (again, ops, root) = run(sandbox, &args, before.as_ref(), Watch::List)?;
        if let Some(name) = difference(&timeless(&after), &timeless(&again)) {
            bail!(
                "tessera {args}: {} differs between two runs",
                name.display()
            );
        }
        if ops.is_empty() {
            bail!("tessera {args}: strace saw nothing written");
        }
        Ok(Self {
            case,
            args,
            before,
            after: again,
            ops,
            root,
        })
    }

    /// What it is called in the table.
    pub fn name(&self) -> String {
        match self.before {
            Some(_) => format!("{} over another", self.case.name),
            None => self.case.name.to_owned(),
        }
    }
}

fn run(
    sandbox: &Sandbox,
    args: &str,
    before: Option<&Tree>,
    watch: Watch<'_>,
) -> Result<(Tree, Vec<Op>, PathBuf)> {
    let scratch = sandbox.scratch(before)?;
    let ended = sandbox.run(&scratch, args, watch)?;
    if ended.code != Some(0) {
        bail!("tessera {args}\n{}", ended.stderr);
    }
    let ops = operations(&ended.log, &scratch.path);
    Ok((scratch.out(), ops, scratch.path.clone()))
}
