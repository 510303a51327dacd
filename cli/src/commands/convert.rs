//! `tessera convert`: weights of any format to safetensors with a config beside them.

use crate::args::{Dtype, Global, WeightsKind};
use crate::output;
use crate::progress::LoadProgress;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tessera::checkpoint::{Checkpoint, Dtype as StoredDtype, StateDict};
use tessera::evaluate::Classifier;
use tessera::gen_ar::{BUFFERS, CONFIG_FILE};
use tessera::gen_dit::DitConfig;
use tessera::quantize::Calibration;
use tessera::tokenizers::{load_tokenizer, open_tokenizer};
use tessera::weights::{Loaded, Weights};
use tessera::{
    ArCard, Architecture, CARD_FILE, Device, DitCard, ModelCard, WeightDtype, Which, base_name,
    counted, dit_config, generator_config, hub,
};

/// A megabyte, as file sizes are given.
const MEGA: u64 = 1_000_000;

/// Convert weights (PyTorch's .pth, .pt and .ckpt, safetensors whole or in shards, diffusers' folders) to safetensors.
///
/// Writes model.safetensors and, where the weights say what they are of, config.json. A generator with --vae becomes a
/// whole model folder, for `generate -m`. Of a training checkpoint the averaged weights are taken if there are any.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera convert checkpoint-last.pth --vae kl16.ckpt -o tokenbridge-l\n  \
    tessera convert kl16.ckpt -o kl16\n  \
    tessera convert checkpoint-last.pth --weights raw --dtype bf16 --shard 1GB -o raw\n  \
    tessera convert stabilityai/sd-vae-ft-mse -o vae")]
pub struct Convert {
    /// A file, a folder, or org/name in the hub's cache.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Folder for the result.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The tokenizer of a generator: makes a whole model folder.
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    /// Which weights of a training checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND")]
    weights: Option<WeightsKind>,
    /// The same as --weights ema: fail if there is no average.
    #[arg(long, conflicts_with = "weights")]
    ema: bool,
    /// How to store the weights; as they are unless given.
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<Dtype>,
    /// Split into files of at most this size, such as 2GB or 500MB, with an index.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    shard: Option<u64>,
    /// The sizes of a generator whose number of heads its shapes do not tell.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    #[serde(flatten)]
    origin: Origin,
    tensors: usize,
    total_size: u64,
    files: Vec<String>,
}

/// Where the weights came from.
#[derive(Debug, Serialize)]
struct Origin {
    architecture: Option<Architecture>,
    format: String,
    weights: Option<&'static str>,
    left_out: BTreeMap<String, usize>,
}

impl Convert {
    /// Reads, names and writes.
    ///
    /// # Errors
    /// A file that cannot be read, an output folder that is in use, weights that do not fit what they are of.
    pub fn run(self, global: &Global) -> Result<()> {
        let input = hub::locate(&self.input)?;
        let which = match self.ema {
            true => Some(Which::Ema),
            false => self.weights.map(Which::from),
        };
        output::folder(&self.output, self.overwrite)?;
        let report = match input.exists() {
            // The common name of a tokenizer in two files is none itself.
            false => self.tokenizer(&input, which, None, global)?,
            true => {
                let checkpoint = Checkpoint::open(&input)?;
                let found = checkpoint.state_dict(which)?;
                let origin = Origin::of(&checkpoint, &found);
                let weights = Weights::of_state_dict(&checkpoint, found);
                match origin.architecture {
                    Some(Architecture::TokenBridge) => {
                        self.generator(&input, weights, origin, global)?
                    }
                    Some(Architecture::Dit) => self.dit(&input, weights, origin, global)?,
                    Some(architecture) if architecture.is_tokenizer() => {
                        self.tokenizer(&input, which, Some(origin), global)?
                    }
                    _ => self.plain(&input, &weights, origin, global)?,
                }
            }
        };
        match self.json {
            true => output::json(&report),
            false => output::text(report.describe(&self.output)),
        }
    }

