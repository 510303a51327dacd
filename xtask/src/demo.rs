//! `cargo xtask demo`: data → VAE → calibration → generator → judge → measurements → pictures → report.

use crate::recipe::Recipe;
use crate::report::Report;
use crate::step::run;
use crate::{data, install, workspace};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::path::PathBuf;
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
