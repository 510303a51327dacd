//! `cargo xtask study sampling`: what cheaper sampling costs in quality, and what it saves.

mod report;
mod settings;

use crate::step::{Step, run};
use crate::workspace;
use anyhow::{Context, Result, ensure};
use clap::Args;
use report::{Figures, Report, Time};
use serde_json::Value;
use settings::{Grid, Setting};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use xshell::Shell;

/// Measure what steps, order, cache, guidance and temperature cost in distance and agreement, and save in time.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask study sampling --quick --data fashion-mnist -m models/fashion\n  \
    cargo xtask study sampling --data clothing/ -n 100 --features efficientnet_lite0.safetensors -o runs/sampling"
)]
pub struct Sampling {
    /// Take minutes instead of hours: a test of the pipeline, not of the settings.
    #[arg(long, conflicts_with_all = ["num_images", "Grid", "seeds"])]
    quick: bool,
    /// The real pictures, as `tessera eval` takes them.
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// The model, with its judge [default: the built-in one].
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Weights of EfficientNet-Lite0, in whose features distances are measured, to the pictures in DATA/test; in the
    /// judge's unless given.
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,
    /// Pictures of each class in a run.
    #[arg(short, long, default_value_t = 500, value_name = "N")]
    num_images: usize,
    #[command(flatten)]
    grid: Grid,
    /// Runs of each setting, each with other pictures.
    #[arg(long, default_value_t = 3, value_name = "N")]
    seeds: u64,
    /// Output folder, where finished runs are kept, with --features their pictures too [default:
    /// target/study-sampling of the workspace].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The program `tessera` [default: built from the workspace].
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
}

/// Runs of `tessera bench generate` whose median is a setting's time.
const REPEATS: usize = 5;

/// Where a study works, and with what.
struct Study {
    program: PathBuf,
    model: PathBuf,
    data: PathBuf,
    features: Option<Features>,
    images: usize,
    out: PathBuf,
}

/// What distances are measured with, beside the judge.
struct Features {
    weights: PathBuf,
    /// Pixels of a side of the model's pictures, as which real ones are seen.
    picture_size: u64,
}

impl Sampling {
    /// Evaluates every setting with every seed, and prints the path of the report.
    ///
    /// # Errors
    /// If a command fails or prints no figures.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let (images, seeds, grid) = match self.quick {
            true => (10, 2, Grid::quick()),
            false => (self.num_images, self.seeds, self.grid),
        };
        ensure!(
            images > 0 && seeds > 0,
            "a run has pictures, and a setting has a run"
        );
        grid.check()?;
        let default = match self.quick {
            true => "target/study-sampling-quick",
            false => "target/study-sampling",
        };
        let out = self.output;
        let out = out.unwrap_or_else(|| workspace::root().join(default));
        let builtin = || workspace::root().join("models/clothing");
        let model = self.model.unwrap_or_else(builtin);
        let features = self.features.map(|weights| {
            for needed in [self.data.join("test"), model.join("judge")] {
                ensure!(needed.is_dir(), "{}: expected a folder", needed.display());
            }
            let picture_size = Printed::open(&model.join("model.json"))?.number("/picture_size")?;
            Ok(Features {
                weights,
                picture_size: picture_size as u64,
            })
        });
        let features = features.transpose()?;
        let program = match &self.program {
            Some(program) => std::path::absolute(program)?,
            None => {
                eprintln!("building tessera");
                workspace::build_tessera(sh)?
            }
        };
        let study = Study {
            program,
            model,
            data: self.data,
            features,
            images,
            out: std::path::absolute(out)?,
        };
        study.begin()?;
        let settings = grid.settings();
        let subject = study.subject(seeds);
        // Nothing but the program runs between one time and the next.
        let mut times = BTreeMap::new();
        for setting in &settings {
            times.insert(setting.name.clone(), study.time(sh, setting)?);
        }
        let mut runs: BTreeMap<String, Vec<Figures>> = BTreeMap::new();
        // Seed by seed: an unfinished study has all settings.
        for seed in 0..seeds {
            for setting in &settings {
                let figures = study.figures(sh, setting, seed)?;
                runs.entry(setting.name.clone()).or_default().push(figures);
            }
            let report = Report {
                subject: &subject,
                settings: &settings,
                grid: &grid,
                model: &study.model,
                times: &times,
                runs: &runs,
            };
            report.write(&study.out)?;
        }
        println!("{}", study.out.join("report.md").display());
        Ok(())
    }
}

