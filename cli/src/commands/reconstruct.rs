//! `tessera reconstruct`: what the tokenizer keeps of a picture, before and after its latents are quantized.

use crate::args::{Global, WeightsKind, above, within};
use crate::output;
use crate::pictures::{PictureArgs, Pictures, say_builtin};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tessera::pictures::{Pixels, difference};
use tessera::quantize::{MomentsBuilder, Quantizer, QuantizerConfig, ScaleBy};
use tessera::{
    Bits, ImgSize, Quality, RateDistortion, Reconstructions, Tokenizer, VaeOptions, Which,
};

/// Pictures that a grid shows at most.
const GRID_ROWS: usize = 32;
/// Pictures of more px are not gathered in one grid.
const LARGE_PIXELS: usize = 1 << 20;
/// Pictures that a note names at most.
const NAMED: usize = 5;
/// What the grid's differences are multiplied with, to be seen.
const GAIN: f32 = 4.0;

/// Send pictures through the tokenizer and measure what is lost, without and with quantization.
///
/// Pictures are scaled until their shorter side is the model's and center-cropped, as in training; a tiny autoencoder
/// leaves each its size. With -o, each becomes NAME.png (latents left continuous) and NAME-6bit.png for every width in
/// --bits.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera reconstruct -i photo.png -o restored --grid\n  \
    tessera reconstruct -i 'photos/*.jpg' --vae runs/vae/vae --bits 3,4,5,6 --json\n  \
    tessera reconstruct -i photos/ --vae taef2.safetensors --bits 6,3 -o compared --grid\n  \
    tessera reconstruct --data fashion-mnist/ --limit 100")]
pub struct Reconstruct {
    #[command(flatten)]
    pictures: PictureArgs,
    /// A model folder; the built-in model unless given.
    #[arg(short, long, value_name = "MODEL", conflicts_with = "vae")]
    model: Option<PathBuf>,
    /// A tokenizer instead of a model: a folder, a file of weights of any format, a file of each half of a tiny
    /// autoencoder (their common name), or org/name in the hub's cache.
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    /// Which weights of that tokenizer's checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND", requires = "vae")]
    weights: Option<WeightsKind>,
    /// Side in px to crop pictures to, or `full` to leave each its size; what the VAE was made for unless given.
    #[arg(long, value_name = "PX", requires = "vae")]
    img_size: Option<ImgSize>,
    /// Side in px of the tiles that pictures are cut into, to bound memory; 0 never cuts. Pictures of more than 1024 x
    /// 1024 px are cut into tiles of 768 unless given.
    #[arg(long, value_name = "PX", requires = "vae")]
    #[arg(value_parser = within(0_usize..=1 << 20))]
    vae_tile: Option<usize>,
    /// What neighboring tiles share, in px; at most a quarter of the tile, and 128 px, unless given.
    #[arg(long, value_name = "PX", requires = "vae")]
    #[arg(value_parser = within(0_usize..=1 << 20))]
    vae_tile_overlap: Option<usize>,
    /// What `tessera calibrate` measured on that VAE. Without it, the scale is the one that is known of its kind, or
    /// measured on the pictures.
    #[arg(long, value_name = "FILE", requires = "vae")]
    calibration: Option<PathBuf>,
    /// Widths to compare, in bits per dimension: 1 to 16 each, or auto:MEAN, which takes what --calibration (or the
    /// model) knows to give each dimension its own.
    #[arg(
        long,
        default_value = "3,4,5,6",
        value_delimiter = ',',
        value_name = "N,…"
    )]
    bits: Vec<Bits>,
    /// Normalized latents are clipped to this many standard deviations; the model's own unless given.
    #[arg(long, value_name = "X")]
    #[arg(value_parser = within(above(0.0_f32)))]
    range: Option<f32>,
    /// Folder for the reconstructions; figures only unless given.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Also write grid.png, a row per picture (32 at most): original, continuous, each width, 4 x the last one's error.
    /// Pictures that are large or of another size than the first get NAME-grid.png.
    #[arg(long, requires = "output")]
    grid: bool,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Write into a folder that is not empty.
    #[arg(long, requires = "output")]
    overwrite: bool,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    tokenizer: &'a str,
    vae_sha256: &'a str,
    /// `null` where each picture has its own.
    picture_size: Option<usize>,
    bits: &'a [Bits],
    range: f32,
    pictures: &'a [RateDistortion],
    mean: RateDistortion,
}

