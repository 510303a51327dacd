//! `tessera generate`.

use crate::args::{Compute, Global, MOST_PICTURES, ModelArgs, within};
use crate::draw::{draw, draw_divided};
use crate::names::names;
use crate::output::{existing, shown};
use crate::sampling::SamplingArgs;
use crate::{output, ranks};
use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;
use tessera::attention2d::Grid;
use tessera::backend::streams;
use tessera::pictures::{GridStyle, grid, write_png};
use tessera::{ClassList, Divided, ImageParams, Model, Named, Picture, Request, Sampling};

/// Generate pictures of a class.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera generate --class dress -n 8 --seed 1 -o out --grid\n  \
    tessera generate -m runs/dit -c dress -n 8 --cfg-scale 3 -o dresses --grid\n  \
    tessera generate -m runs/ar/model -c 3,7 -n 4 --steps 16 --cfg-scale 2 -o 'out/{class}_{seed}.png'\n  \
    tessera generate -m runs/birds/model -c '\"owl, barn\",crow' -n 4 -o birds\n  \
    tessera generate -m checkpoint-last.pth --vae kl16.ckpt -c 207 -n 4 -o dogs\n  \
    tessera generate --from out/00002.png -o again\n  \
    mpirun -n 4 tessera generate --class 3 --seed 7 --attn-grid 2x2 -o shared\n  \
    mpirun -n 4 tessera generate --class 3 -n 100 -o divided")]
pub struct Generate {
    #[command(flatten)]
    model: ModelArgs,
    /// Classes, by name or id, or `all`; `tessera classes` lists them. A name with a comma in it stands in double
    /// quotes. All of them unless given, where a model has 100 or fewer.
    #[arg(short, long, value_name = "CLASS,…")]
    class: Vec<ClassList>,
    /// Draw pictures of no class in particular.
    #[arg(long, conflicts_with = "class")]
    unconditional: bool,
    /// Pictures per class.
    #[arg(short, long, default_value_t = 1, value_name = "N", value_parser = within(1..=MOST_PICTURES))]
    num_images: usize,
    /// Picture i is drawn from seed + i, whatever the batch; -1 draws a seed and prints it.
    #[arg(short, long, default_value = "0", value_name = "N")]
    seed: Seed,
    /// Repeat the picture of this PNG, from its metadata.
    #[arg(long, value_name = "PNG", conflicts_with_all = ["class", "unconditional", "num_images", "seed"])]
    from: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// What the generator's linear maps are computed in; f32, or as --from has it, unless given.
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<Compute>,
    /// The ranks of mpirun as a grid, RxC, each with its share of every picture's tokens: queries along rows, keys
    /// along columns; the pictures are divided between the ranks unless given.
    #[arg(long, value_name = "RxC")]
    attn_grid: Option<Grid>,
    /// Pictures drawn at once.
    #[arg(long, alias = "eval_bsz", default_value_t = 64, value_name = "N")]
    #[arg(value_parser = within(1..=MOST_PICTURES))]
    batch_size: usize,
    /// A folder, a file.png, or a pattern with %05d, {class} or {seed} in the file's name, and %% for a percent sign.
    /// Classes that would be the same file's name get their ids.
    #[arg(short, long, default_value = "out", value_name = "PATH")]
    output: PathBuf,
    /// Also write grid.png, with as many columns as pictures per class, or RxC.
    #[arg(long, num_args = 0..=1, default_missing_value = "auto", value_name = "RxC")]
    grid: Option<String>,
    /// Write into a folder that is not empty, and over files of the same names.
    #[arg(long)]
    overwrite: bool,
    /// Leave the settings out of the files.
    #[arg(long)]
    no_metadata: bool,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

/// The file that pictures are shown in together.
const GRID: &str = "grid.png";

/// Pictures that one grid shows at most.
const MOST_IN_GRID: usize = 10_000;

/// Classes that are drawn where none is asked for; of more, one forgets how many there are.
const MOST_UNASKED: usize = 100;

/// Where randomness starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seed {
    Given(u64),
    Fresh,
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.trim(), text.trim().parse()) {
            ("-1", _) => Ok(Self::Fresh),
            (_, Ok(seed)) => Ok(Self::Given(seed)),
            _ => Err(format!(
                "expected a whole number of 0 to {}, or -1 for a seed that is drawn",
                u64::MAX
            )),
        }
    }
}

