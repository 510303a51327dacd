//! `tessera calibrate`: what a quantizer needs to know of a VAE's latents, measured on data and on the decoder.

use crate::args::{DataArgs, Global, MOST_PATCH, MOST_PX, WeightsKind, above, within};
use crate::progress::{encoding, probing};
use crate::{data, output};
use anyhow::{Result, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use tessera::pictures::dataset::{First, Split};
use tessera::quantize::{Calibration, Dimension};
use tessera::tokenizers::{ImageTokenizer, Patched};
use tessera::{
    Bits, CalibrationOptions, Device, ModelCard, Orientation, ScaleBy, Which, calibrate,
    decoder_noise, encode_posteriors, measured_on, model_folder, open_vae,
};
use tessera_plots::{self as plots, Line, Look};

/// Measure a VAE's latents on data: scale, clipping, entropy, rate and order of the dimensions.
///
/// Two rates in bits are printed of each dimension. That of the posterior, where the VAE has one, is its divergence
/// from the normal distribution. That of the decoder follows from what its error grows to when the dimension is
/// perturbed: with so many bits in every dimension, quantization would add as much error as reconstructions have
/// anyway. Dimensions of higher rate need more bits, and --bits auto:MEAN gives them more.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera calibrate --vae runs/vae/vae --data pictures/ --bits 6 -o calibration.json --plot entropy.svg\n  \
    tessera calibrate --vae taef2.safetensors --data photos/ --img-size 128 --bits auto:5 -o taef2.json \
    --plot rates.svg")]
pub struct Calibrate {
    /// The tokenizer: a VAE's folder, ours or of diffusers, a file of weights of any kind that `reconstruct` takes, a
    /// model's or a run's folder, or org/name in the hub's cache.
    #[arg(long, value_name = "PATH")]
    vae: PathBuf,
    /// Which weights of the tokenizer's checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND")]
    weights: Option<WeightsKind>,
    /// A folder of pictures or of MNIST-style IDX files (their train half).
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Side of the pictures in px; what the VAE was trained on unless given.
    #[arg(long, value_name = "PX")]
    #[arg(value_parser = within(1..=MOST_PX))]
    img_size: Option<usize>,
    /// Side of the squares of latents that are one token, 1 or 2.
    #[arg(
        long,
        visible_alias = "patch-size",
        default_value_t = 1,
        value_name = "N"
    )]
    #[arg(value_parser = within(1_usize..=MOST_PATCH))]
    patch: usize,
    /// Stop after so many pictures; none is left out unless given.
    #[arg(long, value_name = "N", value_parser = within(1..=u64::MAX))]
    limit: Option<u64>,
    /// Fail on a picture that cannot be read, instead of skipping it with a warning.
    #[arg(long)]
    strict: bool,
    /// Bits per dimension, 1 to 16; or auto:MEAN, which gives each dimension its own for a mean of 1 to 12.
    #[arg(long, default_value = "6", value_name = "N")]
    bits: Bits,
    /// Normalized latents are clipped to this many standard deviations.
    #[arg(long, default_value_t = 5.0, value_name = "X")]
    #[arg(value_parser = within(above(0.0_f32)))]
    range: f32,
    /// One scale for all channels and no mean, as the paper, instead of each channel's own.
    #[arg(long)]
    global_scale: bool,
    /// Decides the samples of the posteriors.
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    #[arg(value_parser = within(0..=u64::MAX))]
    seed: u64,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Also draw the rate of every dimension, its bits, and its entropy at every width.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print what was measured as JSON.
    #[arg(long)]
    json: bool,
    /// Replace files that exist.
    #[arg(long)]
    overwrite: bool,
}

