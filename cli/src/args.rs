//! What every command shares on the command line.

use crate::output;
use crate::progress::{Cadence, loading};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tessera::{ComputePrecision, Device, DeviceSpec, Model, Source, Which};
pub use tessera_command_line::{above, share, within};

/// The heading of the options of every command, which stand below its own.
const GLOBAL: &str = "Global options";

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Where to compute: auto, flex, ndarray, wgpu, vulkan, metal or cuda, with an index such as cuda:1.
    #[arg(long, global = true, help_heading = GLOBAL, default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceSpec,
    /// CPU threads, of the processor's cores at most; all of them unless given.
    #[arg(short = 't', long, global = true, help_heading = GLOBAL, value_name = "N")]
    #[arg(value_parser = within(0_usize..=65_536))]
    pub threads: Option<usize>,
    /// Memory of the device, in MiB, that a tokenizer may use at once: it works on fewer pictures at a time, or on
    /// tiles of them. What the driver allows in one tensor bounds them in any case,
    /// and alone unless given.
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "MIB", value_parser = within(1_u64..=1 << 40))]
    pub max_vram: Option<u64>,
    /// Compare the ranks' arguments before every collective: slower, and tells which rank differs.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub check: bool,
    /// No progress and no notes; errors and results only.
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub quiet: bool,
}

impl Global {
    /// Opens the device.
    ///
    /// # Errors
    /// When it is not there or not built in.
    pub fn open(&self) -> Result<Device> {
        let device = Device::from(self.device.open()?);
        Ok(match self.max_vram {
            Some(mib) => device.with_memory(mib << 20),
            None => device,
        })
    }

    /// What linear maps are multiplied in while a model is trained on a device.
    ///
    /// # Errors
    /// When the device has no mixed precision.
    pub fn products(&self, device: &Device, products: Products) -> Result<ComputePrecision> {
        let precision = products.into();
        if products == Products::Bf16 && !device.is_cpu() {
            bail!(
                "--precision bf16: expected a CPU (--device flex), found {}",
                self.device
            );
        }
        if !self.quiet && device.widens(precision) {
            output::note(
                "note: this processor has no arithmetic for bf16: --precision bf16 computes in f32",
            );
        }
        Ok(precision)
    }

    /// Says where a precision saves memory and no time.
    pub fn say_widened(&self, device: &Device, dtype: Compute) {
        if !self.quiet && device.widens(dtype.into()) {
            output::note(
                "note: this processor has no arithmetic for 16-bit weights: they take half the memory, and are \
                 multiplied in f32",
            );
        }
    }
}

/// The data of a command.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// A folder of pictures (one sub-folder per class, or train/ and test/ of such) or of MNIST-style IDX files (.gz
    /// too). PNG, JPEG, WebP, BMP, GIF and TIFF are read, at any depth.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Side of the pictures in px: photographs are scaled and center-cropped to it, IDX pictures padded.
    #[arg(long, value_name = "PX")]
    #[arg(value_parser = within(1..=MOST_PX))]
    pub img_size: usize,
    /// 1 for gray, 3 for color.
    #[arg(long, default_value_t = 3, value_name = "N")]
    #[arg(value_parser = channels)]
    pub channels: usize,
    /// Fail on a picture that cannot be read, instead of skipping it with a warning.
    #[arg(long)]
    pub strict: bool,
}

/// How a run folder is entered.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The run's folder: configuration, metrics, checkpoints, samples and, at the end, the model.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Go on from the run's last checkpoint. --epochs, --max-steps, --save-every, --keep-last, --sample-every and what
    /// does not shape the result may be others than before; the pictures and all other settings must be the same.
    #[arg(long, value_name = "latest", num_args = 0..=1, default_missing_value = "latest", value_parser = ["latest"])]
    pub resume: Option<String>,
    /// Begin anew, removing the run that is in the folder.
    #[arg(long, conflicts_with = "resume")]
    pub overwrite: bool,
}

