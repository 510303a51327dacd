//! `tessera calibrate`: what a quantizer needs to know of a VAE's latents, measured on data.

use super::inspect::in_patches;
use crate::args::{DataArgs, Global, MOST_PATCH, MOST_PX, WeightsKind, above, within};
use crate::progress::encoding;
use crate::{data, output};
use anyhow::{Result, bail};
use clap::Args;
use std::path::PathBuf;
use tessera::pictures::dataset::{First, Split};
use tessera::quantize::{Calibration, Dimension};
use tessera::tokenizers::{ImageTokenizer, Patched};
use tessera::{
    CalibrationOptions, Device, ModelCard, ScaleBy, Which, calibrate, encode_posteriors,
    measured_on, model_folder, open_vae,
};
use tessera_plots as plots;

/// Measure a VAE's latents on data: scale, clipping, entropy and order of the dimensions.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera calibrate --vae runs/vae/vae --data pictures/ --bits 6 -o calibration.json --plot entropy.svg\n  \
    tessera calibrate --vae taef2.safetensors --data photos/ --img-size 128 -o taef2.json")]
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
    /// Bits per dimension, 1 to 16.
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = within(1_u8..=16))]
    bits: u8,
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
    /// Also draw the entropy of every dimension.
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
            encode_posteriors(&*vae, &data, &device, progress)
        })?;
        let options = CalibrationOptions {
            bits: self.bits,
            range: self.range,
            scale: scale_by(self.global_scale),
            seed: self.seed,
        };
        let calibration = measured_on(&*vae, calibrate(&cache, &options)?)?;
        calibration.save(&self.output)?;
        if let Some(file) = &self.plot {
            let labels: Vec<String> = (0..calibration.channels)
                .map(|channel| channel.to_string())
                .collect();
            let bits: Vec<f64> = calibration
                .dimensions
                .iter()
                .map(|dimension| dimension.entropy_bits.into())
                .collect();
            let title = format!("Entropy per dimension, {} bits", self.bits);
            plots::bars(file, &title, &labels, &bits, "entropy (bits)")?;
        }
        match self.json {
            true => output::json(
                &serde_json::json!({ "schema": "tessera.calibrate/v1", "calibration": calibration }),
            ),
            false => output::text(format!(
                "{}{}",
                describe(&calibration),
                self.output.display()
            )),
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

/// A calibration in words.
pub fn describe(calibration: &Calibration) -> String {
    let Calibration {
        images,
        channels,
        height,
        width,
        latent_mean,
        latent_std,
        latent_scale,
        quantizer,
        patch_size,
        ..
    } = calibration;
    let Calibration {
        clip_rate,
        entropy_bits,
        mse,
        order,
        ..
    } = calibration;
    let head = format!(
        "{images} pictures, latents of {channels} x {height} x {width}{}\n\
        latent scale {latent_scale:.4} (mean {latent_mean:.4}, std {latent_std:.4})\n\
        {} bits over ±{}, clip rate {:.4} %\n\
        entropy {entropy_bits:.3} bits per dimension, mse {mse:.6}\n\
        dimension     mean      std   clip %   entropy codes %\n",
        in_patches(*patch_size),
        quantizer.bits,
        quantizer.range,
        100.0 * clip_rate
    );
    let row = |(channel, dimension): (usize, &Dimension)| {
        let Dimension {
            mean,
            std,
            clip_rate,
            entropy_bits,
            code_usage,
            ..
        } = dimension;
        let (clipped, used) = (100.0 * clip_rate, 100.0 * code_usage);
        format!(
            "{channel:>9} {mean:>8.4} {std:>8.4} {clipped:>8.4} {entropy_bits:>9.3} {used:>7.1}\n"
        )
    };
    let rows: String = calibration.dimensions.iter().enumerate().map(row).collect();
    format!("{head}{rows}order {order:?}\n")
}
