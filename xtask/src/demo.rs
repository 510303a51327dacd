//! `cargo xtask demo`: data → VAE → calibration → generator → judge → measurements → pictures → report.

use crate::recipe::Recipe;
use crate::report::Report;
use crate::step::run;
use crate::{data, install, workspace};
use anyhow::{Result, bail};
use clap::Args;
use std::path::PathBuf;
use xshell::Shell;

/// Train and measure a model on Fashion-MNIST: from data to a report with pictures.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask demo --quick\n  cargo xtask demo --data fashion-mnist/ -o runs/demo\n  \
                  cargo xtask demo --resume --install"
)]
pub struct Demo {
    /// Take minutes instead of hours: train briefly on a part of the data, or on generated shapes if there is none.
    #[arg(long)]
    quick: bool,
    /// A folder with the four IDX files of Fashion-MNIST [default: that of Debian's package].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Output folder [default: target/demo or target/demo-quick of the workspace].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Continue: keep the steps that are done.
    #[arg(long)]
    resume: bool,
    /// Copy the trained model to models/fashion, which is built into the program.
    #[arg(long, conflicts_with = "quick")]
    install: bool,
}

impl Demo {
    /// Runs the pipeline and prints the path of the report.
    ///
    /// # Errors
    /// If there is no data, or a command fails.
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
                "{} is not empty\n  hint: --resume continues what is there",
                out.display()
            );
        }
        workspace::create_folder(&out)?;
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
