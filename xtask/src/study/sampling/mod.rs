//! `cargo xtask study sampling`: what cheaper sampling costs in quality, and what it saves.

mod report;
mod settings;

use crate::step::{Step, run};
use crate::workspace;
use anyhow::{Context, Result, ensure};
use clap::Args;
use report::{Figures, Report};
use serde_json::Value;
use settings::{Setting, settings};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use xshell::Shell;

/// Measure what steps, order, cache, guidance and temperature cost in distance and agreement, and save in time.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask study sampling --quick --data fashion-mnist -m models/fashion\n  \
    cargo xtask study sampling --data clothing/ -m models/clothing -n 100 -o runs/sampling"
)]
pub struct Sampling {
    /// Take minutes instead of hours: a test of the pipeline, not of the settings.
    #[arg(long)]
    quick: bool,
    /// The real pictures, as `tessera eval` takes them.
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// The model [default: the built-in one].
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Pictures of each class in a run.
    #[arg(short, long, default_value_t = 500, value_name = "N")]
    num_images: usize,
    /// Numbers of steps; the largest, with nothing reused, is what others are compared with.
    #[arg(
        long,
        default_value = "8,16,32,64",
        value_name = "N,N",
        value_delimiter = ','
    )]
    steps: Vec<usize>,
    /// Runs of each setting, each with other pictures.
    #[arg(long, default_value_t = 3, value_name = "N")]
    seeds: u64,
    /// Output folder, where finished runs are kept [default: target/study-sampling of the workspace].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The program `tessera` [default: built from the workspace].
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
}

impl Sampling {
    /// Evaluates every setting with every seed, and prints the path of the report.
    ///
    /// # Errors
    /// If a command fails or prints no figures.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let (images, seeds, steps) = match self.quick {
            true => (10, 2, vec![2, 4]),
            false => (self.num_images, self.seeds, self.steps.clone()),
        };
        ensure!(
            images > 0 && seeds > 0,
            "a run has pictures, and a setting has a run"
        );
        ensure!(
            !steps.is_empty() && steps.iter().all(|&steps| steps > 0),
            "--steps: expected numbers from 1 on"
        );
        let default = match self.quick {
            true => "target/study-sampling-quick",
            false => "target/study-sampling",
        };
        let out = self.output.clone();
        let out = out.unwrap_or_else(|| workspace::root().join(default));
        let out = std::path::absolute(out)?;
        let results = out.join("results");
        workspace::create_folder(&results)?;
        let program = match &self.program {
            Some(program) => std::path::absolute(program)?,
            None => {
                eprintln!("building tessera");
                workspace::build_tessera(sh)?
            }
        };
        let settings = settings(&steps);
        let subject = self.subject(images, seeds);
        let mut runs: BTreeMap<String, Vec<Figures>> = BTreeMap::new();
        // Seed by seed: an unfinished study has all settings.
        for seed in 0..seeds {
            for setting in &settings {
                let step = self.step(setting, seed, images, &results);
                let file = step.product.clone();
                run(sh, &program, step, &out)?;
                let figures = figures(&file)?;
                runs.entry(setting.name.clone()).or_default().push(figures);
            }
            let report = Report {
                subject: &subject,
                settings: &settings,
                steps: &steps,
                runs: &runs,
            };
            report.write(&out)?;
        }
        println!("{}", out.join("report.md").display());
        Ok(())
    }

    /// A run of `tessera eval`. Picture i of a seed is drawn from seed · 1,000,000 + i, as in every setting.
    fn step(&self, setting: &Setting, seed: u64, images: usize, results: &Path) -> Step {
        let file = results.join(format!("{}-images-{images}-seed-{seed}.json", setting.name));
        let step = Step::new("eval --json", file.clone())
            .words(&setting.options)
            .words(&format!("-n {images} --seed {}", 1_000_000 * seed))
            .flag("--data", &self.data);
        let step = match &self.model {
            Some(model) => step.flag("-m", model),
            None => step,
        };
        step.printing_to(file)
    }

    fn subject(&self, images: usize, seeds: u64) -> String {
        let model = match &self.model {
            Some(model) => model
                .file_name()
                .unwrap_or(model.as_os_str())
                .to_string_lossy()
                .into_owned(),
            None => "the built-in model".into(),
        };
        let data = self
            .data
            .file_name()
            .unwrap_or(self.data.as_os_str())
            .to_string_lossy();
        format!(
            "Of {model}: {images} pictures of each class, {seeds} seeds, against {data}. The distance is in the \
            judge's features, not FID.\nTimes are of whole evaluations, in batches, on"
        )
    }
}

/// The figures that `tessera eval` printed.
fn figures(file: &Path) -> Result<Figures> {
    let printed: Value = serde_json::from_str(&workspace::read_text(file)?)
        .with_context(|| format!("{}: not what `tessera eval --json` prints", file.display()))?;
    let number = |pointer: &str| {
        let value = printed.pointer(pointer).and_then(Value::as_f64);
        value.with_context(|| format!("{}: no {pointer}", file.display()))
    };
    Ok(Figures {
        seconds: 1.0 / number("/images_per_second")?,
        distance: number("/frechet/distance")?,
        agreement: number("/agreement/accuracy")?,
    })
}
