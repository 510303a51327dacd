//! `tessera route`: which experts the tokens of pictures have, by layer, time, class and place.

use crate::args::{Global, WeightsKind};
use crate::bundle::{Bundle, Source};
use crate::data::upload;
use crate::dit::{self, DitBundle, Info};
use crate::heat::{self, Row};
use crate::pictures::{PictureArgs, Pictures, all_done};
use crate::plot::{self, Line, Look};
use crate::progress::Progress;
use crate::tokenizer::{Square, Tokenizer};
use crate::{interrupt, labels, output};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tessera_gen_dit::{Dit, ImageRequest, Process, SampleConfig};
use tessera_moe::{MoeConfig, Rule, Trace, Usage};
use tessera_tokenizer::Pixels;
use tessera_train::Which;

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
/// Pictures are drawn as `generate` draws them, or with -i pictures of yours are noised to several times. A time is between
/// 0, the picture, and 1000, noise.
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
    /// Which weights of a training checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND")]
    weights: Option<WeightsKind>,
    /// Classes, by id or name; the first 10 unless given. With -i, the class that the pictures are of; any unless given.
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
    /// A model without experts, an unknown class, a picture that cannot be read, an output folder that is in use, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let (bundle, moe) = self.open(global)?;
        let classes = match self.class.is_empty() {
            true => None,
            false => Some(labels::resolve(&self.class, &bundle.info.class_names)?),
        };
        if let (false, Some(2..)) = (self.input.is_empty(), classes.as_ref().map(Vec::len)) {
            bail!("--class: with -i the pictures are of one class, found several");
        }
        if let Some(folder) = &self.output {
            output::folder(folder, self.overwrite)?;
        }
        let (info, thresholds) = (bundle.info.clone(), bundle.model.thresholds());
        let process = bundle.model.config().process;
        let (source, routed, failed) = match self.input.is_empty() {
            true => {
                let first = || (0..info.class_names.len().min(CLASSES)).collect();
                let classes = classes.unwrap_or_else(first);
                let (sampling, routed) = self.drawn(&bundle, &classes, global.quiet)?;
                (Origin::Drawn(sampling), routed, 0)
            }
            false => {
                let class = classes.map(|classes| classes[0]);
                let (routed, failed) = self.given(bundle, class, global.quiet)?;
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
    fn open(&self, global: &Global) -> Result<(DitBundle, MoeConfig)> {
        let device = global.device.open()?;
        let source = Source {
            model: Some(&self.model),
            which: self.weights.map(Which::from),
            quiet: global.quiet,
            ..Source::default()
        };
        let shown = self.model.display();
        let Some(path) = dit::find(&self.model)? else {
            // Whatever is wrong with it comes first.
            let bundle = Bundle::open_source(&source, &device)?;
            bail!(
                "{shown}: expected a diffusion transformer with experts, found the autoregressive model `{}`",
                bundle.info.name
            );
        };
        let bundle = DitBundle::open(&path, &source, &device)?;
        let Some(moe) = bundle.model.config().moe.clone() else {
            bail!(
                "{shown}: expected a diffusion transformer with experts, found the dense one `{}`; `tessera train dit --experts 2-in-8` trains one with",
                bundle.info.name
            );
        };
        Ok((bundle, moe))
    }

    /// Draws pictures and counts at every step.
    fn drawn(
        &self,
        bundle: &DitBundle,
        classes: &[usize],
        quiet: bool,
    ) -> Result<(SampleConfig, Routed)> {
        let own = &bundle.info.sampling;
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
        let mut routed = Routed::new(&bundle.model, requests.len());
        let mut progress = Progress::new("route", "images", requests.len() as u64, quiet);
        for batch in requests.chunks(self.batch_size.into()) {
            let first = routed.pictures.len();
            for request in batch {
                let class = request.class.map(|class| &*bundle.info.class_names[class]);
                let name = format!("{} {}", class.unwrap_or_default(), request.seed);
                routed.add_picture(name, request.class, request.seed);
            }
            let latents = bundle.model.generate(batch, &sampling, &mut |step| {
                routed.count(first, step.step - 1, step.time, step.trace);
                let done = first + batch.len() * step.step / step.steps;
                progress.set(done as u64, format!("step {}/{}", step.step, step.steps));
                interrupt::flow()
            });
            let latents =
                latents.with_context(|| format!("after {first} of {} images", requests.len()))?;
            // Also without an output folder: what a model draws that is not finite is no route of it.
            let pictures = bundle.decode(latents)?;
            routed.show(first, pictures);
        }
        progress.finish();
        Ok((sampling, routed))
    }

    /// Noises pictures to several times and counts at each. Also returns how many could not be read.
    fn given(
        &self,
        bundle: DitBundle,
        class: Option<usize>,
        quiet: bool,
    ) -> Result<(Routed, usize)> {
        let DitBundle {
            info,
            tokenizer: vae,
            model,
        } = bundle;
        let square = Square {
            img_size: info.img_size,
            picture_size: info.img_size,
        };
        let tokenizer = Tokenizer {
            name: info.name.clone(),
            sha256: String::new(),
            quantizer: None,
            square: Some(square),
            cuts: None,
            device: vae.device(),
            vae,
        };
        let args = PictureArgs {
            input: self.input.clone(),
            data: None,
            train_split: false,
            limit: None,
        };
        let pictures = Pictures::open(&args, &tokenizer, quiet)?;
        let times = usize::from(self.times.unwrap_or(10));
        let mut routed = Routed::new(&model, pictures.len());
        let total = pictures.len() * times;
        let mut progress = Progress::new("route", "passes", total as u64, quiet);
        let failed = pictures.batches(&tokenizer, |batch| {
            for batch in batch.chunks(self.batch_size.into()) {
                let first = routed.pictures.len();
                let images: Vec<_> = batch.iter().map(|picture| picture.image.clone()).collect();
                let latents = info.normalise(tokenizer.encode(&images)?);
                let labels = vec![class; batch.len()];
                let seed = self.seed + first as u64;
                for (picture, seed) in batch.iter().zip(seed..) {
                    routed.add_picture(picture.name.clone(), class, seed);
                }
                for at in 0..times {
                    let time = (END * (at as f32 + 0.5) / times as f32).floor();
                    let latents = upload(latents.clone(), &model.device());
                    let trace = model.route(latents, &labels, time, seed)?;
                    routed.count(first, at, time, &trace);
                    let done = first * times + (at + 1) * batch.len();
                    progress.set(done as u64, "");
                    if interrupt::requested() {
                        bail!("stopped after {first} of {} pictures", pictures.len());
                    }
                }
                let finished = images.iter().map(|image| tokenizer.finish(image.view()));
                routed.show(first, finished.collect::<Result<_>>()?);
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
    fn count(&mut self, first: usize, at: usize, time: f32, trace: &Trace) {
        if self.times.len() == at {
            self.times.push(time);
            self.active.push(vec![Mean::default(); self.usage.len()]);
        }
        let part = part(time);
        let pictures = &mut self.pictures[first..];
        for (layer, traced) in trace.layers.iter().enumerate() {
            let winners = traced.winners.first(pictures.len());
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

/// Which part of the time a time is in, from the picture on.
fn part(time: f32) -> usize {
    ((time / END * PARTS as f32) as usize).min(PARTS - 1)
}

/// What was routed.
#[derive(Debug, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
enum Origin {
    Drawn(SampleConfig),
    Pictures { times: usize },
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    model: String,
    process: Process,
    experts: usize,
    /// Experts a token was to have on average.
    k: f64,
    rule: Rule,
    source: Origin,
    tokens_per_picture: usize,
    layers: Vec<Layer>,
    /// Means over the layers.
    mean: Measures,
    /// From the picture to noise.
    times: Vec<Time>,
    classes: Vec<Class>,
    pictures: Vec<Picture>,
}

/// How evenly experts are used, and how many a token has.
#[derive(Debug, Clone, Copy, Serialize)]
struct Measures {
    mean_active: f64,
    /// Share of tokens without an expert.
    without: f64,
    max_vio: f64,
    combination_usage: f64,
}

#[derive(Debug, Serialize)]
struct Layer {
    /// From 1.
    layer: usize,
    #[serde(flatten)]
    measures: Measures,
    /// `null` where experts race at inference too.
    threshold: Option<f32>,
    /// Share of all pairs of token and expert that each expert has.
    load: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Time {
    time: f32,
    /// Over all layers.
    mean_active: f64,
    /// Of each layer.
    layers: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Class {
    class: usize,
    name: String,
    pictures: usize,
    mean_active: f64,
}

#[derive(Debug, Serialize)]
struct Picture {
    name: String,
    /// `null`: any.
    class: Option<usize>,
    seed: u64,
    mean_active: f64,
}

fn report(
    info: &Info,
    process: Process,
    moe: &MoeConfig,
    thresholds: &[f32],
    source: Origin,
    routed: &Routed,
) -> Report {
    let measures = |usage: &Usage| Measures {
        mean_active: usage.mean_active(),
        without: usage.share_without(),
        max_vio: usage.max_vio(),
        combination_usage: usage.combination_usage(),
    };
    let share = |loads: Vec<u64>| {
        let all = (loads.iter().sum::<u64>() as f64).max(1.0);
        loads.into_iter().map(|load| load as f64 / all).collect()
    };
    let layers = routed.usage.iter().zip(1..).map(|(usage, layer)| Layer {
        layer,
        measures: measures(usage),
        threshold: thresholds.get(layer - 1).copied(),
        load: share(usage.loads()),
    });
    let layers: Vec<_> = layers.collect();
    let over_layers = |of: &dyn Fn(&Measures) -> f64| {
        layers.iter().map(|layer| of(&layer.measures)).sum::<f64>() / layers.len() as f64
    };
    let mean = Measures {
        mean_active: over_layers(&|measures| measures.mean_active),
        without: over_layers(&|measures| measures.without),
        max_vio: over_layers(&|measures| measures.max_vio),
        combination_usage: over_layers(&|measures| measures.combination_usage),
    };
    let times = routed.times.iter().zip(&routed.active);
    let mut times: Vec<_> = times
        .map(|(&time, active)| Time {
            time,
            mean_active: active
                .iter()
                .copied()
                .fold(Mean::default(), Mean::plus)
                .value(),
            layers: active.iter().map(|mean| mean.value()).collect(),
        })
        .collect();
    times.sort_by(|a, b| a.time.total_cmp(&b.time));
    let classes = info.class_names.iter().enumerate();
    let classes = classes.filter_map(|(class, name)| {
        let of_class = routed
            .pictures
            .iter()
            .filter(|one| one.class == Some(class));
        let pictures = of_class.clone().count();
        let active = of_class.map(|one| one.active);
        (pictures > 0).then(|| Class {
            class,
            name: name.clone(),
            pictures,
            mean_active: active.fold(Mean::default(), Mean::plus).value(),
        })
    });
    let pictures = routed.pictures.iter().map(|one| Picture {
        name: one.name.clone(),
        class: one.class,
        seed: one.seed,
        mean_active: one.active.value(),
    });
    Report {
        schema: "tessera.route/v1",
        model: info.name.clone(),
        process,
        experts: moe.experts,
        k: moe.k,
        rule: moe.rule,
        source,
        tokens_per_picture: routed.seq,
        mean,
        times,
        classes: classes.collect(),
        pictures: pictures.collect(),
        layers,
    }
}

impl Report {
    /// The figures for people.
    fn table(&self) -> Result<String> {
        let mut text = String::new();
        let out = &mut text;
        let (experts, k, times) = (self.experts, self.k, self.times.len());
        let rule = serde_json::to_value(self.rule)?;
        writeln!(
            out,
            "{}: {experts} experts in each of {} layers, {k} to a token on average (rule {})\n\
             {} pictures of {} tokens at {times} times",
            self.model,
            self.layers.len(),
            rule.as_str().unwrap_or_default(),
            self.pictures.len(),
            self.tokens_per_picture,
        )?;
        writeln!(
            out,
            "\n{:>5} {:>8} {:>8} {:>8} {:>10} {:>10}",
            "layer", "experts", "none", "MaxVio", "pairs used", "threshold"
        )?;
        let measures = |measures: &Measures| {
            format!(
                "{:>8.3} {:>7.2}% {:>8.3} {:>9.1}%",
                measures.mean_active,
                100.0 * measures.without,
                measures.max_vio,
                100.0 * measures.combination_usage
            )
        };
        for layer in &self.layers {
            let threshold = layer.threshold.map_or("-".into(), |t| format!("{t:.4}"));
            let figures = measures(&layer.measures);
            writeln!(out, "{:>5} {figures} {threshold:>10}", layer.layer)?;
        }
        writeln!(out, "{:>5} {}", "mean", measures(&self.mean))?;
        writeln!(
            out,
            "\nload of each expert, % ({:.1} if even)",
            100.0 / experts as f64
        )?;
        for layer in &self.layers {
            for (line, loads) in layer.load.chunks(LOADS).enumerate() {
                let head = match line {
                    0 => layer.layer.to_string(),
                    _ => String::new(),
                };
                let loads: String = loads
                    .iter()
                    .map(|x| format!(" {:5.1}", 100.0 * x))
                    .collect();
                writeln!(out, "{head:>5}{loads}")?;
            }
        }
        self.by_time(out)?;
        if self.classes.len() > 1 {
            let name = |class: &Class| class.name.chars().count();
            let width = self.classes.iter().map(name).max().unwrap_or(0).max(5);
            writeln!(
                out,
                "\n{:width$} {:>8} {:>8}",
                "class", "pictures", "experts"
            )?;
            for class in &self.classes {
                writeln!(
                    out,
                    "{:width$} {:>8} {:>8.3}",
                    class.name, class.pictures, class.mean_active
                )?;
            }
        }
        Ok(text)
    }

    /// The times in ten ranges, or each if there are no more.
    fn by_time(&self, out: &mut String) -> Result<()> {
        let few = self.times.len() <= TIME_ROWS;
        writeln!(out, "\nexperts by time (0 is the picture, 1000 noise)")?;
        let heads: String = self
            .layers
            .iter()
            .map(|layer| format!(" {:>6}", layer.layer))
            .collect();
        writeln!(out, "{:>9} {:>6} layer{heads}", "time", "mean")?;
        let row = |time: &Time| match few {
            true => 0,
            false => ((time.time / END * TIME_ROWS as f32) as usize).min(TIME_ROWS - 1),
        };
        let of_row = |a: &Time, b: &Time| !few && row(a) == row(b);
        for times in self.times.chunk_by(of_row) {
            let width = END as usize / TIME_ROWS;
            let head = match few {
                true => format!("{:.1}", times[0].time),
                false => format!(
                    "{}-{}",
                    row(&times[0]) * width,
                    (row(&times[0]) + 1) * width
                ),
            };
            let mean =
                |of: &dyn Fn(&Time) -> f64| times.iter().map(of).sum::<f64>() / times.len() as f64;
            let layers: String = (0..self.layers.len())
                .map(|layer| format!(" {:6.3}", mean(&|time| time.layers[layer])))
                .collect();
            writeln!(
                out,
                "{head:>9} {:6.3}      {layers}",
                mean(&|time| time.mean_active)
            )?;
        }
        Ok(())
    }
}

/// Leaves the pictures in a folder.
fn draw(folder: &Path, report: &Report, routed: &Routed) -> Result<()> {
    let loads: Vec<Vec<f64>> = report
        .layers
        .iter()
        .map(|layer| layer.load.iter().map(|load| 100.0 * load).collect())
        .collect();
    plot::cells(
        &folder.join("load.svg"),
        &format!(
            "Load of each expert, % ({:.1} if even)",
            100.0 / report.experts as f64
        ),
        ["expert", "layer"],
        &loads,
    )?;
    plot::lines(
        &folder.join("active-by-time.svg"),
        "Experts that a token has, by time",
        ["time (0: picture, 1000: noise)", "experts of a token, mean"],
        0.0..f64::from(END),
        &by_time(report),
    )?;
    let sheet = sheet(routed)?;
    output::picture(&folder.join("heatmap.png"), &sheet, &[])
}

/// A line for what was asked, each layer, and their mean.
fn by_time(report: &Report) -> Vec<Line> {
    let line = |name: String, look, of: &dyn Fn(&Time) -> f64| Line {
        name,
        look,
        points: report
            .times
            .iter()
            .map(|time| (f64::from(time.time), of(time)))
            .collect(),
    };
    let asked = Line {
        name: format!("asked: {}", report.k),
        look: Look::Reference,
        points: [0.0, f64::from(END)].map(|x| (x, report.k)).into(),
    };
    let last = (report.layers.len() as f64 - 1.0).max(1.0);
    let layers = (0..report.layers.len()).map(|layer| {
        let look = Look::Of(layer as f64 / last);
        line(format!("layer {}", layer + 1), look, &|time| {
            time.layers[layer]
        })
    });
    let mean = line("mean".into(), Look::Bold, &|time| time.mean_active);
    [asked].into_iter().chain(layers).chain([mean]).collect()
}

/// The first pictures with the experts of their tokens: over all times, and in each part of the time that there was.
fn sheet(routed: &Routed) -> Result<Pixels> {
    let mut parts: Vec<usize> = routed.times.iter().map(|&time| part(time)).collect();
    parts.sort_unstable();
    parts.dedup();
    // From noise on, as pictures come to be.
    parts.reverse();
    let bounds = parts.iter().map(|&part| {
        let bound = |part: usize| (END * part as f32 / PARTS as f32).round();
        format!("time {}-{}", bound(part), bound(part + 1))
    });
    let titles: Vec<_> = ["picture".to_owned(), "all times".to_owned()]
        .into_iter()
        .chain(bounds)
        .collect();
    let rows = routed
        .pictures
        .iter()
        .zip(&routed.shown)
        .map(|(one, picture)| {
            let of_part = |part: usize| one.maps.iter().map(|map| map[part].value()).collect();
            let all = |map: &[Mean; PARTS]| {
                map.iter()
                    .copied()
                    .fold(Mean::default(), Mean::plus)
                    .value()
            };
            let mut maps = vec![one.maps.iter().map(all).collect()];
            maps.extend(parts.iter().map(|&part| of_part(part)));
            Row {
                picture: picture.clone(),
                caption: one.name.clone(),
                maps,
            }
        });
    let rows: Vec<_> = rows.collect();
    ensure!(!rows.is_empty(), "no picture to show");
    heat::sheet(
        &titles,
        &rows,
        "mean experts of a token in a layer (time 0: picture, 1000: noise)",
    )
}
