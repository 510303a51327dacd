//! `cargo xtask study`: the comparisons of papers, repeated at a small scale.

mod chart;
mod pictures;
mod report;
mod results;
mod sampling;
mod settings;
mod statistics;
mod variants;

use crate::step::run;
use crate::workspace;
use anyhow::{Context, Result, bail};
use chart::Chart;
use clap::{Args, Subcommand};
use pictures::Pictures;
use report::Report;
use results::{Run, Sources};
use settings::{Folders, Scale, Sizes};
use std::fs;
use std::path::PathBuf;
use variants::{VARIANTS, Variant};
use xshell::Shell;

/// Repeat the comparisons of papers at a small scale.
#[derive(Debug, Subcommand)]
pub enum Study {
    ExpertRace(Box<ExpertRace>),
    Sampling(Box<sampling::Sampling>),
}

/// Compare routing rules, gates and losses of Expert Race (arXiv 2503.16057): tables 1 to 3 with small models.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask study expert-race --quick\n  \
    cargo xtask study expert-race --data cifar10/ --seeds 5 -o runs/study")]
pub struct ExpertRace {
    /// Take minutes instead of hours: a test of the pipeline, not of the models.
    #[arg(long)]
    quick: bool,
    /// A folder of train/ and test/, each with a folder of pictures per class [default: generated shapes].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Train on the latents of this tokenizer instead of pixels.
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    #[command(flatten)]
    sizes: Sizes,
    /// Output folder, where finished runs are kept [default: target/study-expert-race of the workspace].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The program `tessera` [default: built from the workspace].
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
}

impl ExpertRace {
    /// Trains, samples and evaluates every variant with every seed, and prints the path of the report.
    ///
    /// # Errors
    /// If there is no data, or a command fails.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let scale = match self.quick {
            true => Scale::Quick,
            false => Scale::Full,
        };
        let settings = self.sizes.settings(scale)?;
        let folder = match scale {
            Scale::Quick => "target/study-expert-race-quick",
            Scale::Full => "target/study-expert-race",
        };
        let out = self
            .output
            .unwrap_or_else(|| workspace::root().join(folder));
        let out = std::path::absolute(out)?;
        for name in ["runs", "pictures", "measured", "results"] {
            let folder = out.join(name);
            workspace::create_folder(&folder)?;
        }
        let data = self.data.map(std::path::absolute).transpose()?;
        let vae = self.vae.map(std::path::absolute).transpose()?;
        let description = format!("{settings:?} --data {data:?} --vae {vae:?}\n");
        let settled = out.join("settings.txt");
        match fs::read_to_string(&settled) {
            Ok(before) if before != description => bail!(
                "{} holds a study with other settings\n  hint: give the same, or another -o\n  there: {before}  now:   \
                    {description}",
                out.display()
            ),
            Ok(_) => {}
            Err(_) => workspace::write(&settled, description.as_bytes())?,
        }
        let pictures = Pictures::prepare(data.as_deref(), settings.train_images, &out)?;
        eprintln!("data: {}", pictures.description);
        let program = match self.program {
            Some(program) => std::path::absolute(program)?,
            None => {
                eprintln!("building tessera");
                workspace::build_tessera(sh)?
            }
        };
        let folders = Folders {
            out: &out,
            pictures: &pictures,
            vae: vae.as_deref(),
        };
        run(sh, &program, settings.judge(&folders), &out)?;
        let mut done = Vec::new();
        let mut path = out.join("report.md");
        // Seed by seed: an unfinished study has all variants.
        for seed in 0..settings.seeds {
            for variant in &VARIANTS {
                let file = folders.result(variant, seed);
                let known = Run::read(&file)?;
                let result = match known {
                    Some(result) => result,
                    None => {
                        eprintln!("{}, seed {seed}", variant.label);
                        let steps = settings.steps_of(&folders, variant, seed);
                        let mut seconds = Vec::new();
                        for step in steps {
                            seconds.push(run(sh, &program, step, &out)?.seconds);
                        }
                        let result = collect(&folders, variant, seed, seconds[0])?;
                        result.write(&file)?;
                        result
                    }
                };
                done.push(result);
            }
            let chart = out.join("curves.svg");
            Chart { runs: &done }.write(&chart)?;
            path = Report {
                settings: &settings,
                folders: &folders,
                runs: &done,
            }
            .write()?;
        }
        println!("{}", path.display());
        Ok(())
    }
}

fn collect(
    folders: &Folders<'_>,
    variant: &Variant,
    seed: u64,
    seconds: Option<f64>,
) -> Result<Run> {
    let route = folders.route(variant, seed);
    let sources = Sources {
        run: &folders.run(variant, seed),
        eval: &folders.eval(variant, seed),
        route: variant.routing.map(|_| &*route),
    };
    Run::collect(variant.key, seed, seconds, &sources)
        .with_context(|| format!("{}, seed {seed}", variant.label))
}
