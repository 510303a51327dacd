//! Which experts the tokens of pictures have, counted: by layer, time, class, picture and place. The measures are those
//! of Expert Race: MaxVio (section 5) and combination usage (section 11, figure 13).

mod shown;
mod table;

pub use shown::Shown;

use crate::error::{Error, Result};
use crate::model::{DitCard, DitModel};
use ndarray::Array4;
use serde::Serialize;
use std::ops::ControlFlow;
use tessera_backend::{host_values, upload};
use tessera_gen_dit::{Dit, ImageRequest, Process, SampleConfig};
use tessera_moe::{MoeConfig, RouterTrace, RoutingRule, Usage};

/// The time of noise; 0 is the picture.
pub const NOISE_TIME: f32 = 1000.0;
/// Parts of the time that the experts of single tokens are counted in.
const TIME_PARTS: usize = 3;

/// Counts the experts of the tokens of a diffusion transformer, while it draws pictures or sees noised ones.
///
/// ```no_run
/// use std::ops::ControlFlow;
/// use tessera::routing::{Routing, Source, Subject};
/// use tessera::{Device, Model};
///
/// let Model::Dit(model) = Model::open("runs/race", &Device::cpu())? else {
///     panic!("an autoregressive model")
/// };
/// let (mut routing, sampling) = (Routing::new(&model, 0)?, model.card.sampling.clone());
/// routing.draw(&[Subject::new("a dress", Some(7))], &sampling, &mut |_| ControlFlow::Continue(()))?;
/// let report = routing.report(Source::Drawn(sampling));
/// println!("{:.2} experts per token", report.mean.mean_active);
/// # Ok::<(), tessera::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Routing {
    card: DitCard,
    transformer: Dit,
    moe: MoeConfig,
    /// The noise of picture i is of seed + i.
    seed: u64,
    /// Of each layer.
    usage: Vec<Usage>,
    /// The times in the order of the passes.
    times: Vec<f32>,
    /// Experts of the tokens, by time and layer.
    active: Vec<Vec<Mean>>,
    pictures: Vec<Routed>,
}

/// A picture to be routed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What it is called.
    pub name: String,
    /// Its class; any if none.
    pub class: Option<usize>,
    /// Whether its tokens are counted one by one, which [`Routing::token_map`] needs.
    pub maps: TokenMaps,
}

/// Whether the tokens of a picture are counted one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenMaps {
    /// All together.
    #[default]
    None,
    /// One by one, in each part of the time.
    Counted,
}

/// A step of drawing, or the pass at one of several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutingPass {
    /// The index of the batch's first picture.
    pub first: usize,
    /// The pass just counted, from 1.
    pub pass: usize,
    /// Passes in all.
    pub passes: usize,
}

/// Called after each pass; `Break` cancels.
pub type OnPass<'a> = dyn FnMut(RoutingPass) -> ControlFlow<()> + 'a;

/// A part of the time between picture and noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimePart(usize);

/// Where the routed pictures came from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Source {
    /// The model drew them so.
    Drawn(SampleConfig),
    /// Existing pictures, noised.
    Pictures {
        /// To this many times.
        times: usize,
    },
}

/// What was counted. Times are in 0, the picture, to 1000, noise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// What it was trained to undo.
    pub process: Process,
    /// Experts of a layer.
    pub experts: usize,
    /// Experts that a token should have on average.
    pub k: f64,
    /// Who races whom.
    pub rule: RoutingRule,
    /// Where the pictures came from.
    pub source: Source,
    /// Tokens of a picture.
    pub tokens_per_picture: usize,
    /// Each layer.
    pub layers: Vec<Layer>,
    /// Means over the layers.
    pub mean: Measures,
    /// Each time, ascending.
    pub times: Vec<Time>,
    /// Each class that there were pictures of.
    pub classes: Vec<Class>,
    /// Each picture.
    pub pictures: Vec<Picture>,
}

/// How evenly experts are used, and how many a token has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measures {
    /// Experts of a token.
    pub mean_active: f64,
    /// Share of tokens without an expert.
    pub without: f64,
    /// MaxVio: [`Usage::max_vio`].
    pub max_vio: f64,
    /// Share of the pairs of experts in use: [`Usage::combination_usage`].
    pub combination_usage: f64,
}

/// A layer over all tokens and times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layer {
    /// From 1.
    pub layer: usize,
    /// Its measures.
    #[serde(flatten)]
    pub measures: Measures,
    /// None where experts race at inference too.
    pub threshold: Option<f32>,
    /// Share of all pairs of token and expert that each expert has; `[experts]`.
    pub load: Vec<f64>,
}

/// All tokens at a time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Time {
    /// In 0 to 1000.
    pub time: f32,
    /// Experts of a token, over all layers.
    pub mean_active: f64,
    /// Experts of a token in each layer; `[layers]`.
    pub layers: Vec<f64>,
}