/// Names the pictures that no mean of SSIM counts.
fn say_without_ssim(rows: &[RateDistortion]) {
    let without = || rows.iter().filter(|row| row.lacks_ssim());
    let names: Vec<&str> = without().take(NAMED).map(|row| &*row.name).collect();
    let more = match without().count().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if !names.is_empty() {
        output::note(format_args!(
            "note: no SSIM under 11 x 11 px, so its mean leaves out {}{more}",
            names.join(", ")
        ));
    }
}

impl Reconstruct {
    /// Reconstructs, measures and writes.
    ///
    /// # Errors
    /// A model or picture that cannot be read, an output folder that is in use.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        let mut tokenizer = match &self.vae {
            Some(vae) => {
                let options = VaeOptions {
                    calibration: self.calibration.as_deref(),
                    img_size: self.img_size,
                    which: self.weights.map(Which::from),
                    patch_size: None,
                    tile: self.vae_tile,
                    tile_overlap: self.vae_tile_overlap,
                };
                Tokenizer::of_vae(vae, &options, &device)?
            }
            None => Tokenizer::of_model(self.model.as_deref(), &device)?,
        };
        if self.vae.is_none() && self.model.is_none() {
            say_builtin(&tokenizer, global.quiet);
        }
        let pictures = Pictures::open(&self.pictures, &tokenizer, global.quiet)?;
        if let (Some([height, width]), Some(square)) =
            (pictures.padded_from(), &mut tokenizer.square)
        {
            // What is padded around pictures is none of theirs to be measured by.
            square.picture_size = square.picture_size.min(height.max(width));
        }
        if let Some(folder) = &self.output {
            output::folder(folder, self.overwrite)?;
        }
        let base = self.quantizer(&tokenizer, &pictures, global)?;
        let quantizers = self.quantizers(&tokenizer, &base)?;
        let (mut rows, mut cells) = (Vec::new(), Vec::new());
        let left_out = pictures.batches(&tokenizer, |batch| {
            let (names, images): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|picture| (picture.name, picture.image))
                .unzip();
            let all = tokenizer.reconstruct(&images, &quantizers)?;
            for (name, versions) in names.into_iter().zip(all) {
                rows.push(versions.measure(&name)?);
                if let Some(folder) = &self.output {
                    self.write(folder, &name, &versions)?;
                }
                if let Some(folder) = self.output.as_ref().filter(|_| self.grid) {
                    let last = versions.quantized.last().unwrap_or(&versions.continuous);
                    let error = difference(&versions.original, last, GAIN)?;
                    let row: Vec<_> = versions.pictures().cloned().chain([error]).collect();
                    let size = |cell: &Pixels| (cell.height(), cell.width());
                    let large = row[0].height() * row[0].width() > LARGE_PIXELS;
                    if large
                        || cells
                            .first()
                            .is_some_and(|first| size(first) != size(&row[0]))
                    {
                        let name = format!("{name}-grid.png");
                        output::grid(&folder.join(name), &row, row.len())?;
                    } else if cells.len() < GRID_ROWS * row.len() {
                        cells.extend(row);
                    }
                }
            }
            Ok(())
        })?;
        if let Some(folder) = self.output.as_ref().filter(|_| !cells.is_empty()) {
            output::grid(&folder.join("grid.png"), &cells, self.bits.len() + 3)?;
        }
        if !global.quiet {
            say_without_ssim(&rows);
        }
        self.report(&tokenizer, base.range, &rows)?;
        left_out.all_done()
    }

    /// The model's quantizer, or one measured on the pictures' own latents.
    fn quantizer(
        &self,
        tokenizer: &Tokenizer,
        pictures: &Pictures,
        global: &Global,
    ) -> Result<QuantizerConfig> {
        let mut config = match &tokenizer.quantizer {
            Some(config) => config.clone(),
            None => {
                let mut moments = MomentsBuilder::new();
                pictures.batches(tokenizer, |batch| {
                    let images: Vec<_> = batch.into_iter().map(|picture| picture.image).collect();
                    Ok(moments.add(tokenizer.encode(&images)?.view())?)
                })?;
                if !global.quiet {
                    output::note(format_args!(
                        "note: the latents' scale is measured on these {} pictures; see --calibration",
                        pictures.len()
                    ));
                }
                moments.finish()?.quantizer_config(
                    6,
                    QuantizerConfig::default().range,
                    ScaleBy::Channel,
                )
            }
        };
        config.range = self.range.unwrap_or(config.range);
        Ok(config)
    }

    /// A quantizer for each of the widths to compare.
    fn quantizers(&self, tokenizer: &Tokenizer, base: &QuantizerConfig) -> Result<Vec<Quantizer>> {
        let each = self.bits.iter().map(|&bits| {
            let base = base.clone();
            let config = match (bits, &tokenizer.calibration) {
                (Bits::Uniform(bits), _) => base.with_bits(bits),
                (Bits::Auto { mean }, Some(calibration)) => {
                    base.with_channel_bits(calibration.allocate(mean)?)
                }
                (Bits::Auto { .. }, None) => bail!(
                    "--bits {bits}: nothing is known of what the dimensions of {} need: measure it with `tessera \
                    calibrate` and give its file with --calibration",
                    output::shown(&tokenizer.name)
                ),
            };
            Ok(Quantizer::new(config)?)
        });
        each.collect()
    }

    fn write(&self, folder: &Path, name: &str, versions: &Reconstructions) -> Result<()> {
        output::picture(
            &folder.join(format!("{name}.png")),
            &versions.continuous,
            &[],
        )?;
        for (bits, version) in self.bits.iter().zip(&versions.quantized) {
            // A colon has a meaning in the paths of some systems.
            let bits = bits.to_string().replace(':', "");
            output::picture(&folder.join(format!("{name}-{bits}bit.png")), version, &[])?;
        }
        Ok(())
    }

    fn report(&self, tokenizer: &Tokenizer, range: f32, rows: &[RateDistortion]) -> Result<()> {
        let mean = RateDistortion::mean(rows).context("no picture to measure")?;
        if self.json {
            let report = Report {
                tokenizer: &tokenizer.name,
                vae_sha256: &tokenizer.sha256,
                picture_size: tokenizer.square.map(|square| square.picture_size),
                bits: &self.bits,
                range,
                pictures: rows,
                mean,
            };
            return output::report("tessera.reconstruct/v1", &report);
        }
        let width = rows
            .iter()
            .map(|row| output::shown(&row.name).to_string().chars().count())
            .max()
            .unwrap_or(0)
            .max(7);
        let heads = self.bits.iter().map(|bits| format!("{bits} bits"));
        let heads: String = ["continuous".into()]
            .into_iter()
            .chain(heads)
            .map(|head: String| format!("  {head:>14}"))
            .collect();
        output::text(format!(
            "{:width$}{heads}\n{:width$}{}",
            "picture",
            "",
            "  PSNR dB   SSIM".repeat(self.bits.len() + 1)
        ))?;
        for row in rows.iter().chain([&mean]) {
            let figures: String = row
                .qualities()
                .map(|Quality { psnr, ssim }| format!("  {psnr:7.2} {:>6}", output::ssim(*ssim)))
                .collect();
            let name = output::shown(&row.name).to_string();
            output::text(format!("{name:width$}{figures}"))?;
        }
        Ok(())
    }
}
