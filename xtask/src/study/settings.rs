//! How large everything is, and what is run: every flag of `tessera` that the study knows is in this file.

use super::pictures::Pictures;
use super::variants::{Variant, Weights};
use crate::step::Step;
use anyhow::{Result, ensure};
use clap::Args;
use std::path::{Path, PathBuf};

/// The share of the training pictures that is held out for the validation loss.
const HELD_OUT: f64 = 0.1;
/// Real pictures of either half that drawn ones are held against, at most.
const REAL: usize = 5000;

/// Sizes that a user may choose.
#[derive(Debug, Clone, Args)]
pub struct Sizes {
    /// Side of the pictures in px.
    #[arg(long, default_value_t = 32, value_name = "PX")]
    img_size: usize,
    /// Side of the squares that are one token; 4, or 8 with --quick, unless given.
    #[arg(long, value_name = "N")]
    patch: Option<usize>,
    /// Width, depth and heads; 96,4,4 unless given.
    #[arg(long, value_name = "W,D,H")]
    size: Option<String>,
    /// Experts of every block; 4-in-16, or 2-in-8 with --quick, unless given.
    #[arg(long, value_name = "K-in-E")]
    experts: Option<String>,
    /// Steps of training; 2000 unless given.
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Pictures a step; 64, or 32 with --quick, unless given.
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// The highest learning rate.
    #[arg(long, default_value_t = 1e-3, value_name = "X")]
    lr: f64,
    /// Seeds that every variant is trained with.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Use at most so many pictures of either half, except for the judge; all of them, or 1000 with --quick, unless
    /// given.
    #[arg(long, value_name = "N")]
    train_images: Option<usize>,
    /// Pictures drawn from every model for the Fréchet distance; 2000 unless given.
    #[arg(long, value_name = "N")]
    pictures: Option<usize>,
    /// Passes over the data that the judge is trained for; its recipe's own unless given.
    #[arg(long, value_name = "N")]
    judge_epochs: Option<u64>,
    /// Weight of the router similarity loss, where a variant has it.
    #[arg(long, default_value_t = 1e-4, value_name = "X")]
    similarity: f64,
    /// Weight of the balance loss, where a variant has it.
    #[arg(long, default_value_t = 1e-2, value_name = "X")]
    balance: f64,
    /// Weight of the per-layer regularisation, where a variant has it.
    #[arg(long, default_value_t = 1e-2, value_name = "X")]
    per_layer: f64,
}

/// All that decides the figures, but the data.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Side of the pictures.
    pub img_size: usize,
    /// Side of a token.
    pub patch: usize,
    /// Width, depth, heads.
    pub size: String,
    /// k-in-E.
    pub experts: String,
    /// Steps of training.
    pub steps: u64,
    /// Pictures a step.
    pub batch_size: usize,
    /// The highest learning rate.
    pub lr: f64,
    /// Seeds.
    pub seeds: u64,
    /// At most so many pictures of either half.
    pub train_images: Option<usize>,
    /// Drawn pictures of a model.
    pub pictures: usize,
    /// Flags of the judge.
    pub judge: String,
    /// Weights of the further losses.
    pub weights: Weights,
}

impl Sizes {
    /// The settings, with the defaults of a quick or a full study where nothing was given.
    ///
    /// # Errors
    /// When something is nothing.
    pub fn over(self, quick: bool) -> Result<Settings> {
        let text = |given: Option<String>, if_quick: &str, if_full: &str| {
            given.unwrap_or_else(|| if quick { if_quick } else { if_full }.into())
        };
        let settings = Settings {
            img_size: self.img_size,
            patch: self.patch.unwrap_or(if quick { 8 } else { 4 }),
            size: text(self.size, "32,2,2", "96,4,4"),
            experts: text(self.experts, "2-in-8", "4-in-16"),
            steps: self.steps.unwrap_or(if quick { 40 } else { 2000 }),
            batch_size: self.batch_size.unwrap_or(if quick { 32 } else { 64 }),
            lr: self.lr,
            seeds: self.seeds,
            train_images: self.train_images.or(quick.then_some(1000)),
            pictures: self.pictures.unwrap_or(if quick { 100 } else { 2000 }),
            judge: match (self.judge_epochs, quick) {
                (Some(epochs), _) => format!("--epochs {epochs}"),
                (None, true) => "--max-steps 40".into(),
                (None, false) => String::new(),
            },
            weights: Weights {
                similarity: self.similarity,
                balance: self.balance,
                per_layer: self.per_layer,
            },
        };
        ensure!(
            settings.steps > 0 && settings.batch_size > 0 && settings.pictures > 0,
            "--steps, --batch-size and --pictures: expected 1 or more"
        );
        Ok(settings)
    }
}