impl Study {
    /// Makes the folders. Figures of another model or data are not taken for this one's.
    fn begin(&self) -> Result<()> {
        for folder in ["results", "times"] {
            workspace::create_folder(&self.out.join(folder))?;
        }
        let absolute = |path: &Path| std::path::absolute(path);
        let features = self.features.as_ref();
        let features = features.map(|features| absolute(&features.weights));
        let subject = serde_json::json!({
            "model": absolute(&self.model)?,
            "data": absolute(&self.data)?,
            "features": features.transpose()?,
        });
        let file = self.out.join("study.json");
        if file.exists() {
            let found = Printed::open(&file)?.value;
            ensure!(
                found == subject,
                "{}: holds another study, {found}: give another -o",
                self.out.display()
            );
        }
        workspace::write(&file, format!("{subject:#}\n").as_bytes())
    }

    /// What a picture takes, drawn alone.
    fn time(&self, sh: &Shell, setting: &Setting) -> Result<Time> {
        let file = self.out.join(format!("times/{}.json", setting.name));
        let step = Step::new("bench generate --json", file.clone())
            .words(&setting.options)
            .words(&format!("--repeats {REPEATS}"))
            .flag("-m", &self.model)
            .printing_to(file);
        let printed = self.printed(sh, step)?;
        Ok(Time {
            seconds: printed.number("/seconds")?,
            gflop: (0..2)
                .map(|part| printed.number(&format!("/parts/{part}/gflop")))
                .sum::<Result<f64>>()?,
        })
    }

    /// The figures of a setting's pictures. Picture i of a seed is drawn from seed · 1,000,000 + i, as in every
    /// setting.
    fn figures(&self, sh: &Shell, setting: &Setting, seed: u64) -> Result<Figures> {
        let run = format!("{}-images-{}-seed-{seed}", setting.name, self.images);
        let file = |what: &str| self.out.join(format!("results/{run}{what}.json"));
        let options = |step: Step| {
            step.words(&setting.options)
                .words(&format!("-n {} --seed {}", self.images, 1_000_000 * seed))
                .flag("-m", &self.model)
        };
        let Some(features) = &self.features else {
            let step = options(Step::new("eval --json", file(""))).flag("--data", &self.data);
            let printed = self.printed(sh, step.printing_to(file("")))?;
            return Ok(Figures {
                distance: printed.number("/frechet/distance")?,
                agreement: printed.number("/agreement/accuracy")?,
            });
        };
        let pictures = self.out.join("pictures").join(&run);
        let drawing = options(Step::new("generate --json", file("-drawn"))).in_folder(&pictures);
        self.printed(sh, drawing.printing_to(file("-drawn")))?;
        let judged = |what: &str| {
            Step::new("eval --json", file(what))
                .flag("--pictures", &pictures)
                .printing_to(file(what))
        };
        let distance = judged("-distance")
            .flag("--features", &features.weights)
            .flag("--against", self.data.join("test"))
            .words(&format!("--img-size {}", features.picture_size));
        let agreement = judged("-agreement").flag("--judge", self.model.join("judge"));
        let distance = self.printed(sh, distance)?;
        let agreement = self.printed(sh, agreement)?;
        Ok(Figures {
            distance: distance.number("/features/pictures/distance")?,
            agreement: agreement.number("/agreement/accuracy")?,
        })
    }

    fn printed(&self, sh: &Shell, step: Step) -> Result<Printed> {
        let file = step.product.clone();
        run(sh, &self.program, step, &self.out)?;
        Printed::open(&file)
    }

    fn subject(&self, seeds: u64) -> String {
        let name = |path: &Path| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            name.to_string_lossy().into_owned()
        };
        let distance = match &self.features {
            Some(_) => "FD-EffLite0 to the test pictures",
            None => "in the judge's features",
        };
        format!(
            "Of {}: {} pictures of each class, {seeds} seeds, against {}. The distance is {distance}, not FID.\nTimes \
            are of one picture alone, medians of {REPEATS}, on",
            name(&self.model),
            self.images,
            name(&self.data)
        )
    }
}

/// What a command printed, or another file of JSON.
struct Printed {
    file: PathBuf,
    value: Value,
}

impl Printed {
    fn open(file: &Path) -> Result<Self> {
        let text = workspace::read_text(file)?;
        let value =
            serde_json::from_str(&text).with_context(|| format!("{}: not JSON", file.display()))?;
        Ok(Self {
            file: file.into(),
            value,
        })
    }

    fn number(&self, pointer: &str) -> Result<f64> {
        let value = self.value.pointer(pointer).and_then(Value::as_f64);
        value.with_context(|| format!("{}: no {pointer}", self.file.display()))
    }
}
