//! `cargo xtask demo`: data → VAE → calibration → generator → judge → measurements → pictures → report.

use crate::recipe::{Recipe, Step};
use crate::report::{Done, Report};
use crate::{data, install, workspace};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use xshell::Shell;

/// The whole pipeline on Fashion-MNIST.
#[derive(Debug, Args)]
pub struct Demo {
    /// Minutes instead of hours, on a part of the data; made-up data if there is none.
    #[arg(long)]
    quick: bool,
    /// A folder of Fashion-MNIST's four IDX files; that of Debian's package unless given.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where everything goes; target/demo or target/demo-quick of the workspace unless given.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Keep the steps that are done, and go on with the one that is not.
    #[arg(long)]
    resume: bool,
    /// Make the finished model the one that is built into the program.
    #[arg(long, conflicts_with = "quick")]
    install: bool,
}

impl Demo {
    /// Runs the pipeline and prints where the report is.
    ///
    /// # Errors
    /// When there is no data, or a command fails.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let (recipe, folder) = match self.quick {
            true => (Recipe::quick(), "target/demo-quick"),
            false => (Recipe::full(), "target/demo"),
        };
        let out = self
            .output
            .unwrap_or_else(|| workspace::root().join(folder));
        let out = std::path::absolute(out)?;
        if !self.resume && !workspace::list(&out).is_empty() {
            bail!(
                "{} is not empty\n  hint: --resume goes on with what is there",
                out.display()
            );
        }
        fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
        let data = data::prepare(sh, &recipe, self.data.as_deref(), &out)?;
        eprintln!("data: {}", data.description);

        eprintln!("building tessera");
        let program = workspace::build_tessera(sh)?;
        let mut done = Vec::new();
        for step in recipe.training(&out, &data.folder, &data.classes) {
            done.push(run(sh, &program, step, &out)?);
        }
        install::add_judge(&out)?;
        for step in recipe.measuring(&out, &data.folder, &data.classes) {
            done.push(run(sh, &program, step, &out)?);
        }
        let report = Report {
            recipe,
            data: &data,
            out: &out,
            done: &done,
        };
        println!("{}", report.write()?.display());
        if self.install {
            install::install(&out)?;
        }
        Ok(())
    }
}

/// Runs a step unless what it makes is there.
fn run(sh: &Shell, program: &Path, step: Step, out: &Path) -> Result<Done> {
    let line = step.line(out);
    if step.product.exists() {
        eprintln!("done before: {line}");
        return Ok(Done {
            step,
            seconds: None,
        });
    }
    eprintln!("$ {line}");
    let started = Instant::now();
    let command = sh.cmd(program).args(&step.args).args(step.entry()).quiet();
    match &step.printed {
        Some(file) => workspace::write(file, format!("{}\n", command.read()?).as_bytes())?,
        // Where its files are is in the report.
        None => command.ignore_stdout().run()?,
    }
    if !step.product.exists() {
        bail!(
            "`{line}` succeeded without writing {}",
            step.product.display()
        );
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("  {seconds:.1} s");
    Ok(Done {
        step,
        seconds: Some(seconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(folder: &Path) -> Step {
        let product = folder.join("product");
        Step {
            args: vec![
                "-c".into(),
                format!("echo told > {0}; echo told", product.display()),
            ],
            printed: Some(folder.join("printed")),
            folder: None,
            product,
        }
    }

    #[test]
    fn a_step_runs_once_and_what_it_prints_is_kept() {
        let sh = Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        let shell = Path::new("sh");
        let first = run(&sh, shell, step(folder.path()), folder.path()).unwrap();
        assert!(first.seconds.is_some());
        assert_eq!(
            sh.read_file(folder.path().join("printed")).unwrap(),
            "told\n"
        );
        let second = run(&sh, shell, step(folder.path()), folder.path()).unwrap();
        assert!(second.seconds.is_none());
    }

    #[test]
    fn a_command_that_fails_or_leaves_nothing_stops_the_pipeline() {
        let sh = Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        for script in ["exit 3", "true"] {
            let args = vec!["-c".into(), script.into()];
            let broken = Step {
                args,
                ..step(folder.path())
            };
            assert!(
                run(&sh, Path::new("sh"), broken, folder.path()).is_err(),
                "{script}"
            );
        }
    }
}
