//! `tessera tokenize` and `tessera decode`: pictures to files of tokens and back.

use crate::args::{Global, Level, MOST_PATCH, MOST_PX, WeightsKind, within};
use crate::output;
use crate::pictures::{PictureArgs, Pictures, say_builtin};
use crate::progress::Progress;
use anyhow::{Result, bail, ensure};
use clap::Args;
use ndarray::Axis;
use std::path::{Path, PathBuf};
use tessera::pictures::Pixels;
use tessera::quantize::Quantizer;
use tessera::{
    Device, ImgSize, MANIFEST_FILE, Manifest, TokenWriter, Tokenizer, VaeOptions, Which,
    require_distributions,
};

/// Pictures that a grid shows at most.
const GRID_CELLS: usize = 256;

/// Turn pictures into discrete tokens.
///
/// Writes tokens-00000.safetensors, … {ids [pictures, tokens, dimensions] as u8 or u16, labels} and manifest.json,
/// which says what they were made with.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera tokenize -i photos/ -o tokens\n  \
    tessera tokenize --data fashion-mnist/ -m runs/ar/model -o fashion\n  \
    tessera tokenize -i photos/ --vae taef2.safetensors --calibration taef2.json --img-size 256 -o photo-tokens\n  \
    tessera decode -i tokens -o decoded --grid")]
pub struct Tokenize {
    #[command(flatten)]
    pictures: PictureArgs,
    /// A model folder; the built-in model unless given.
    #[arg(short, long, value_name = "MODEL", conflicts_with = "vae")]
    model: Option<PathBuf>,
    /// A tokenizer instead of a model, of any kind that `reconstruct` takes.
    #[arg(long, value_name = "PATH", requires = "calibration")]
    vae: Option<PathBuf>,
    /// Which weights of that tokenizer's checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND", requires = "vae")]
    weights: Option<WeightsKind>,
    /// What `tessera calibrate` measured on that tokenizer: bits, mean and scale.
    #[arg(long, value_name = "FILE", requires = "vae")]
    calibration: Option<PathBuf>,
    /// Side of the squares of latents that are one token, 1 or 2; the calibration's unless given.
    #[arg(long, visible_alias = "patch-size", value_name = "N", requires = "vae")]
    #[arg(value_parser = within(1_usize..=MOST_PATCH))]
    patch: Option<usize>,
    /// Side in px to crop pictures to; what the tokenizer was made for unless given.
    #[arg(long, value_name = "PX", requires = "vae")]
    #[arg(value_parser = within(1..=MOST_PX))]
    img_size: Option<usize>,
    /// How the level of a latent is chosen where the VAE gives a distribution.
    #[arg(long, value_enum, default_value = "nearest")]
    level: Level,
    /// Folder for the tokens.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Pictures per file.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = within(1..=u64::MAX))]
    shard_size: u64,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

/// Turn tokens back into pictures.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  tessera decode -i tokens -o decoded --grid")]
pub struct Decode {
    /// A folder that `tessera tokenize` wrote.
    #[arg(short, long, value_name = "DIR")]
    input: PathBuf,
    /// A model folder; the built-in model unless given.
    #[arg(short, long, value_name = "MODEL", conflicts_with = "vae")]
    model: Option<PathBuf>,
    /// The tokenizer that made the tokens, instead of a model.
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    /// Which weights of that tokenizer's checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND", requires = "vae")]
    weights: Option<WeightsKind>,
    /// Folder for the pictures.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Also write grid.png, of the first 256 pictures at most.
    #[arg(long)]
    grid: bool,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

impl Tokenize {
    /// Tokenizes every picture.
    ///
    /// # Errors
    /// A model or picture that cannot be read, an output folder that is in use.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        let tokenizer = match &self.vae {
            Some(vae) => self.bare(vae, &device)?,
            None => Tokenizer::of_model(self.model.as_deref(), &device)?,
        };
        if self.model.is_none() && self.vae.is_none() {
            say_builtin(&tokenizer, global.quiet);
        }
        let Some(config) = tokenizer.quantizer.clone() else {
            bail!(
                "{}: expected an autoregressive model, whose quantizer makes tokens, found the diffusion transformer \
                `{}`, which has none",
                self.model.as_deref().unwrap_or(Path::new("")).display(),
                tokenizer.name
            );
        };
        let quantizer = Quantizer::new(config)?;
        require_distributions(&*tokenizer.vae, self.level.into())?;
        let pictures = Pictures::open(&self.pictures, &tokenizer, global.quiet)?;
        output::folder(&self.output, self.overwrite)?;
        let mut writer = TokenWriter::new(&self.output, self.shard_size as usize);
        let mut progress =
            Progress::new("tokenize", "pictures", pictures.len() as u64, global.quiet);
        let left_out = pictures.batches(&tokenizer, |batch| {
            let labels = batch.iter().filter_map(|picture| picture.label).collect();
            let (images, names): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|picture| (picture.image, picture.name))
                .unzip();
            writer.add(
                tokenizer.tokenize(&images, &quantizer, self.level.into())?,
                labels,
                names,
            )?;
            progress.set(writer.len() as u64, "");
            Ok(())
        })?;
        progress.finish();
        let path = writer.finish(&tokenizer, pictures.class_names())?;
        output::text(path.display())?;
        left_out.all_done()
    }

    /// A tokenizer without a model, whose pictures are of one size.
    fn bare(&self, vae: &Path, device: &Device) -> Result<Tokenizer> {
        let options = VaeOptions {
            calibration: self.calibration.as_deref(),
            img_size: self.img_size.map(ImgSize::Px),
            patch_size: self.patch,
            which: self.weights.map(Which::from),
            ..VaeOptions::default()
        };
        let tokenizer = Tokenizer::of_vae(vae, &options, device)?;
        ensure!(
            tokenizer.square.is_some(),
            "--img-size: {} was made for no size of its own: give that of the pictures",
            vae.display()
        );
        Ok(tokenizer)
    }
}

