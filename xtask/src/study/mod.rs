//! `cargo xtask study`: a paper's comparisons, made again at a small scale.

mod chart;
mod pictures;
mod report;
mod results;
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
use settings::{Folders, Sizes};
use std::fs;
use std::path::PathBuf;
use variants::{VARIANTS, Variant};
use xshell::Shell;

/// A paper's comparisons at a small scale.
#[derive(Debug, Subcommand)]
pub enum Study {
    ExpertRace(Box<ExpertRace>),
}

/// Routing rules, gates and losses of Expert Race (arXiv 2503.16057) beside each other: tables 1, 2 and 3 with small
/// models.
#[derive(Debug, Args)]
pub struct ExpertRace {
    /// Minutes instead of hours: shows that everything works together, not what is better.
    #[arg(long)]
    quick: bool,
    /// A folder of train/ and test/, each with a folder of pictures per class; made-up pictures unless given.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Train on the latents of this tokenizer instead of pixels.
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    #[command(flatten)]
    sizes: Sizes,
    /// Where everything goes; target/study-expert-race of the workspace unless given. What is done there is kept.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The program that is run; built first unless given.
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
}

impl ExpertRace {
    /// Trains, draws and judges every variant with every seed, and prints where the report is.
    ///
    /// # Errors
    /// When there is no data, or a command fails.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let settings = self.sizes.over(self.quick)?;
        let folder = match self.quick {
            true => "target/study-expert-race-quick",
            false => "target/study-expert-race",
        };
        let out = self
            .output
            .unwrap_or_else(|| workspace::root().join(folder));
        let out = std::path::absolute(out)?;
        for name in ["runs", "pictures", "measured", "results"] {
            let folder = out.join(name);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let data = self.data.map(std::path::absolute).transpose()?;
        let vae = self.vae.map(std::path::absolute).transpose()?;
        let told = format!("{settings:?} --data {data:?} --vae {vae:?}\n");
        let settled = out.join("settings.txt");
        match fs::read_to_string(&settled) {
            Ok(before) if before != told => bail!(
                "{} holds a study with other settings\n  hint: give the same, or another -o\n  there: {before}  now:   \
                    {told}",
                out.display()
            ),
            Ok(_) => {}
            Err(_) => workspace::write(&settled, told.as_bytes())?,
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
        // The seeds one after the other: whatever is there has all variants.
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