/// The pictures of a class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Class {
    /// Its id.
    pub class: usize,
    /// Its name.
    pub name: String,
    /// Number of pictures.
    pub pictures: usize,
    /// Experts of a token.
    pub mean_active: f64,
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Picture {
    /// What it is called.
    pub name: String,
    /// Its class; any if none.
    pub class: Option<usize>,
    /// The seed of its noise.
    pub seed: u64,
    /// Experts of a token.
    pub mean_active: f64,
}

impl Routing {
    /// Nothing counted yet. The noise of picture i will be of seed + i.
    ///
    /// # Errors
    /// When the model has no experts.
    pub fn new(model: &DitModel, seed: u64) -> Result<Self> {
        let config = model.transformer.config();
        let moe = config.moe.clone().ok_or(tessera_gen_dit::Error::Dense)?;
        Ok(Self {
            card: model.card.clone(),
            transformer: model.transformer.clone(),
            usage: vec![Usage::new(moe.experts); config.depth],
            moe,
            seed,
            times: Vec::new(),
            active: Vec::new(),
            pictures: Vec::new(),
        })
    }

    /// How many pictures were begun.
    pub fn pictures(&self) -> usize {
        self.pictures.len()
    }

    /// Draws pictures and counts at every step. With guidance, only the passes that know the class count. Returns the
    /// normalized latents `[pictures, channels, height, width]`, for [`DitModel::decode`].
    ///
    /// # Errors
    /// Options out of range, latents that are not finite, a caller that cancels.
    pub fn draw(
        &mut self,
        subjects: &[Subject],
        sampling: &SampleConfig,
        on_pass: &mut OnPass<'_>,
    ) -> Result<Array4<f32>> {
        let first = self.begin(subjects);
        let requests: Vec<_> = self.pictures[first..]
            .iter()
            .map(|&Routed { class, seed, .. }| ImageRequest { class, seed })
            .collect();
        let transformer = self.transformer.clone();
        Ok(
            transformer.generate_traced(&requests, sampling, &mut |step, trace| {
                self.count(first, step.step - 1, step.time, trace);
                on_pass(RoutingPass {
                    first,
                    pass: step.step,
                    passes: step.steps,
                })
            })?,
        )
    }

    /// Noises normalized latents `[pictures, channels, height, width]`, as [`DitModel::encode`] makes them, to evenly
    /// spaced times and counts at each.
    ///
    /// # Errors
    /// A score that is not finite, a caller that cancels.
    pub fn noise(
        &mut self,
        subjects: &[Subject],
        latents: &Array4<f32>,
        times: usize,
        on_pass: &mut OnPass<'_>,
    ) -> Result<()> {
        let first = self.begin(subjects);
        let labels: Vec<_> = subjects.iter().map(|subject| subject.class).collect();
        for at in 0..times {
            let time = (NOISE_TIME * (at as f32 + 0.5) / times as f32).floor();
            let latents = upload(latents.clone(), &self.transformer.device());
            let seed = self.seed + first as u64;
            let trace = self.transformer.route(latents, &labels, time, seed)?;
            check_finite(&trace).map_err(|error| {
                error.during(format!("at time {time} of {}", self.pictures[first].name))
            })?;
            self.count(first, at, time, &trace);
            let pass = RoutingPass {
                first,
                pass: at + 1,
                passes: times,
            };
            if on_pass(pass).is_break() {
                return Err(Error::Cancelled {
                    done: pass.pass,
                    total: times,
                    what: "times",
                });
            }
        }
        Ok(())
    }

    /// Adds pictures, of which nothing is counted yet; returns the index of the first.
    fn begin(&mut self, subjects: &[Subject]) -> usize {
        let first = self.pictures.len();
        let seq = self.transformer.config().seq();
        let seeds = self.seed + first as u64..;
        self.pictures
            .extend(subjects.iter().zip(seeds).map(|(subject, seed)| {
                let mapped = match subject.maps {
                    TokenMaps::None => 0,
                    TokenMaps::Counted => seq,
                };
                Routed {
                    name: subject.name.clone(),
                    class: subject.class,
                    seed,
                    active: Mean::default(),
                    maps: vec![Default::default(); mapped],
                }
            }));
        first
    }

    /// Counts a pass over the pictures from `first` on. What else is in the batch is the same without its class.
    fn count(&mut self, first: usize, at: usize, time: f32, trace: &RouterTrace) {
        if self.times.len() == at {
            self.times.push(time);
            self.active.push(vec![Mean::default(); self.usage.len()]);
        }
        let TimePart(part) = TimePart::of(time);
        let seq = self.transformer.config().seq();
        let pictures = &mut self.pictures[first..];
        for (layer, traced) in trace.layers.iter().enumerate() {
            let winners = traced.mask.first(pictures.len());
            self.usage[layer].add(&winners);
            for (token, row) in winners.rows().enumerate() {
                let picture = &mut pictures[token / seq];
                let experts = row.iter().filter(|&&has| has).count() as u64;
                picture.active.add(experts, 1);
                self.active[at][layer].add(experts, 1);
                if let Some(map) = picture.maps.get_mut(token % seq) {
                    map[part].add(experts, 1);
                }
            }
        }
    }