impl RunArgs {
    /// The same, as the run folder takes it.
    pub fn start(&self) -> tessera::train::Start {
        match (&self.resume, self.overwrite) {
            (Some(_), _) => tessera::train::Start::Resume,
            (None, true) => tessera::train::Start::Overwrite,
            (None, false) => tessera::train::Start::New,
        }
    }
}

/// An enum of a library as the command line spells it.
macro_rules! spelled {
    ($(#[$doc:meta])* $vis:vis enum $name:ident for $of:ty { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        $vis enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl From<$name> for $of {
            fn from(spelled: $name) -> Self {
                match spelled {
                    $($name::$variant => Self::$variant),+
                }
            }
        }
    };
}
pub(crate) use spelled;

spelled!(
    /// Which weights of a training checkpoint.
    pub enum WeightsKind for tessera::Which {
        /// As the last step left them.
        Raw,
        /// Their moving average.
        Ema,
    }
);
spelled!(
    /// What linear maps are computed in.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Compute for tessera::ComputePrecision {
        /// 32 bits.
        #[default]
        F32,
        /// Weights of 16 bits, sums of 32: faster where the processor multiplies bf16, and half the memory.
        Bf16,
        /// The same with more of the bits significant, which GPUs multiply fastest.
        F16,
    }
);

spelled!(
    /// What linear maps are multiplied in while a model is trained.
    pub enum Products for tessera::ComputePrecision {
        /// 32 bits.
        F32,
        /// 16 bits, 8 of them significant, with sums of 32; weights and their averages keep 32. Faster where the
        /// processor multiplies bf16.
        Bf16,
    }
);

spelled!(
    /// What follows the warm-up.
    pub enum DecayArg for tessera::train::Decay {
        /// Down to 0 at the end of the run.
        Cosine,
        /// The same to the end: such a run can be prolonged as if it had been longer from the start.
        Constant,
    }
);

/// How weights are stored.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits, 11 of them significant.
    F16,
    /// 16 bits, 8 of them significant.
    Bf16,
    /// 8 bits and a scale per row.
    Int8,
}

impl From<Dtype> for tessera::WeightDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
            Dtype::Int8 => Self::Int8,
        }
    }
}

/// How the level of a latent is chosen that a VAE gives as a distribution.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Level {
    /// Nearest to the mean, or in training to a draw, as in the paper.
    Nearest,
    /// The one that accounts best for mean and spread (Gaussian Quant).
    Posterior,
}

impl From<Level> for tessera::quantize::LevelRule {
    fn from(level: Level) -> Self {
        match level {
            Level::Nearest => Self::Nearest,
            Level::Posterior => Self::Posterior,
        }
    }
}

/// A model that draws.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A model's folder, a run's folder, a released checkpoint (with --vae), or org/name in the hub's cache; the
    /// built-in model unless given.
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// The tokenizer of a released checkpoint, which comes without one, or another for the model: whatever
    /// `reconstruct` takes.
    #[arg(long, value_name = "PATH", requires = "model")]
    pub vae: Option<PathBuf>,
    /// Which weights of a training checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, requires = "model", value_name = "KIND")]
    pub weights: Option<WeightsKind>,
}

impl ModelArgs {
    /// Opens it, with a bar where that is long.
    ///
    /// # Errors
    /// When it cannot be read, Ctrl-C.
    pub fn open(&self, device: &Device, quiet: bool) -> Result<Model> {
        let mut source = Source::of(self.model.as_deref())
            .weights(self.weights.map(Which::from))
            .on_checkpoint(output::of_checkpoint(quiet));
        if let Some(vae) = &self.vae {
            source = source.vae(vae);
        }
        Ok(loading(quiet, |progress| {
            Model::open(source.on_progress(progress), device)
        })?)
    }
}

