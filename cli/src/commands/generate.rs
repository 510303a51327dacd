//! `tessera generate`.

use crate::args::{Compute, Global, WeightsKind};
use crate::draw::draw;
use crate::names::Names;
use crate::output::existing;
use crate::progress::loading;
use crate::sampling::SamplingArgs;
use crate::{output, ranks};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Instant;
use tessera::attention2d::Grid;
use tessera::backend::streams;
use tessera::pictures::{GridStyle, grid, write_png};
use tessera::{ImageParams, Model, Request, Sampling, Source, Which};

/// Generate pictures of a class.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera generate --class sneaker -n 8 --seed 1 -o out --grid\n  \
    tessera generate -m runs/dit -c dress -n 8 --cfg-scale 3 -o dresses --grid\n  \
    tessera generate -m runs/ar/model -c 3,7 -n 4 --steps 16 --cfg-scale 2 -o 'out/{class}_{seed}.png'\n  \
    tessera generate -m checkpoint-last.pth --vae kl16.ckpt -c 207 -n 4 -o dogs\n  \
    tessera generate --from out/00002.png -o again\n  \
    mpirun -n 4 tessera generate --class 3 --seed 7 --attn-grid 2x2 -o out")]
pub struct Generate {
    /// A model's folder, a run's folder, a released checkpoint (with --vae), or org/name in the hub's cache; the
    /// built-in Fashion-MNIST model unless given.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// The tokenizer of a released checkpoint, which comes without one.
    #[arg(long, value_name = "PATH", requires = "model")]
    vae: Option<PathBuf>,
    /// Which weights of a training checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, requires = "model", value_name = "KIND")]
    weights: Option<WeightsKind>,
    /// Classes, by id or name; `tessera classes` lists them. All of them unless given.
    #[arg(short, long, value_delimiter = ',', value_name = "CLASS,…")]
    class: Vec<String>,
    /// Pictures per class.
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    num_images: usize,
    /// Picture i is drawn from seed + i, whatever the batch; -1 draws a seed and prints it.
    #[arg(
        short,
        long,
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "N"
    )]
    seed: i64,
    /// Repeat the picture of this PNG, from its metadata.
    #[arg(long, value_name = "PNG", conflicts_with_all = ["class", "num_images", "seed"])]
    from: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// What the generator's linear maps are computed in; f32, or as --from has it, unless given.
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<Compute>,
    /// The ranks of mpirun as a grid, RxC, each with its share of the tokens: queries along rows, keys along columns.
    #[arg(long, value_name = "RxC")]
    attn_grid: Option<Grid>,
    /// Pictures drawn at once.
    #[arg(long, alias = "eval_bsz", default_value_t = 64, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// A folder, a file.png, or a pattern with %05d, {class} or {seed}.
    #[arg(short, long, default_value = "out", value_name = "PATH")]
    output: PathBuf,
    /// Also write grid.png, with as many columns as pictures per class, or RxC.
    #[arg(long, num_args = 0..=1, default_missing_value = "auto", value_name = "RxC")]
    grid: Option<String>,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
    /// Leave the settings out of the files.
    #[arg(long)]
    no_metadata: bool,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