impl Decode {
    /// Decodes every picture of the folder.
    ///
    /// # Errors
    /// Tokens of another model, a file that is not what the manifest says, an output folder that is in use.
    pub fn run(self, global: &Global) -> Result<()> {
        let manifest = Manifest::read(&self.input)?;
        let device = global.open()?;
        let tokenizer = match &self.vae {
            Some(vae) => {
                let options = VaeOptions {
                    img_size: Some(ImgSize::Px(manifest.img_size)),
                    patch_size: Some(manifest.patch_size),
                    which: self.weights.map(Which::from),
                    ..VaeOptions::default()
                };
                // Of a tokenizer alone only the tokens say how they are quantized.
                Tokenizer {
                    quantizer: Some(manifest.quantizer.clone()),
                    ..Tokenizer::of_vae(vae, &options, &device)?
                }
            }
            None => Tokenizer::of_model(self.model.as_deref(), &device)?,
        };
        manifest.check(&self.input, &tokenizer)?;
        let quantizer = Quantizer::new(manifest.quantizer.clone())?;
        output::folder(&self.output, self.overwrite)?;
        let total = manifest.pictures.len();
        let mut progress = Progress::new("decode", "pictures", total as u64, global.quiet);
        let size = [manifest.img_size; 2];
        let mut names = manifest.pictures.iter();
        let (mut done, mut cells): (usize, Vec<Pixels>) = (0, Vec::new());
        for shard in &manifest.shards {
            let ids = manifest.read_shard(&self.input, shard)?;
            for part in ids.axis_chunks_iter(Axis(0), tokenizer.batch()) {
                let latents = quantizer.dequantize(part, manifest.grid[0], manifest.grid[1])?;
                for (picture, name) in tokenizer.decode(latents, size)?.into_iter().zip(&mut names)
                {
                    output::picture(&self.output.join(format!("{name}.png")), &picture, &[])?;
                    if self.grid && cells.len() < GRID_CELLS {
                        cells.push(picture);
                    }
                    done += 1;
                }
                progress.set(done as u64, "");
                if crate::interrupt::requested() {
                    bail!("stopped after {done} of {total} pictures");
                }
            }
        }
        progress.finish();
        ensure!(
            done == total,
            "{}: names {total} pictures, its files hold {done}",
            self.input.join(MANIFEST_FILE).display()
        );
        if self.grid && !cells.is_empty() {
            let columns = (cells.len() as f64).sqrt().ceil() as usize;
            output::grid(&self.output.join("grid.png"), &cells, columns)?;
        }
        output::text(self.output.display())
    }
}
