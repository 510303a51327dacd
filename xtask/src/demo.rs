//! `cargo xtask demo`: data → VAE → calibration → generator → judge → measurements → pictures → report.

use crate::recipe::{Clothing, Fashion, Recipe, clothing};
use crate::report::Report;
use crate::step::{Done, Step, run};
use crate::{data, install, recipe, workspace};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use xshell::Shell;

/// Train and measure a model: from data to a report with pictures.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask demo --quick\n  \
                  cargo xtask demo --data clothing-dataset-small/ --vae taef2/ \
                  --features efficientnet_lite0.safetensors -o runs/clothing\n  \
                  cargo xtask demo --recipe fashion --data fashion-mnist/ -o runs/fashion")]
pub struct Demo {
    /// What is trained on what; clothing, or with --quick fashion, unless given.
    #[arg(long, value_enum, value_name = "NAME")]
    recipe: Option<Name>,
    /// Take minutes instead of hours: train briefly on a part of the data, or on generated shapes if there is none.
    #[arg(long)]
    quick: bool,
    /// A folder with the four IDX files of Fashion-MNIST [default: that of Debian's package]; of clothing,
    /// clothing-dataset-small, or any folder with train/, validation/ and test/.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// TAEF2, the folder of its two halves; for clothing.
    #[arg(long, value_name = "DIR")]
    vae: Option<PathBuf>,
    /// Weights of EfficientNet-Lite0, in whose features distances are measured; for clothing.
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,
    /// Output folder [default: target/demo or target/demo-quick of the workspace].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Continue: keep the steps that are done.
    #[arg(long)]
    resume: bool,
    /// Copy the trained model to models/ of the workspace; that of clothing is built into the program.
    #[arg(long, conflicts_with = "quick")]
    install: bool,
}

const NEEDS: &str = "the recipe clothing needs --data, --vae and --features";

/// The recipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Gray pictures of 28 px, a tokenizer and a generator.
    Fashion,
    /// Photographs at 64 px in the latents of TAEF2: a generator, and a diffusion transformer beside it.
    Clothing,
}

impl Demo {
    /// Runs the pipeline and prints the path of the report.
    ///
    /// # Errors
    /// If there is no data, or a command fails.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let (recipe, folder) = match (self.recipe, self.quick) {
            (None | Some(Name::Fashion), true) => {
                (Recipe::Fashion(Fashion::quick()), "target/demo-quick")
            }
            (Some(Name::Fashion), false) => {
                (Recipe::Fashion(Fashion::full()), "target/demo-fashion")
            }
            (Some(Name::Clothing), true) => bail!("--quick is of the recipe fashion"),
            (None | Some(Name::Clothing), false) => {
                let (Some(vae), Some(features)) = (&self.vae, &self.features) else {
                    bail!(NEEDS);
                };
                let clothing = Clothing {
                    vae: std::path::absolute(vae)?,
                    features: std::path::absolute(features)?,
                };
                (Recipe::Clothing(clothing), "target/demo")
            }
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
        let (data, validation) = match (&recipe, self.data.as_deref()) {
            (Recipe::Fashion(fashion), given) => (data::prepare(sh, fashion, given, &out)?, None),
            (Recipe::Clothing(_), None) => bail!(NEEDS),
            (Recipe::Clothing(_), Some(folder)) => {
                let (data, validation) =
                    data::photographs(sh, &std::path::absolute(folder)?, &out)?;
                (data, Some(validation))
            }
        };
        eprintln!("data: {}", data.description);

        eprintln!("building tessera");
        let program = workspace::build_tessera(sh)?;
        let run_all = |steps: Vec<Step>| -> Result<Vec<Done>> {
            let done = steps.into_iter().map(|step| run(sh, &program, step, &out));
            done.collect()
        };
        let training = || recipe.training(&out, &data.folder, &data.classes);
        let mut done = run_all(training())?;
        install::add_judge(&out)?;
        if let (Recipe::Clothing(recipe), Some(validation)) = (&recipe, &validation) {
            let trials = recipe.trials(&out, validation);
            let steps = trials.iter().map(|(_, step)| step.clone());
            done.extend(run_all(steps.collect())?);
            if clothing::chosen(&out).is_err() {
                let setting = clothing::choose(&out, &trials)?;
                eprintln!("chosen: {setting:?}");
                // Written again, with these settings.
                workspace::remove(&recipe::weights(&recipe::model(&out)))?;
            }
        }
        run_all(training())?;
        let measuring = recipe.measuring(&out, &data.folder, &data.classes);
        done.extend(run_all(measuring)?);
        let report = |done: &[Done]| {
            let (recipe, data, out) = (&recipe, &data, &*out);
            Report {
                recipe,
                data,
                out,
                done,
            }
            .write()
        };
        let mut written = report(&done)?;
        if self.install {
            install::install(&out, recipe.name())?;
        }
        if let Recipe::Clothing(recipe) = &recipe {
            // The longest part, and of no use to the model: last.
            eprintln!("so far: {}", written.display());
            done.extend(run_all(recipe.comparison(&out, &data.folder))?);
            written = report(&done)?;
        }
        println!("{}", written.display());
        Ok(())
    }
}