    /// A generator: its names stay, its config is read, given, or told by the shapes.
    fn generator(
        &self,
        input: &Path,
        mut weights: Weights,
        origin: Origin,
        global: &Global,
    ) -> Result<Report> {
        for buffer in BUFFERS {
            if let Some(table) = weights.take(buffer) {
                weights.insert(buffer, table.exact());
            }
        }
        let config = match &self.config {
            Some(file) => {
                let json = std::fs::read(file)
                    .with_context(|| format!("{}: cannot read", file.display()))?;
                serde_json::from_slice(&json)
                    .with_context(|| format!("{}: not a generator's config", file.display()))?
            }
            None => generator_config(input, &weights)?,
        };
        config.validate()?;
        let mut parameters = weights.clone();
        for buffer in &BUFFERS[1..] {
            parameters.take(buffer);
        }
        let device = global.open()?;
        parameters.fits(&config.init(&vec![0.0; config.levels], 0, device.burn()))?;
        let dtype = self.dtype.map(WeightDtype::from);
        let report = self.write(&weights, origin, dtype, global)?;
        config.save(&self.output)?;
        if let Some(vae) = &self.vae {
            let opened = open_tokenizer(hub::locate(vae)?, None, device.burn())?;
            let card = ArCard::of_released(&base_name(&self.output), &config, &opened);
            let dtype = self.dtype.map_or(WeightDtype::F32, WeightDtype::from);
            opened.tokenizer.save_dir(&self.output.join("vae"), dtype)?;
            card.save(&self.output)?;
        } else if input.join(CARD_FILE).is_file() {
            self.rest_of_model(input, &device)?;
        }
        Ok(report)
    }

    /// A diffusion transformer: its names stay, its config is read, given, or told by the shapes.
    fn dit(
        &self,
        input: &Path,
        weights: Weights,
        origin: Origin,
        global: &Global,
    ) -> Result<Report> {
        let config: DitConfig = match &self.config {
            Some(file) => {
                let json = std::fs::read(file)
                    .with_context(|| format!("{}: cannot read", file.display()))?;
                serde_json::from_slice(&json).with_context(|| {
                    format!("{}: no diffusion transformer's config", file.display())
                })?
            }
            None => dit_config(input, &weights)?,
        };
        config.validate()?;
        let device = global.open()?;
        weights.fits(&config.init(0, device.burn()))?;
        let report = self.write(&weights, origin, self.dtype.map(WeightDtype::from), global)?;
        config.save(&self.output)?;
        let dtype = self.dtype.map_or(WeightDtype::F32, WeightDtype::from);
        if let Some(vae) = &self.vae {
            let opened = open_tokenizer(hub::locate(vae)?, None, device.burn())?;
            let card = DitCard::of_released(&base_name(&self.output), &config, &opened);
            opened.tokenizer.save_dir(&self.output.join("vae"), dtype)?;
            card.save(&self.output)?;
        } else if input.join(CARD_FILE).is_file() {
            let vae = load_tokenizer(input.join("vae"), device.burn())?;
            vae.save_dir(&self.output.join("vae"), dtype)?;
            ModelCard::read(input)?.save(&self.output)?;
        }
        Ok(report)
    }

    /// What a model folder has beside its generator.
    fn rest_of_model(&self, input: &Path, device: &Device) -> Result<()> {
        let dtype = self.dtype.map_or(WeightDtype::F32, WeightDtype::from);
        let vae = load_tokenizer(input.join("vae"), device.burn())?;
        vae.save_dir(&self.output.join("vae"), dtype)?;
        let judge = input.join("judge");
        if judge.is_dir() {
            Classifier::load_dir(&judge, device.burn())?
                .save_dir(self.output.join("judge"), dtype)?;
        }
        let calibration = input.join("calibration.json");
        if calibration.is_file() {
            Calibration::load(calibration)?.save(self.output.join("calibration.json"))?;
        }
        Ok(ModelCard::read(input)?.save(&self.output)?)
    }

    /// A tokenizer: loaded, which checks it and translates its names, and saved. In two files it has no one origin.
    fn tokenizer(
        &self,
        input: &Path,
        which: Option<Which>,
        origin: Option<Origin>,
        global: &Global,
    ) -> Result<Report> {
        if self.vae.is_some() {
            bail!(
                "{}: is a tokenizer itself; --vae goes with a generator",
                input.display()
            );
        }
        let opened = open_tokenizer(input, which, global.open()?.burn())?;
        let origin = match origin {
            Some(origin) => origin,
            None => {
                let half = Checkpoint::open(&opened.files[0])?;
                Origin {
                    architecture: Some(Architecture::TinyAutoencoder),
                    ..Origin::of(&half, &half.state_dict(which)?)
                }
            }
        };
        let aside = tempfile::tempdir_in(&self.output).context("cannot make a temporary folder")?;
        opened.tokenizer.save_dir(aside.path(), WeightDtype::F32)?;
        let weights = Weights::read(aside.path())?;
        let dtype = self
            .dtype
            .map_or_else(|| stored(&opened.files), |dtype| Ok(dtype.into()))?;
        let report = self.write(&weights, origin, Some(dtype), global)?;
        std::fs::rename(
            aside.path().join(CONFIG_FILE),
            self.output.join(CONFIG_FILE),
        )
        .with_context(|| format!("{}: cannot write", self.output.join(CONFIG_FILE).display()))?;
        Ok(report)
    }