/// The loop's settings.
#[derive(Debug, Clone, Args)]
pub struct LoopArgs {
    /// Examples per step.
    #[arg(long, default_value_t = 64, value_name = "N")]
    #[arg(value_parser = within(1..=MOST_PICTURES))]
    pub batch_size: usize,
    /// Parts a batch is split into to save memory.
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = within(1..=MOST_PICTURES))]
    pub grad_accum: usize,
    /// Passes over the data.
    #[arg(long, default_value_t = 10, value_name = "N")]
    #[arg(value_parser = within(1..=MOST_STEPS))]
    pub epochs: u64,
    /// Steps of the whole run, whatever --epochs says; --epochs decides its end unless given.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = within(1..=MOST_STEPS))]
    pub max_steps: Option<u64>,
    /// The highest learning rate.
    #[arg(long, default_value_t = 1e-3, value_name = "X")]
    #[arg(value_parser = within(0.0_f64..=1000.0))]
    pub lr: f64,
    /// Epochs over which the learning rate grows; may be a fraction.
    #[arg(long, default_value_t = 0.2, value_name = "X")]
    #[arg(value_parser = within(0.0_f64..=1e9))]
    pub warmup_epochs: f64,
    /// How the learning rate goes on from there.
    #[arg(long, value_enum, default_value = "cosine")]
    pub decay: DecayArg,
    /// Decoupled weight decay.
    #[arg(long, default_value_t = 0.02, value_name = "X")]
    #[arg(value_parser = within(0.0_f64..=1000.0))]
    pub weight_decay: f64,
    /// The largest norm of all gradients together.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    #[arg(value_parser = within(above(0.0_f64)))]
    pub grad_clip: f64,
    /// What a late step keeps of the averaged weights.
    #[arg(long, default_value_t = 0.999, value_name = "X")]
    #[arg(value_parser = within(0.0_f64..=1.0))]
    pub ema_rate: f64,
    /// Steps between checkpoints; 0 saves after every epoch.
    #[arg(long, default_value_t = 0, value_name = "N")]
    #[arg(value_parser = within(0..=MOST_STEPS))]
    pub save_every: u64,
    /// Checkpoints kept.
    #[arg(long, default_value_t = 2, value_name = "N")]
    #[arg(value_parser = within(1_usize..=1_000_000))]
    pub keep_last: usize,
    /// Epochs between sample grids, each drawn when its epoch is saved; 0 draws none.
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = within(0..=MOST_STEPS))]
    pub sample_every: u64,
    /// Decides weights, order and noise.
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    #[arg(value_parser = within(0..=u64::MAX))]
    pub seed: u64,
}

impl LoopArgs {
    /// When samples are drawn.
    pub fn cadence(&self, quiet: bool) -> Cadence {
        Cadence {
            sample_every: self.sample_every,
            quiet,
        }
    }

    /// The same, as the loop takes it.
    pub fn config(&self) -> tessera::train::TrainConfig {
        tessera::train::TrainConfig {
            batch_size: self.batch_size,
            grad_accum: self.grad_accum,
            epochs: self.epochs,
            max_steps: self.max_steps,
            lr: self.lr,
            warmup_epochs: self.warmup_epochs,
            decay: self.decay.into(),
            weight_decay: self.weight_decay,
            grad_clip: Some(self.grad_clip),
            ema_decay: self.ema_rate,
            save_every: self.save_every,
            keep_last: self.keep_last,
            seed: self.seed,
            ..Default::default()
        }
    }
}

/// Pictures that one command draws at most; as many fit a folder's listing.
pub const MOST_PICTURES: usize = 1_000_000;

/// Side of a picture in px, at most: of a square of that side, one picture takes 3 GiB.
pub const MOST_PX: usize = 16_384;

/// Side of a patch of latents that tokens are made of, at most: with 3, a token would have 288 dimensions of TAEF2.
pub const MOST_PATCH: usize = 2;

/// Steps and epochs at most: no product with them overflows.
pub const MOST_STEPS: u64 = 1_000_000_000;

/// Tokens of a sequence at most.
pub const MOST_TOKENS: usize = 1 << 32;

/// Channels of pictures.
fn channels(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("expected a number that is 1 (gray) or 3 (color)".into()),
    }
}
