//! `tessera route`: which experts the tokens of pictures have, by layer, time, class and place.

mod report;

use self::report::draw;
use crate::args::{Global, ModelArgs, WeightsKind, within};
use crate::pictures::{LeftOut, PictureArgs, Pictures};
use crate::progress::Progress;
use crate::{interrupt, output};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::PathBuf;
use tessera::gen_dit::SampleConfig;
use tessera::routing::{self, Routing, Shown, Subject};
use tessera::{DitModel, Error, Model, Tokenizer, class_id};

/// Classes drawn unless given.
const CLASSES: usize = 10;

/// Show which experts the tokens of pictures have: how evenly, how many, when and where.
///
/// Pictures are drawn as `generate` draws them, or with -i pictures of yours are noised to several times. A time is
/// between 0, the picture, and 1000, noise.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera route -m runs/race -c dress,hat -n 4 -o routes\n  \
    tessera route -m runs/race -i photos/ --class dress --times 20 -o photo-routes\n  \
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
    #[arg(
        short,
        long,
        default_value_t = 1,
        value_name = "N",
        conflicts_with = "input"
    )]
    #[arg(value_parser = within(1..=u16::MAX))]
    num_images: u16,
    /// The noise of picture i is of seed + i.
    #[arg(short, long, default_value_t = 0, value_name = "N", value_parser = within(0_u64..1 << 63))]
    seed: u64,
    /// Steps; the model's own unless given.
    #[arg(long, value_name = "N", conflicts_with = "input")]
    #[arg(value_parser = within(1_usize..=1000))]
    steps: Option<usize>,
    /// Guidance scale; 1 is none, the model's own unless given. Only what is told the class is counted.
    #[arg(
        long,
        visible_alias = "cfg",
        value_name = "X",
        conflicts_with = "input"
    )]
    #[arg(value_parser = within(0.0_f32..=1000.0))]
    cfg_scale: Option<f32>,
    /// Route these pictures: files, folders with all below them, or patterns with * and ?.
    #[arg(short, long, num_args = 1.., value_name = "PATH")]
    input: Vec<PathBuf>,
    /// Evenly spaced times to noise the pictures of -i to; 10 unless given.
    #[arg(long, value_name = "N", value_parser = within(1_u16..=1000), requires = "input")]
    times: Option<u16>,
    /// Pictures worked on at once.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = within(1..=u16::MAX))]
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
        let model = self.open(global)?;
        let ids = self
            .class
            .iter()
            .map(|class| class_id(class, &model.card.class_names));
        let mut classes = ids.collect::<tessera::Result<Vec<_>>>()?;
        if !self.input.is_empty() && classes.len() > 1 {
            bail!("--class: with -i the pictures are of one class, found several");
        }
        if let Some(folder) = &self.output {
            output::folder(folder, self.overwrite)?;
        }
        let routing = Routing::new(&model, self.seed)?;
        let (source, shown, left_out) = match self.input.is_empty() {
            true => {
                if classes.is_empty() {
                    classes = (0..model.card.class_names.len().min(CLASSES)).collect();
                }
                let sampling = self.sampling(&model.card.sampling);
                let shown = self.drawn(routing, &model, &classes, &sampling, global.quiet)?;
                let none = LeftOut::none_of(classes.len());
                (routing::Source::Drawn(sampling), shown, none)
            }
            false => {
                let times = usize::from(self.times.unwrap_or(10));
                let class = classes.first().copied();
                let (shown, left_out) = self.given(routing, model, class, times, global.quiet)?;
                (routing::Source::Pictures { times }, shown, left_out)
            }
        };
        let report = shown.routing.report(source);
        if let Some(folder) = &self.output {
            draw(folder, &report, &shown)?;
        }
        match self.json {
            true => output::report("tessera.route/v1", &report)?,
            false => output::text(report.to_string().trim_end())?,
        }
        left_out.all_done()
    }

    /// The model, which must have experts.
    fn open(&self, global: &Global) -> Result<DitModel> {
        let device = global.open()?;
        let model = ModelArgs {
            model: Some(self.model.clone()),
            vae: self.vae.clone(),
            weights: self.weights,
        };
        let opened = model.open(&device, global.quiet)?;
        let shown = self.model.display();
        let Model::Dit(model) = opened else {
            bail!(
                "{shown}: expected a diffusion transformer with experts, found the autoregressive model `{}`",
                opened.name()
            );
        };
        if model.transformer.config().moe.is_none() {
            bail!(
                "{shown}: expected a diffusion transformer with experts, found the dense one `{}`; \
                `tessera train dit --experts 2-in-8` trains one with",
                model.card.name
            );
        }
        Ok(model)
    }

    /// The model's own options, less those given.
    fn sampling(&self, own: &SampleConfig) -> SampleConfig {
        let cfg_scale = self.cfg_scale.unwrap_or(own.cfg_scale);
        SampleConfig::new(self.steps.unwrap_or(own.steps), cfg_scale)
    }

    /// Draws pictures and counts at every step.
    fn drawn(
        &self,
        routing: Routing,
        model: &DitModel,
        classes: &[usize],
        sampling: &SampleConfig,
        quiet: bool,
    ) -> Result<Shown> {
        sampling.validate()?;
        let each = usize::from(self.num_images);
        let classes = classes
            .iter()
            .flat_map(|&class| std::iter::repeat_n(class, each));
        let subjects = classes.zip(self.seed..).map(|(class, seed)| {
            let name = format!("{} {seed}", model.card.class_names[class]);
            Subject::new(name, Some(class))
        });
        let subjects: Vec<_> = subjects.collect();
        let total = subjects.len();
        let mut shown = Shown::new(routing, total);
        let mut progress = Progress::new("route", "images", total as u64, quiet);
        for batch in subjects.chunks(self.batch_size.into()) {
            let first = shown.routing.pictures();
            let batch = shown.mapped(batch);
            let latents = shown.routing.draw(&batch, sampling, &mut |at| {
                let done = first + batch.len() * at.pass / at.passes;
                progress.set(done as u64, format!("step {}/{}", at.pass, at.passes));
                interrupt::flow()
            });
            let latents = latents.with_context(|| format!("after {first} of {total} images"))?;
            // Also without an output folder: what a model draws that is not finite is no route of it.
            shown.show(first, model.decode(latents)?);
        }
        progress.finish();
        Ok(shown)
    }

    /// Noises pictures to several times and counts at each. Also returns which could not be read.
    fn given(
        &self,
        routing: Routing,
        model: DitModel,
        class: Option<usize>,
        times: usize,
        quiet: bool,
    ) -> Result<(Shown, LeftOut)> {
        let card = model.card.clone();
        let tokenizer = Tokenizer::from(model);
        let args = PictureArgs {
            input: self.input.clone(),
            data: None,
            train_split: false,
            limit: None,
        };
        let pictures = Pictures::open(&args, &tokenizer, quiet)?;
        let mut shown = Shown::new(routing, pictures.len());
        let total = pictures.len() * times;
        let mut progress = Progress::new("route", "passes", total as u64, quiet);
        let left_out = pictures.batches(&tokenizer, |batch| {
            for batch in batch.chunks(self.batch_size.into()) {
                let first = shown.routing.pictures();
                let images: Vec<_> = batch.iter().map(|picture| picture.image.clone()).collect();
                let latents = card.normalize(tokenizer.encode(&images)?);
                let subjects = batch
                    .iter()
                    .map(|picture| Subject::new(&picture.name, class));
                let subjects = shown.mapped(&subjects.collect::<Vec<_>>());
                let noised = shown.routing.noise(&subjects, &latents, times, &mut |at| {
                    let done = first * times + at.pass * batch.len();
                    progress.set(done as u64, "");
                    interrupt::flow()
                });
                if let Err(Error::Cancelled { .. }) = noised {
                    bail!("stopped after {first} of {} pictures", pictures.len());
                }
                noised?;
                let finished = images.iter().map(|image| tokenizer.finish(image.view()));
                shown.show(first, finished.collect::<tessera::Result<_>>()?);
            }
            Ok(())
        })?;
        progress.finish();
        Ok((shown, left_out))
    }
}
