//! `tessera generate`.

use crate::args::{Compute, Global, WeightsKind};
use crate::bundle::Source;
use crate::generator::Generator;
use crate::names::Names;
use crate::sampling::SamplingArgs;
use crate::{labels, output, ranks};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tessera_attention2d::Grid;
use tessera_backend::Rng;
use tessera_gen_ar::{ImageRequest, SampleConfig};
use tessera_tokenizer::{GridStyle, Pixels, grid, read_metadata, write_png};
use tessera_train::Which;

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
    /// A model's folder, a run's folder, a released checkpoint (with --vae), or org/name in the hub's cache; the built-in Fashion-MNIST
    /// model unless given.
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
    batch_size: usize,
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

/// What made a picture: the PNG's text `tessera`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Params {
    schema: String,
    model: String,
    version: String,
    class: usize,
    class_name: String,
    seed: u64,
    #[serde(flatten)]
    sampling: SampleConfig,
    #[serde(default)]
    dtype: Compute,
}

const SCHEMA: &str = "tessera.image.params/v1";

impl Generate {
    /// Draws and writes the pictures.
    ///
    /// # Errors
    /// An unknown class, a setting out of range, an output that exists, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.device.open()?;
        let source = Source {
            model: self.model.as_deref(),
            vae: self.vae.as_deref(),
            which: self.weights.map(Which::from),
            quiet: global.quiet,
        };
        let model = Generator::open(&source, &device)?;
        let (requests, config, dtype) = self.requests(&model, global.quiet)?;
        let model = model
            .in_precision(dtype.into())?
            .on(ranks::sequence(self.attn_grid)?)?;
        if !ranks::first() {
            let nothing = |_, _| Ok(());
            return model.draw(&requests, &config, self.batch_size, true, nothing);
        }
        let names = Names::new(&self.output, requests.len(), self.overwrite)?;
        let columns = self
            .grid
            .as_deref()
            .map(|grid| columns(grid, requests.len(), self.num_images))
            .transpose()?;
        let started = Instant::now();
        let (mut written, mut cells) = (Vec::new(), Vec::new());
        model.draw(
            &requests,
            &config,
            self.batch_size,
            global.quiet,
            |first, pictures| {
                for (i, picture) in (first..).zip(pictures) {
                    let params = params(&model, requests[i], &config, dtype);
                    let path = names.path(i, &params.class_name, params.seed);
                    let text = if self.no_metadata {
                        Vec::new()
                    } else {
                        texts(&params, &picture)
                    };
                    let text: Vec<_> = text
                        .iter()
                        .map(|(key, value)| (*key, value.as_str()))
                        .collect();
                    write_png(&path, &picture, &text, self.overwrite)?;
                    written.push((path, params));
                    cells.extend(columns.is_some().then_some(picture));
                }
                Ok(())
            },
        )?;
        let seconds = started.elapsed().as_secs_f64();
        if let Some(columns) = columns {
            write_png(
                names.folder().join("grid.png"),
                &grid(&cells, columns, GridStyle::default())?,
                &[],
                self.overwrite,
            )?;
        }
        if !global.quiet {
            let rate = requests.len() as f64 / seconds;
            eprintln!(
                "{} pictures in {seconds:.1} s ({rate:.2} images/s)",
                requests.len()
            );
        }
        self.report(&written, seconds)
    }

    fn requests(
        &self,
        model: &Generator,
        quiet: bool,
    ) -> Result<(Vec<ImageRequest>, SampleConfig, Compute)> {
        if let Some(file) = &self.from {
            let params = read_params(file)?;
            if params.model != model.name() {
                bail!(
                    "{}: made by model `{}`, this one is `{}`",
                    file.display(),
                    params.model,
                    model.name()
                );
            }
            let request = ImageRequest {
                class: Some(params.class),
                seed: params.seed,
            };
            let config = model.settings(&self.sampling, &params.sampling)?;
            return Ok((vec![request], config, self.dtype.unwrap_or(params.dtype)));
        }
        let config = model.settings(&self.sampling, &model.defaults())?;
        let classes = match self.class.is_empty() {
            true => (0..model.class_names().len()).collect(),
            false => labels::resolve(&self.class, model.class_names())?,
        };
        let seed = match u64::try_from(self.seed) {
            Ok(seed) => seed,
            Err(_) => {
                let now = std::time::SystemTime::UNIX_EPOCH
                    .elapsed()
                    .map_or(0, |time| time.as_nanos() as u64);
                // Small enough to be typed again.
                let seed = ranks::of_first(Rng::new(now, 0).next_u32().into())?;
                if !quiet {
                    eprintln!("seed {seed}");
                }
                seed
            }
        };
        let classes = classes
            .into_iter()
            .flat_map(|class| std::iter::repeat_n(class, self.num_images));
        let requests = classes.zip(seed..).map(|(class, seed)| ImageRequest {
            class: Some(class),
            seed,
        });
        Ok((requests.collect(), config, self.dtype.unwrap_or_default()))
    }

    fn report(&self, written: &[(PathBuf, Params)], seconds: f64) -> Result<()> {
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

fn params(
    model: &Generator,
    request: ImageRequest,
    config: &SampleConfig,
    dtype: Compute,
) -> Params {
    let class = request
        .class
        .expect("every request of this command has its class");
    Params {
        schema: SCHEMA.into(),
        model: model.name().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        class,
        class_name: model.class_names()[class].clone(),
        seed: request.seed,
        sampling: config.clone(),
        dtype,
    }
}

/// The settings as people's programs read them (`parameters`) and as ours does (`tessera`).
fn texts(params: &Params, picture: &Pixels) -> Vec<(&'static str, String)> {
    let SampleConfig {
        steps,
        cfg_scale,
        temperature,
        ..
    } = params.sampling;
    let text = format!(
        "{}\nSteps: {steps}, CFG scale: {cfg_scale}, Temperature: {temperature}, Seed: {}, Size: {}x{}, Model: {}, Version: {}",
        params.class_name,
        params.seed,
        picture.width(),
        picture.height(),
        params.model,
        params.version
    );
    let json = serde_json::to_string(params).expect("settings are numbers and names");
    vec![("parameters", text), ("tessera", json)]
}

fn read_params(file: &Path) -> Result<Params> {
    let texts = read_metadata(file)?;
    let Some((_, json)) = texts.iter().find(|(key, _)| key == "tessera") else {
        bail!(
            "{}: has no text `tessera`: it was not made by `tessera generate`, or with --no-metadata",
            file.display()
        );
    };
    let params: Params = serde_json::from_str(json)
        .with_context(|| format!("{}: its text `tessera` is damaged", file.display()))?;
    if params.schema != SCHEMA {
        bail!(
            "{}: schema is {:?}, expected {SCHEMA:?}",
            file.display(),
            params.schema
        );
    }
    Ok(params)
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