impl Calibrate {
    /// Encodes the data, measures, and writes.
    ///
    /// # Errors
    /// A VAE or data that cannot be read, a file that is in the way.
    pub fn run(self, global: &Global) -> Result<()> {
        if let Some(chart) = &self.plot {
            plots::require_svg(chart)?;
        }
        for file in [Some(&self.output), self.plot.as_ref()]
            .into_iter()
            .flatten()
        {
            output::file(file, self.overwrite)?;
        }
        let device = global.open()?;
        let vae = Patched::over(self.tokenizer(&device)?, self.patch)?;
        let Some(size) = self.img_size.or(vae.resolution()) else {
            bail!(
                "--img-size: {} was made for no size of its own: give that of the pictures",
                self.vae.display()
            );
        };
        vae.check_image_size(size, size)?;
        let args = DataArgs {
            data: self.data.clone(),
            img_size: size,
            channels: vae.image_channels(),
            strict: self.strict,
        };
        let all = data::open(&args, Split::Train, global.quiet)?;
        let count = self
            .limit
            .map_or(all.len(), |limit| all.len().min(limit as usize));
        let data = First { all, count };
        let cache = encoding(global.quiet, |progress| {
            encode_posteriors(&*vae, &data, Orientation::Upright, &device, progress)
        })?;
        let noise = probing(global.quiet, |progress| {
            decoder_noise(&*vae, &data, &device, progress)
        })?;
        let options = CalibrationOptions {
            bits: self.bits,
            decoder_noise: Some(&noise),
            range: self.range,
            scale: scale_by(self.global_scale),
            seed: self.seed,
        };
        let calibration = measured_on(&*vae, calibrate(&cache, &options)?)?;
        calibration.save(&self.output)?;
        if let Some(file) = &self.plot {
            draw(&calibration, file)?;
        }
        match self.json {
            true => output::json(
                &serde_json::json!({ "schema": "tessera.calibrate/v1", "calibration": calibration }),
            ),
            false => output::text(format!("{calibration}{}", self.output.display())),
        }
    }
}

impl Calibrate {
    /// The tokenizer, which has weights.
    fn tokenizer(&self, device: &Device) -> Result<Box<dyn ImageTokenizer>> {
        let opened = open_vae(&self.vae, self.weights.map(Which::from), device)?;
        if opened.files.is_empty()
            && let Some(model) = model_folder(&self.vae)
        {
            bail!(
                "{}: expected a tokenizer or a model with one, found the model `{}`, which works on pixels",
                self.vae.display(),
                ModelCard::read(&model)?.name()
            );
        }
        Ok(opened.tokenizer)
    }
}

/// What latents are normalized by, from the flag `--global-scale`.
pub fn scale_by(global_scale: bool) -> ScaleBy {
    match global_scale {
        true => ScaleBy::Global,
        false => ScaleBy::Channel,
    }
}

/// The chart: over the dimensions, entropies as thin lines, the rate and the bits above them.
fn draw(calibration: &Calibration, file: &Path) -> Result<()> {
    let line = |name: &str, look, of: &dyn Fn(usize, &Dimension) -> f32| {
        let each = calibration.dimensions.iter().enumerate();
        let points =
            each.map(|(channel, dimension)| (channel as f64, of(channel, dimension).into()));
        Line {
            name: name.into(),
            look,
            points: points.collect(),
        }
    };
    let mut lines: Vec<Line> = (2..=DRAWN_BITS)
        .map(|bits| {
            let name = format!("entropy, {bits} bits");
            let look = Look::Of(f64::from(bits) / f64::from(DRAWN_BITS));
            line(&name, look, &|_, dimension| {
                dimension.entropy_at(bits).unwrap_or_default()
            })
        })
        .collect();
    if calibration
        .dimensions
        .iter()
        .all(|dimension| dimension.posterior_bits.is_some())
    {
        let rate = |_, dimension: &Dimension| dimension.posterior_bits.unwrap_or_default();
        lines.push(line("rate, posterior", Look::Reference, &rate));
    }
    lines.push(line("rate, decoder", Look::Bold, &|_, dimension| {
        dimension.decoder_bits().unwrap_or_default()
    }));
    if !calibration.quantizer.channel_bits.is_empty() {
        let bits = |channel, _: &Dimension| calibration.quantizer.bits_of(channel).into();
        lines.push(line("bits given", Look::Reference, &bits));
    }
    let last = calibration.channels.saturating_sub(1).max(1) as f64;
    plots::lines(
        file,
        "Rate and entropy per dimension",
        ["dimension", "bits"],
        0.0..last,
        &lines,
    )?;
    Ok(())
}

/// The largest width whose entropies are drawn.
const DRAWN_BITS: u8 = 8;