impl Generate {
    /// Draws and writes the pictures.
    ///
    /// # Errors
    /// An unknown class, a setting out of range, an output that exists, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        let mut source = Source::of(self.model.as_deref()).weights(self.weights.map(Which::from));
        if let Some(vae) = &self.vae {
            source = source.vae(vae);
        }
        let model = loading(global.quiet, |progress| {
            Model::open(source.on_progress(progress), &device)
        })?;
        let (requests, sampling, dtype) = self.requests(&model, global.quiet)?;
        let model = model
            .in_precision(dtype.into())?
            .on(ranks::sequence(self.attn_grid)?)?;
        let total = requests.len();
        let generation = model
            .generate(requests, &sampling)
            .batch(self.batch_size as usize);
        if !ranks::first() {
            return draw(generation.without_pictures(), total, true, |_| Ok(()));
        }
        let names = Names::new(&self.output, total, self.overwrite)?;
        let columns = self
            .grid
            .as_deref()
            .map(|grid| columns(grid, total, self.num_images))
            .transpose()?;
        let started = Instant::now();
        let (mut written, mut cells) = (Vec::new(), Vec::new());
        draw(generation, total, global.quiet, |picture| {
            let params = picture.params;
            let path = names.path(picture.index, &params.class_name, params.seed);
            let texts = params.texts(&picture.pixels);
            let texts: Vec<_> = texts
                .iter()
                .filter(|_| !self.no_metadata)
                .map(|(key, text)| (*key, text.as_str()))
                .collect();
            write_png(&path, &picture.pixels, &texts, existing(self.overwrite))?;
            written.push((path, params));
            cells.extend(columns.is_some().then_some(picture.pixels));
            Ok(())
        })?;
        let seconds = started.elapsed().as_secs_f64();
        if let Some(columns) = columns {
            write_png(
                names.folder().join("grid.png"),
                &grid(&cells, columns, GridStyle::default())?,
                &[],
                existing(self.overwrite),
            )?;
        }
        if !global.quiet {
            let rate = total as f64 / seconds;
            output::note(format_args!(
                "{total} pictures in {seconds:.1} s ({rate:.2} images/s)"
            ));
        }
        self.report(&written, seconds)
    }

    fn requests(&self, model: &Model, quiet: bool) -> Result<(Vec<Request>, Sampling, Compute)> {
        if let Some(file) = &self.from {
            let params = ImageParams::read(file)?;
            if params.model != model.name() {
                bail!(
                    "{}: made by model `{}`, this one is `{}`",
                    file.display(),
                    params.model,
                    model.name()
                );
            }
            let request = Request::new(params.class, params.seed);
            let sampling = self.sampling.of_model(model, &params.sampling)?;
            let own = |_| anyhow::anyhow!("{}: its dtype is {:?}", file.display(), params.dtype);
            let dtype = match self.dtype {
                Some(dtype) => dtype,
                None => Compute::from_str(&params.dtype, false).map_err(own)?,
            };
            return Ok((vec![request], sampling, dtype));
        }
        let sampling = self.sampling.of_model(model, &model.sampling())?;
        let classes: Vec<usize> = match self.class.is_empty() {
            true => (0..model.class_names().len()).collect(),
            false => {
                let ids = self.class.iter().map(|class| model.class(class));
                ids.collect::<tessera::Result<_>>()?
            }
        };
        let seed = match u64::try_from(self.seed) {
            Ok(seed) => seed,
            Err(_) => {
                let now = std::time::SystemTime::UNIX_EPOCH
                    .elapsed()
                    .map_or(0, |time| time.as_nanos() as u64);
                // Small enough to be typed again.
                let seed = ranks::of_first(streams::FRESH_SEED.of(now).next_u32().into())?;
                if !quiet {
                    output::note(format_args!("seed {seed}"));
                }
                seed
            }
        };
        let classes = classes
            .into_iter()
            .flat_map(|class| std::iter::repeat_n(class, self.num_images));
        let requests = classes
            .zip(seed..)
            .map(|(class, seed)| Request::new(class, seed));
        Ok((requests.collect(), sampling, self.dtype.unwrap_or_default()))
    }

    fn report(&self, written: &[(PathBuf, ImageParams)], seconds: f64) -> Result<()> {
        if self.json {
            let images: Vec<_> = written
                .iter()
                .map(|(path, params)| serde_json::json!({ "path": path, "params": params }))
                .collect();
            let report = serde_json::json!({ "schema": "tessera.generate/v1", "seconds": seconds, "images": images });
            return output::json(&report);
        }
        written
            .iter()
            .try_for_each(|(path, _)| output::text(path.display()))
    }
}

/// Columns of a grid: `RxC` must hold all pictures; `auto` is a row per class, wrapped at 10.
fn columns(text: &str, pictures: usize, per_class: usize) -> Result<usize> {
    if text == "auto" {
        return Ok(per_class.min(pictures).clamp(1, 10));
    }
    let parsed = text
        .split_once('x')
        .and_then(|(r, c)| Some((r.parse::<usize>().ok()?, c.parse::<usize>().ok()?)));
    match parsed {
        Some((rows, columns)) if rows * columns >= pictures && columns > 0 => Ok(columns),
        Some((rows, columns)) => bail!(
            "--grid {text}: {} cells, expected {pictures} or more",
            rows * columns
        ),
        None => bail!("--grid {text}: expected rows x columns such as 2x4"),
    }
}
