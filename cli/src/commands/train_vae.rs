//! `tessera train vae`.

use super::training::Flow;
use super::training::run::{self, Pictures};
use super::training::watch::{Shows, Watching};
use super::training::{samples_file, write_samples};
use crate::args::{DataArgs, Global, LoopArgs, RunArgs, within};
use crate::data::open;
use crate::progress::{Cadence, Progress};
use crate::{interrupt, output, ranks};
use anyhow::Result;
use clap::Args;
use ndarray::Array4;
use serde::Serialize;
use tessera::backend::{download, upload};
use tessera::pictures::Pixels;
use tessera::pictures::dataset::{Split, batch};
use tessera::tokenizers::{Flip, KlVae, KlVaeConfig, ReconstructionObjective, VaeLossConfig};
use tessera::train::{StepReport, TrainConfig, train_on};
use tessera::{Device, WeightDtype};

/// Train a KL-VAE.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  \
    tessera train vae --data pictures/ --img-size 64 --ch 32 --ch-mult 1,2,4 --z-channels 8 --epochs 20 -o runs/vae")]
pub struct TrainVae {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    training: LoopArgs,
    /// Base width.
    #[arg(long, default_value_t = 32, value_name = "N")]
    #[arg(value_parser = within(1_usize..=8192))]
    ch: usize,
    /// Width multiplier of every resolution; each after the first halves the sides.
    #[arg(
        long,
        default_value = "1,2,4",
        value_delimiter = ',',
        value_name = "N,N,…"
    )]
    #[arg(value_parser = within(1_usize..=64))]
    ch_mult: Vec<usize>,
    /// Residual blocks per resolution.
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = within(1_usize..=64))]
    num_res_blocks: usize,
    /// Latent channels: the number of tokens per position.
    #[arg(long, default_value_t = 16, value_name = "N")]
    #[arg(value_parser = within(1_usize..=1024))]
    z_channels: usize,
    /// Weight of the mean absolute error.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    #[arg(value_parser = within(0.0_f64..))]
    l1_weight: f64,
    /// Weight of the mean squared error.
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    #[arg(value_parser = within(0.0_f64..))]
    l2_weight: f64,
    /// Weight of the divergence per latent dimension: more brings the latents nearer to N(0, 1).
    #[arg(long, default_value_t = 1e-3, value_name = "X")]
    #[arg(value_parser = within(0.0_f64..))]
    kl_weight: f64,
    /// Mirror half of the pictures left to right.
    #[arg(long)]
    flip: bool,
}

/// What `config.json` of the run says; a resumed run must say the same.
#[derive(Serialize)]
struct RunConfig<'a> {
    kind: &'static str,
    vae: &'a KlVaeConfig,
    loss: &'a VaeLossConfig,
    training: &'a TrainConfig,
    flip: bool,
    data: &'a Pictures,
}

impl TrainVae {
    /// Trains, and leaves the averaged VAE in `OUTPUT/vae`.
    ///
    /// # Errors
    /// Bad data, bad sizes, a loss that is not finite.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        let sizes = KlVaeConfig::small(
            self.data.channels,
            self.data.img_size,
            self.ch,
            &self.ch_mult,
            self.num_res_blocks,
            self.z_channels,
        );
        let loss = VaeLossConfig {
            l1_weight: self.l1_weight,
            l2_weight: self.l2_weight,
            kl_weight: self.kl_weight,
        };
        let training = self.training.config();
        let model = sizes
            .init(training.seed, &device.burn().clone().autodiff())
            .map_err(run::sizes_in_words)?;
        let (ranks, _) = ranks::training(None)?;
        let entry = run::enter(&ranks, &self.run)?;
        let data = open(&self.data, Split::Train, global.quiet)?;
        let pictures = Pictures::of(&*data)?;
        let plan = training.plan(data.len()).map_err(run::in_words)?;
        let config = RunConfig {
            kind: "kl-vae",
            vae: &sizes,
            loss: &loss,
            training: &training,
            flip: self.flip,
            data: &pictures,
        };
        let run = run::open(&ranks, entry, &config, &training, global.quiet)?;
        let _lock = run.lock();
        let objective = ReconstructionObjective {
            data: &*data,
            device: device.burn().clone().autodiff(),
            loss,
            flip: match self.flip {
                true => Flip::Half,
                false => Flip::Never,
            },
        };
        let shown = data.len().min(16);
        let progress = Progress::new("train vae", "steps", plan.total_steps, global.quiet);
        let shows = Reconstructions {
            images: batch(&*data, &(0..shown).collect::<Vec<_>>())?,
            device,
            folder: self.run.output.join("samples"),
        };
        let mut watch = Watching::new(shows, progress, self.training.cadence(global.quiet));
        let saving = interrupt::Saving::begin();
        let trained = train_on(&ranks, model, &objective, &training, run, &mut watch);
        let trained = trained.map_err(run::in_words)?;
        drop(saving);
        watch.finish();
        interrupt::not_stopped(&trained)?;
        if !ranks.first() {
            return Ok(());
        }
        let folder = self.run.output.join("vae");
        trained.ema.save_dir(&folder, WeightDtype::F32)?;
        output::text(folder.display())?;
        Ok(())
    }
}

/// Draws originals above reconstructions.
struct Reconstructions {
    images: Array4<f32>,
    device: Device,
    folder: std::path::PathBuf,
}

impl Shows<KlVae> for Reconstructions {
    fn line(&self, report: &StepReport) -> String {
        let parts: String = report
            .parts
            .iter()
            .map(|(name, value)| format!(" {name} {value:.4}"))
            .collect();
        format!("loss {:.4}{parts}", report.loss)
    }

    fn is_shown(&self, epoch: u64, _: Cadence) -> bool {
        samples_file(&self.folder, epoch).exists()
    }

    fn show(&mut self, epoch: u64, ema: &KlVae, _: Cadence) -> Flow {
        let posterior = ema.encode(upload(self.images.clone(), self.device.burn()));
        let decoded = download(ema.decode(posterior.mode()));
        let images = self.images.outer_iter().chain(decoded.outer_iter());
        let cells = images
            .map(Pixels::from_array)
            .collect::<Result<Vec<_>, _>>()?;
        write_samples(&self.folder, epoch, &cells, self.images.dim().0)?;
        Ok(interrupt::flow())
    }
}