/// Where things are.
pub struct Folders<'a> {
    /// The study's folder.
    pub out: &'a Path,
    /// The data.
    pub pictures: &'a Pictures,
    /// The tokenizer.
    pub vae: Option<&'a Path>,
}

impl Folders<'_> {
    fn of(&self, kind: &str, variant: &Variant, seed: u64) -> PathBuf {
        self.out.join(kind).join(format!("{}-{seed}", variant.key))
    }

    /// The run's folder.
    pub fn run(&self, variant: &Variant, seed: u64) -> PathBuf {
        self.of("runs", variant, seed)
    }

    /// What the judge says of its pictures.
    pub fn eval(&self, variant: &Variant, seed: u64) -> PathBuf {
        self.of("measured", variant, seed)
            .with_added_extension("eval.json")
    }

    /// How its experts are used.
    pub fn route(&self, variant: &Variant, seed: u64) -> PathBuf {
        self.of("measured", variant, seed)
            .with_added_extension("route.json")
    }

    /// Its figures.
    pub fn result(&self, variant: &Variant, seed: u64) -> PathBuf {
        self.of("results", variant, seed)
            .with_added_extension("json")
    }

    fn judge(&self) -> PathBuf {
        self.out.join("judge/model")
    }
}

impl Settings {
    /// The step that trains the judge.
    pub fn judge(&self, folders: &Folders<'_>) -> Step {
        Step::new("train judge", folders.judge().join("config.json"))
            .in_folder(&folders.out.join("judge"))
            .flag("--data", &folders.pictures.whole)
            .words(&self.shape(folders))
            .words(&self.judge)
    }

    /// What is run for a variant: training, drawing, judging, and counting what its experts do.
    pub fn steps_of(&self, folders: &Folders<'_>, variant: &Variant, seed: u64) -> Vec<Step> {
        let (run, data) = (folders.run(variant, seed), &folders.pictures.folder);
        let mut train = Step::new("train dit", run.join("model/model.json"))
            .in_folder(&run)
            .flag("--data", data)
            .words(&self.shape(folders));
        if let Some(vae) = folders.vae {
            train = train.flag("--vae", vae);
        }
        train = train.words(&self.training(folders.pictures.train));
        if let Some(routing) = &variant.routing {
            train = train.words(&routing.flags(&self.experts, &self.weights));
        }
        let train = train.words(&format!("--seed {seed}"));
        let classes = folders.pictures.classes;
        let per_class = self.pictures.div_ceil(classes);
        let drawn = folders.of("pictures", variant, seed);
        let last = drawn.join(format!("{:05}.png", per_class * classes - 1));
        // The same noise for every model, and no guidance.
        let generate = Step::new("generate", last)
            .in_folder(&drawn)
            .flag("-m", &run)
            .words(&format!("-n {per_class} --steps 20 --cfg-scale 1 --seed 1"));
        let eval = Step::new("eval", folders.eval(variant, seed))
            .flag("--pictures", &drawn)
            .flag("--judge", folders.judge())
            .flag("--data", data)
            .words(&format!("--limit {REAL} --json"))
            .printing_to(folders.eval(variant, seed));
        let mut steps = vec![train, generate, eval];
        if variant.routing.is_some() {
            let route = Step::new("route", folders.route(variant, seed))
                .flag("-m", &run)
                .words("-n 8 --steps 20 --cfg-scale 1 --seed 1 --json")
                .printing_to(folders.route(variant, seed));
            steps.push(route);
        }
        steps
    }

