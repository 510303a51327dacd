//! `tessera route`: which experts the tokens of pictures have, by layer, time, class and place.

mod report;

use self::report::{Origin, draw, report};
use crate::args::{Global, WeightsKind};
use crate::heat::{self, Row};
use crate::pictures::{PictureArgs, Pictures, all_done};
use crate::plot::{self, Line, Look};
use crate::progress::{LoadProgress, Progress};
use crate::{interrupt, output};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tessera::backend::{host_values, upload};
use tessera::gen_dit::{Dit, ImageRequest, Process, SampleConfig};
use tessera::moe::{MoeConfig, RouterTrace, RoutingRule, Usage};
use tessera::pictures::Pixels;
use tessera::{DitCard, DitModel, Model, Source, Tokenizer, Which, class_id};

/// Pictures in the sheet of heat maps at most.
const SHOWN: usize = 8;
/// Classes drawn unless given.
const CLASSES: usize = 10;
/// Times are in 0..1000: 0 is the picture, 1000 is noise.
const END: f32 = 1000.0;
/// Parts of the time that the heat maps have columns of.
const PARTS: usize = 3;
/// Rows of the table of times.
const TIME_ROWS: usize = 10;
/// Experts in a line of the table of loads.
const LOADS: usize = 16;

/// Show which experts the tokens of pictures have: how evenly, how many, when and where.
///
/// Pictures are drawn as `generate` draws them, or with -i pictures of yours are noised to several times. A time is
/// between 0, the picture, and 1000, noise.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera route -m runs/race -c sneaker,bag -n 4 -o routes\n  \
    tessera route -m runs/race -i photos/ --class sneaker --times 20 -o routes\n  \
    tessera route -m runs/race -n 8 --json > routes.json\n\n\
With -o: heatmap.png (experts of each token, over the picture), active-by-time.svg, load.svg.")]
pub struct Route {
    /// The folder of a diffusion transformer with experts, or of the run that trained it.
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// Another tokenizer than the model's own.
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    /// Which weights of a training checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND")]
    weights: Option<WeightsKind>,
    /// Classes, by id or name; the first 10 unless given. With -i, the class that the pictures are of; any unless
    /// given.
    #[arg(short, long, value_delimiter = ',', value_name = "CLASS,…")]
    class: Vec<String>,
    /// Pictures per class.
    #[arg(short, long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "input")]
    num_images: u16,
    /// The noise of picture i is of seed + i.
    #[arg(short, long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(..1 << 63))]
    seed: u64,
    /// Steps; the model's own unless given.
    #[arg(long, value_name = "N", conflicts_with = "input")]
    steps: Option<usize>,
    /// Guidance scale; 1 is none, the model's own unless given. Only what is told the class is counted.
    #[arg(
        long,
        visible_alias = "cfg",
        value_name = "X",
        conflicts_with = "input"
    )]
    cfg_scale: Option<f32>,
    /// Route these pictures: files, folders, or patterns with * in the file name.
    #[arg(short, long, num_args = 1.., value_name = "PATH")]
    input: Vec<PathBuf>,
    /// Evenly spaced times to noise the pictures of -i to; 10 unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000), requires = "input")]
    times: Option<u16>,
    /// Pictures worked on at once.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Folder for the pictures of the routes; figures only unless given.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Write into a folder that is not empty.
    #[arg(long, requires = "output")]
    overwrite: bool,
}