    /// The parts of the time that there were passes in, from the picture to noise.
    pub fn time_parts(&self) -> Vec<TimePart> {
        let mut parts: Vec<_> = self.times.iter().map(|&time| TimePart::of(time)).collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// The mean experts in a layer of each token of a picture, row by row: in a part of the time, or in all of it.
    /// Empty unless the picture's [`TokenMaps`] are counted.
    ///
    /// # Shapes
    /// `[height · width]` of the grid of tokens.
    ///
    /// # Panics
    /// If there is no such picture.
    pub fn token_map(&self, picture: usize, part: Option<TimePart>) -> Vec<f64> {
        let maps = self.pictures[picture].maps.iter();
        maps.map(|map| match part {
            Some(TimePart(part)) => map[part].value(),
            None => Mean::over(map.iter()).value(),
        })
        .collect()
    }

    /// All figures; `source` is reported as it is.
    pub fn report(&self, source: Source) -> Report {
        let thresholds = self.transformer.thresholds();
        let share = |loads: Vec<u64>| {
            let all = (loads.iter().sum::<u64>() as f64).max(1.0);
            loads.into_iter().map(|load| load as f64 / all).collect()
        };
        let layers = self.usage.iter().zip(1..).map(|(usage, layer)| Layer {
            layer,
            measures: Measures::of(usage),
            threshold: thresholds.get(layer - 1).copied(),
            load: share(usage.loads()),
        });
        let layers: Vec<_> = layers.collect();
        let times = self.times.iter().zip(&self.active);
        let mut times: Vec<_> = times
            .map(|(&time, active)| Time {
                time,
                mean_active: Mean::over(active.iter()).value(),
                layers: active.iter().map(|mean| mean.value()).collect(),
            })
            .collect();
        times.sort_by(|a, b| a.time.total_cmp(&b.time));
        let classes = self.card.class_names.iter().enumerate();
        let classes = classes.filter_map(|(class, name)| {
            let of_class = self.pictures.iter().filter(|one| one.class == Some(class));
            let pictures = of_class.clone().count();
            (pictures > 0).then(|| Class {
                class,
                name: name.clone(),
                pictures,
                mean_active: Mean::over(of_class.map(|one| &one.active)).value(),
            })
        });
        let pictures = self.pictures.iter().map(|one| Picture {
            name: one.name.clone(),
            class: one.class,
            seed: one.seed,
            mean_active: one.active.value(),
        });
        Report {
            model: self.card.name.clone(),
            process: self.transformer.config().process,
            experts: self.moe.experts,
            k: self.moe.k,
            rule: self.moe.rule,
            source,
            tokens_per_picture: self.transformer.config().seq(),
            mean: Measures::mean(&layers),
            times,
            classes: classes.collect(),
            pictures: pictures.collect(),
            layers,
        }
    }
}

impl Subject {
    /// A picture whose tokens are not counted one by one.
    pub fn new(name: impl Into<String>, class: Option<usize>) -> Self {
        Self {
            name: name.into(),
            class,
            maps: TokenMaps::None,
        }
    }
}

impl TimePart {
    /// The part that a time is in.
    fn of(time: f32) -> Self {
        Self(((time / NOISE_TIME * TIME_PARTS as f32) as usize).min(TIME_PARTS - 1))
    }

    /// Its first and last time, rounded.
    pub fn bounds(self) -> [f32; 2] {
        [self.0, self.0 + 1].map(|part| (NOISE_TIME * part as f32 / TIME_PARTS as f32).round())
    }
}

impl Measures {
    fn of(usage: &Usage) -> Self {
        Self {
            mean_active: usage.mean_active(),
            without: usage.share_without(),
            max_vio: usage.max_vio(),
            combination_usage: usage.combination_usage(),
        }
    }

    fn mean(layers: &[Layer]) -> Self {
        let mean = |of: fn(&Self) -> f64| {
            layers.iter().map(|layer| of(&layer.measures)).sum::<f64>() / layers.len() as f64
        };
        Self {
            mean_active: mean(|measures| measures.mean_active),
            without: mean(|measures| measures.without),
            max_vio: mean(|measures| measures.max_vio),
            combination_usage: mean(|measures| measures.combination_usage),
        }
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

    fn over<'a>(means: impl Iterator<Item = &'a Self>) -> Self {
        means.fold(Self::default(), |mut all, mean| {
            all.add(mean.sum, mean.of);
            all
        })
    }

    fn value(self) -> f64 {
        self.sum as f64 / (self.of as f64).max(1.0)
    }
}

/// A picture whose tokens were routed.
#[derive(Debug, Clone)]
struct Routed {
    name: String,
    class: Option<usize>,
    seed: u64,
    /// Experts of its tokens, over layers and times.
    active: Mean,
    /// Experts of each token in each part of the time, if they are counted one by one.
    maps: Vec<[Mean; TIME_PARTS]>,
}

/// Refuses scores that are not finite, which race as if they were.
fn check_finite(trace: &RouterTrace) -> Result<()> {
    for (traced, layer) in trace.layers.iter().zip(1..) {
        let logits = host_values(traced.logits.clone());
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(Error::ScoreNotFinite { layer });
        }
    }
    Ok(())
}