/// What is drawn: so many pictures of every class, the seeds one after another.
#[derive(Debug)]
struct Requests {
    /// None where pictures are of no class.
    classes: Vec<Option<usize>>,
    per_class: usize,
    seed: u64,
}

impl Requests {
    /// Checks that there are not too many, nor more than seeds.
    fn new(classes: Vec<Option<usize>>, per_class: usize, seed: u64) -> Result<Self> {
        let total = classes.len().saturating_mul(per_class);
        ensure!(
            total <= MOST_PICTURES,
            "{} classes of {per_class} pictures each: expected {MOST_PICTURES} pictures or fewer at a time",
            classes.len()
        );
        ensure!(
            total as u64 - 1 <= u64::MAX - seed,
            "--seed {seed}: picture i is drawn from seed + i, and of {total} pictures the last would be above {}",
            u64::MAX
        );
        Ok(Self {
            classes,
            per_class,
            seed,
        })
    }

    fn total(&self) -> usize {
        self.classes.len() * self.per_class
    }

    fn get(&self, number: usize) -> Request {
        Request {
            class: self.classes[number / self.per_class],
            seed: self.seed + number as u64,
        }
    }

    /// What the file of a picture is named after.
    fn named<'a>(&self, number: usize, model: &'a Model) -> Named<'a> {
        let Request { class, seed } = self.get(number);
        Named {
            number,
            class: class.map(|id| (id, &*model.class_names()[id])),
            seed,
        }
    }
}