    /// What is not known here keeps its names and gets no config.
    fn plain(
        &self,
        input: &Path,
        weights: &Weights,
        origin: Origin,
        global: &Global,
    ) -> Result<Report> {
        if !global.quiet {
            let what = origin
                .architecture
                .map_or("model that is not known here", Architecture::name);
            eprintln!(
                "note: {}: a {what}; it keeps its names and gets no config.json",
                input.display()
            );
        }
        self.write(weights, origin, self.dtype.map(WeightDtype::from), global)
    }

    /// Writes the tensors; `None` for the type keeps that of each.
    fn write(
        &self,
        weights: &Weights,
        origin: Origin,
        dtype: Option<WeightDtype>,
        global: &Global,
    ) -> Result<Report> {
        let mut progress = LoadProgress::new(global.quiet);
        let mut done = 0;
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let shards = weights.write_shards(
            &self.output,
            &metadata,
            dtype,
            self.shard.unwrap_or(u64::MAX),
            || {
                done += 1;
                progress.set(Loaded {
                    tensors: done,
                    of: weights.len(),
                });
            },
        )?;
        progress.finish();
        Ok(Report {
            schema: "tessera.convert/v1",
            origin,
            tensors: weights.len(),
            total_size: shards.total_size,
            files: shards.files,
        })
    }
}

impl Origin {
    fn of(checkpoint: &Checkpoint, found: &StateDict) -> Self {
        Self {
            architecture: Architecture::of_names(found.tensors.keys().map(String::as_str)),
            format: checkpoint.format.to_string(),
            weights: found.which.map(Which::name),
            left_out: found.left_out.clone(),
        }
    }
}

impl Report {
    fn describe(&self, folder: &Path) -> String {
        let weights = self
            .origin
            .weights
            .map_or(String::new(), |which| format!(", {which} weights"));
        let mut text = format!(
            "{} from {}{weights}: {} tensors, {:.1} MB in {}",
            self.origin
                .architecture
                .map_or("unknown model", Architecture::name),
            self.origin.format,
            self.tensors,
            self.total_size as f64 / MEGA as f64,
            match &self.files[..] {
                [file] => folder.join(file).display().to_string(),
                files => format!("{} files in {}", files.len(), folder.display()),
            }
        );
        if !self.origin.left_out.is_empty() {
            text += &format!("\nleft out: {}", counted(&self.origin.left_out));
        }
        text
    }
}

/// 16 bits if all of a file's tensors are stored so, else 32.
fn stored(files: &[PathBuf]) -> Result<WeightDtype> {
    let mut dtypes = Vec::new();
    for file in files {
        dtypes.extend(
            Checkpoint::open(file)?
                .tensors
                .values()
                .map(|tensor| tensor.dtype()),
        );
    }
    let all = |dtype| dtypes.iter().all(|found| *found == dtype);
    Ok(match () {
        () if all(StoredDtype::F16) => WeightDtype::F16,
        () if all(StoredDtype::BF16) => WeightDtype::BF16,
        () => WeightDtype::F32,
    })
}

/// A size such as `2GB`, `500MB` or `1000000`.
fn bytes(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_uppercase();
    let units = [
        ("GB", 1000 * MEGA),
        ("MB", MEGA),
        ("KB", 1000),
        ("B", 1),
        ("", 1),
    ];
    let (digits, unit) = units
        .iter()
        .find_map(|(ending, unit)| Some((upper.strip_suffix(ending)?, unit)))
        .expect("everything ends with nothing");
    let number: Option<f64> = digits.trim().parse().ok();
    match number.map(|number| number * *unit as f64) {
        Some(size) if size >= 1.0 && size.is_finite() => Ok(size as u64),
        _ => Err("expected a size such as 2GB or 500MB".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, size) in [
            ("2GB", 2_000_000_000),
            ("1.5 mb", 1_500_000),
            ("10", 10),
            ("7kB", 7000),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "GB", "-1GB", "0", "two"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