impl Route {
    /// Routes, prints and draws.
    ///
    /// # Errors
    /// A model without experts, an unknown class, a picture that cannot be read, an output folder that is in use,
    /// Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let (model, moe) = self.open(global)?;
        let classes = match self.class.is_empty() {
            true => None,
            false => {
                let ids = self
                    .class
                    .iter()
                    .map(|class| class_id(class, &model.card.class_names));
                Some(ids.collect::<tessera::Result<Vec<_>>>()?)
            }
        };
        if let (false, Some(2..)) = (self.input.is_empty(), classes.as_ref().map(Vec::len)) {
            bail!("--class: with -i the pictures are of one class, found several");
        }
        if let Some(folder) = &self.output {
            output::folder(folder, self.overwrite)?;
        }
        let (info, thresholds) = (model.card.clone(), model.transformer.thresholds());
        let process = model.transformer.config().process;
        let (source, routed, failed) = match self.input.is_empty() {
            true => {
                let first = || (0..info.class_names.len().min(CLASSES)).collect();
                let classes = classes.unwrap_or_else(first);
                let (sampling, routed) = self.drawn(&model, &classes, global.quiet)?;
                (Origin::Drawn(sampling), routed, 0)
            }
            false => {
                let class = classes.map(|classes| classes[0]);
                let (routed, failed) = self.given(model, class, global.quiet)?;
                let times = routed.times.len();
                (Origin::Pictures { times }, routed, failed)
            }
        };
        let report = report(&info, process, &moe, &thresholds, source, &routed);
        if let Some(folder) = &self.output {
            draw(folder, &report, &routed)?;
        }
        match self.json {
            true => output::json(&report)?,
            false => output::text(report.table()?.trim_end())?,
        }
        all_done(failed, routed.pictures.len() + failed)
    }

    /// The model, which must have experts.
    fn open(&self, global: &Global) -> Result<(DitModel, MoeConfig)> {
        let device = global.open()?;
        let mut loading = LoadProgress::new(global.quiet);
        let mut source = Source::new(&self.model).weights(self.weights.map(Which::from));
        if let Some(vae) = &self.vae {
            source = source.vae(vae);
        }
        let opened = Model::open(
            source.on_progress(&mut |loaded| loading.set(loaded)),
            &device,
        )?;
        loading.finish();
        let shown = self.model.display();
        let Model::Dit(model) = opened else {
            bail!(
                "{shown}: expected a diffusion transformer with experts, found the autoregressive model `{}`",
                opened.name()
            );
        };
        let Some(moe) = model.transformer.config().moe.clone() else {
            bail!(
                "{shown}: expected a diffusion transformer with experts, found the dense one `{}`; `tessera train dit --experts 2-in-8` trains one with",
                model.card.name
            );
        };
        Ok((model, moe))
    }

    /// Draws pictures and counts at every step.
    fn drawn(
        &self,
        model: &DitModel,
        classes: &[usize],
        quiet: bool,
    ) -> Result<(SampleConfig, Routed)> {
        let own = &model.card.sampling;
        let sampling = SampleConfig {
            steps: self.steps.unwrap_or(own.steps),
            cfg_scale: self.cfg_scale.unwrap_or(own.cfg_scale),
        };
        sampling.validate()?;
        let each = usize::from(self.num_images);
        let classes = classes
            .iter()
            .flat_map(|&class| std::iter::repeat_n(class, each));
        let requests: Vec<_> = classes
            .zip(self.seed..)
            .map(|(class, seed)| ImageRequest {
                class: Some(class),
                seed,
            })
            .collect();
        let mut routed = Routed::new(&model.transformer, requests.len());
        let mut progress = Progress::new("route", "images", requests.len() as u64, quiet);
        for batch in requests.chunks(self.batch_size.into()) {
            let first = routed.pictures.len();
            for request in batch {
                let class = request.class.map(|class| &*model.card.class_names[class]);
                let name = format!("{} {}", class.unwrap_or_default(), request.seed);
                routed.add_picture(name, request.class, request.seed);
            }
            let latents =
                model
                    .transformer
                    .generate_traced(batch, &sampling, &mut |step, trace| {
                        routed.count(first, step.step - 1, step.time, trace);
                        let done = first + batch.len() * step.step / step.steps;
                        progress.set(done as u64, format!("step {}/{}", step.step, step.steps));
                        interrupt::flow()
                    });
            let latents =
                latents.with_context(|| format!("after {first} of {} images", requests.len()))?;
            // Also without an output folder: what a model draws that is not finite is no route of it.
            let pictures = model.decode(latents)?;
            routed.show(first, pictures);
        }
        progress.finish();
        Ok((sampling, routed))
    }

    /// Noises pictures to several times and counts at each. Also returns how many could not be read.
    fn given(&self, model: DitModel, class: Option<usize>, quiet: bool) -> Result<(Routed, usize)> {
        let (card, transformer) = (model.card.clone(), model.transformer.clone());
        let tokenizer = Tokenizer::from(model);
        let args = PictureArgs {
            input: self.input.clone(),
            data: None,
            train_split: false,
            limit: None,
        };
        let pictures = Pictures::open(&args, &tokenizer, quiet)?;
        let times = usize::from(self.times.unwrap_or(10));
        let mut routed = Routed::new(&transformer, pictures.len());
        let total = pictures.len() * times;
        let mut progress = Progress::new("route", "passes", total as u64, quiet);
        let failed = pictures.batches(&tokenizer, |batch| {
            for batch in batch.chunks(self.batch_size.into()) {
                let first = routed.pictures.len();
                let images: Vec<_> = batch.iter().map(|picture| picture.image.clone()).collect();
                let latents = card.normalize(tokenizer.encode(&images)?);
                let labels = vec![class; batch.len()];
                let seed = self.seed + first as u64;
                for (picture, seed) in batch.iter().zip(seed..) {
                    routed.add_picture(picture.name.clone(), class, seed);
                }
                for at in 0..times {
                    let time = (END * (at as f32 + 0.5) / times as f32).floor();
                    let latents = upload(latents.clone(), &transformer.device());
                    let trace = transformer.route(latents, &labels, time, seed)?;
                    check_finite(&trace)
                        .with_context(|| format!("at time {time} of {}", batch[0].name))?;
                    routed.count(first, at, time, &trace);
                    let done = first * times + (at + 1) * batch.len();
                    progress.set(done as u64, "");
                    if interrupt::requested() {
                        bail!("stopped after {first} of {} pictures", pictures.len());
                    }
                }
                let finished = images.iter().map(|image| tokenizer.finish(image.view()));
                routed.show(first, finished.collect::<tessera::Result<_>>()?);
            }
            Ok(())
        })?;
        progress.finish();
        Ok((routed, failed))
    }
}