impl Generate {
    /// Draws and writes the pictures.
    ///
    /// # Errors
    /// An unknown class, a setting out of range, an output that exists, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        let sequence = ranks::sequence(self.attn_grid)?;
        let model = self.model.open(&device, global.quiet)?;
        let (folder, vae) = (self.model.model.as_deref(), self.model.vae.as_deref());
        ranks::require_same_model(&model, folder, vae, &device)?;
        let (requests, sampling, dtype) = self.requests(&model, global.quiet)?;
        let total = requests.total();
        let columns = self.grid.as_deref();
        let columns = columns
            .map(|grid| columns_of(grid, total, self.num_images))
            .transpose()?;
        let named = (0..total).map(|number| requests.named(number, &model));
        let names = match ranks::first() {
            true => {
                let others: &[&str] = if columns.is_some() { &[GRID] } else { &[] };
                Some(names(&self.output, named, others, self.overwrite)?)
            }
            false => None,
        };
        let model = model.in_precision(dtype.into())?.on(sequence)?;
        global.say_widened(model.device(), dtype);
        if total > 1 && !global.quiet {
            output::note(format_args!("{total} pictures to draw"));
        }
        let started = Instant::now();
        let (mut written, mut cells) = (Vec::new(), Vec::new());
        let each = |picture: Picture| {
            let Some(names) = &names else {
                return Ok(());
            };
            let params = picture.params;
            let path = names.path(requests.named(picture.index, &model));
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
        };
        let request = |number| requests.get(number);
        let drawn = match self.attn_grid {
            // All draw every picture together.
            Some(_) => {
                let generation = model.generate((0..total).map(request), &sampling);
                let generation = match names {
                    Some(_) => generation,
                    None => generation.without_pictures(),
                };
                draw(generation.batch(self.batch_size), total, global.quiet, each)
            }
            None => {
                let divided = Divided {
                    model: &model,
                    sampling: &sampling,
                    total,
                    request,
                    batch: self.batch_size,
                };
                draw_divided(&divided, ranks::world(), global.quiet, each)
            }
        };
        let Some(names) = &names else {
            return drawn;
        };
        let seconds = started.elapsed().as_secs_f64();
        let drawn = drawn.and_then(|()| {
            let Some(columns) = columns else {
                return Ok(());
            };
            let grid = grid(&cells, columns, GridStyle::default())?;
            let path = names.folder().join(GRID);
            Ok(write_png(path, &grid, &[], existing(self.overwrite))?)
        });
        if drawn.is_ok() && !global.quiet {
            let rate = total as f64 / seconds;
            let pictures = if total == 1 { "picture" } else { "pictures" };
            output::note(format_args!(
                "{total} {pictures} in {seconds:.1} s ({rate:.2} images/s)"
            ));
        }
        // Whatever failed, the files that are there are named.
        let listed = match written.is_empty() && drawn.is_err() {
            true => Ok(()),
            false => self.report(&written, seconds),
        };
        drawn.and(listed)
    }

    fn requests(&self, model: &Model, quiet: bool) -> Result<(Requests, Sampling, Compute)> {
        if let Some(file) = &self.from {
            let params = ImageParams::read(file)?;
            params.require_model(model, file)?;
            ensure!(
                self.sampling.preset.is_none(),
                "--preset: {} has its own steps, order and cache; those may be given one by one",
                file.display()
            );
            let requests = Requests::new(vec![params.class], 1, params.seed)?;
            let sampling = self.sampling.of_model(model, &params.sampling)?;
            let own = |_| anyhow::anyhow!("{}: its dtype is {:?}", file.display(), params.dtype);
            let dtype = match self.dtype {
                Some(dtype) => dtype,
                None => Compute::from_str(&params.dtype, false).map_err(own)?,
            };
            return Ok((requests, sampling, dtype));
        }
        let sampling = self.sampling.of_model(model, &model.sampling())?;
        let classes = self.classes(model)?;
        // Before a seed is drawn and told.
        Requests::new(classes.clone(), self.num_images, 0)?;
        let seed = match self.seed {
            Seed::Given(seed) => seed,
            Seed::Fresh => {
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
        let requests = Requests::new(classes, self.num_images, seed)?;
        Ok((requests, sampling, self.dtype.unwrap_or_default()))
    }

    /// The classes that are asked for.
    fn classes(&self, model: &Model) -> Result<Vec<Option<usize>>> {
        let all = model.class_names().len();
        if self.unconditional {
            return Ok(vec![None]);
        }
        ensure!(all > 0, "the model has no classes: give --unconditional");
        if self.class.is_empty() {
            ensure!(
                all <= MOST_UNASKED,
                "the model has {all} classes: give those to draw with --class, or --class all"
            );
            return Ok((0..all).map(Some).collect());
        }
        let mut classes = Vec::new();
        for name in self.class.iter().flat_map(ClassList::names) {
            match model.class(name) {
                Ok(id) => classes.push(Some(id)),
                Err(_) if name == "all" => classes.extend((0..all).map(Some)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(classes)
    }

    fn report(&self, written: &[(PathBuf, ImageParams)], seconds: f64) -> Result<()> {
        if self.json {
            let images: Vec<_> = written
                .iter()
                .map(|(path, params)| {
                    serde_json::json!({ "path": path.to_string_lossy(), "params": params })
                })
                .collect();
            let report = serde_json::json!({ "schema": "tessera.generate/v1", "seconds": seconds, "images": images });
            return output::json(&report);
        }
        written
            .iter()
            .try_for_each(|(path, _)| output::text(shown(path.display())))
    }
}

/// Columns of a grid: `RxC` must hold all pictures; `auto` is a row per class, wrapped at 10.
fn columns_of(text: &str, pictures: usize, per_class: usize) -> Result<usize> {
    ensure!(
        pictures <= MOST_IN_GRID,
        "--grid: {pictures} pictures, expected {MOST_IN_GRID} or fewer"
    );
    if text == "auto" {
        return Ok(per_class.min(pictures).clamp(1, 10));
    }
    let side = |text: &str| {
        text.parse()
            .ok()
            .filter(|side| (1..=MOST_IN_GRID).contains(side))
    };
    let parsed = text
        .split_once('x')
        .and_then(|(r, c)| Some((side(r)?, side(c)?)));
    match parsed {
        Some((rows, columns)) if rows * columns >= pictures => Ok(columns),
        Some((rows, columns)) => bail!(
            "--grid {text}: {} cells, expected {pictures} or more",
            rows * columns
        ),
        None => bail!(
            "--grid {text}: expected rows x columns such as 2x4, of {MOST_IN_GRID} at most each"
        ),
    }
}