    fn shape(&self, folders: &Folders<'_>) -> String {
        let channels = folders.pictures.channels;
        format!("--img-size {} --channels {channels}", self.img_size)
    }

    /// Flags of `train dit` that every variant has.
    fn training(&self, pictures: usize) -> String {
        let trained = (1.0 - HELD_OUT) * pictures as f64;
        let epochs = self.steps as f64 * self.batch_size as f64 / trained;
        format!(
            "--size {} --patch {} --batch-size {} --max-steps {} --epochs {} --warmup-epochs {:.4} --lr {} --val-share \
                {HELD_OUT} \
             --save-every {} --keep-last 1 --sample-every 1000000",
            self.size,
            self.patch,
            self.batch_size,
            self.steps,
            2 + epochs.ceil() as u64,
            0.05 * epochs,
            self.lr,
            (self.steps / 4).max(1)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::variants::{VARIANTS, variant_of};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sizes: Sizes,
    }

    fn settings(line: &str, quick: bool) -> Settings {
        let words = std::iter::once("study").chain(line.split_whitespace());
        Line::parse_from(words).sizes.over(quick).unwrap()
    }

    fn data() -> Pictures {
        Pictures {
            folder: "/d".into(),
            whole: "/whole".into(),
            channels: 3,
            classes: 10,
            train: 1000,
            description: String::new(),
        }
    }

    #[test]
    fn what_is_given_goes_before_what_is_quick() {
        let quick = settings("--steps 7 --experts 1-in-4", true);
        assert_eq!(
            (quick.steps, &*quick.experts, quick.patch),
            (7, "1-in-4", 8)
        );
        assert_eq!(settings("", false).seeds, 3);
    }

    #[test]
    fn runs_differ_in_routing_and_seed_alone() {
        let pictures = data();
        let folders = Folders {
            out: Path::new("/o"),
            pictures: &pictures,
            vae: None,
        };
        let settings = settings("--steps 100 --batch-size 9", false);
        let line = |key: &str, seed| {
            let steps = settings.steps_of(&folders, variant_of(key), seed);
            steps[0].line(folders.out)
        };
        let common = "--data /d --img-size 32 --channels 3 --size 96,4,4 --patch 4 --batch-size 9 --max-steps 100 \
            --epochs 3 \
                      --warmup-epochs 0.0500 --lr 0.001 --val-share 0.1 --save-every 25 --keep-last 1 --sample-every \
                      1000000";
        assert_eq!(
            line("dense", 2),
            format!("tessera train dit -o OUT/runs/dense-2 {common} --seed 2")
        );
        assert_eq!(
            line("full", 0),
            format!(
                "tessera train dit -o OUT/runs/full-0 {common} --experts 4-in-16 --rule race --gate identity \
                    --similarity 0.0001 \
                 --balance 0 --per-layer 0.01 --seed 0"
            )
        );
    }

    #[test]
    fn every_step_has_a_product_of_its_own_and_no_flag_twice() {
        let pictures = data();
        let folders = Folders {
            out: Path::new("/o"),
            pictures: &pictures,
            vae: Some(Path::new("/vae")),
        };
        let settings = settings("", true);
        let mut products = vec![settings.judge(&folders).product];
        for variant in &VARIANTS {
            for step in settings.steps_of(&folders, variant, 1) {
                let is_flag = |arg: &&String| arg.starts_with('-') && arg.len() > 1;
                let mut flags: Vec<_> = step.args.iter().filter(is_flag).collect();
                let count = flags.len();
                flags.sort();
                flags.dedup();
                assert_eq!(flags.len(), count, "{:?}", step.args);
                products.push(step.product);
            }
        }
        let count = products.len();
        products.sort();
        products.dedup();
        assert_eq!((products.len(), count), (1 + 4 * 11 - 1, count));
    }
}