/// A share: what was counted, of how many.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: u64,
    of: u64,
}

impl Mean {
    fn add(&mut self, sum: u64, of: u64) {
        self.sum += sum;
        self.of += of;
    }

    fn plus(mut self, other: Self) -> Self {
        self.add(other.sum, other.of);
        self
    }

    fn value(self) -> f64 {
        self.sum as f64 / (self.of as f64).max(1.0)
    }
}

/// A picture whose tokens were routed.
#[derive(Debug, Clone)]
struct Subject {
    name: String,
    class: Option<usize>,
    seed: u64,
    /// Experts of its tokens, over layers and times.
    active: Mean,
    /// Experts of each token in each part of the time, if it is shown.
    maps: Vec<[Mean; PARTS]>,
}

/// What was counted.
#[derive(Debug, Clone)]
struct Routed {
    seq: usize,
    /// Of each layer.
    usage: Vec<Usage>,
    /// The times in the order of the passes.
    times: Vec<f32>,
    /// Experts of the tokens, by time and layer.
    active: Vec<Vec<Mean>>,
    pictures: Vec<Subject>,
    /// Which of them are shown, evenly spread.
    chosen: Vec<usize>,
    /// Those.
    shown: Vec<Pixels>,
}

impl Routed {
    /// Nothing counted yet of so many pictures.
    fn new(model: &Dit, pictures: usize) -> Self {
        let shown = pictures.min(SHOWN);
        let config = model.config();
        let experts = config.moe.as_ref().map_or(0, |moe| moe.experts);
        Self {
            seq: config.seq(),
            usage: vec![Usage::new(experts); config.depth],
            times: Vec::new(),
            active: Vec::new(),
            pictures: Vec::new(),
            chosen: (0..shown).map(|i| i * pictures / shown).collect(),
            shown: Vec::new(),
        }
    }

    fn add_picture(&mut self, name: String, class: Option<usize>, seed: u64) {
        let mapped = match self.chosen.contains(&self.pictures.len()) {
            true => self.seq,
            false => 0,
        };
        self.pictures.push(Subject {
            name,
            class,
            seed,
            active: Mean::default(),
            maps: vec![Default::default(); mapped],
        });
    }

    /// Counts a pass over the pictures from `first` on. What else is in the batch is the same without its class.
    fn count(&mut self, first: usize, at: usize, time: f32, trace: &RouterTrace) {
        if self.times.len() == at {
            self.times.push(time);
            self.active.push(vec![Mean::default(); self.usage.len()]);
        }
        let part = part(time);
        let pictures = &mut self.pictures[first..];
        for (layer, traced) in trace.layers.iter().enumerate() {
            let winners = traced.mask.first(pictures.len());
            self.usage[layer].add(&winners);
            for (token, row) in winners.rows().enumerate() {
                let picture = &mut pictures[token / self.seq];
                let experts = row.iter().filter(|&&has| has).count() as u64;
                picture.active.add(experts, 1);
                self.active[at][layer].add(experts, 1);
                if let Some(map) = picture.maps.get_mut(token % self.seq) {
                    map[part].add(experts, 1);
                }
            }
        }
    }

    /// Keeps what is shown of finished pictures, from `first` on.
    fn show(&mut self, first: usize, pictures: Vec<Pixels>) {
        let chosen = |index: &usize| self.chosen.contains(index);
        let shown = (first..).zip(pictures).filter(|(index, _)| chosen(index));
        self.shown.extend(shown.map(|(_, picture)| picture));
    }
}

/// Refuses scores that are not finite, which race as if they were.
fn check_finite(trace: &RouterTrace) -> Result<()> {
    for (traced, layer) in trace.layers.iter().zip(1..) {
        let logits = host_values(traced.logits.clone());
        ensure!(
            logits.iter().all(|logit| logit.is_finite()),
            "layer {layer}: a score is not finite"
        );
    }
    Ok(())
}

/// Which part of the time a time is in, from the picture on.
fn part(time: f32) -> usize {
    ((time / END * PARTS as f32) as usize).min(PARTS - 1)
}
