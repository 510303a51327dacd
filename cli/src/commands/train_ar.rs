//! `tessera train ar`.

use super::calibrate::scale_by;
use super::training::latents::{Kept, provenance};
use super::training::run::{self, Pictures};
use super::training::watch::{Shows, Watching};
use super::training::{self, Flow, sample_requests, samples_file, write_samples};
use crate::args::{
    DataArgs, Dtype, Global, Level, LoopArgs, MOST_PATCH, MOST_PX, MOST_STEPS, Products, RunArgs,
    WeightsKind, above, share, within,
};
use crate::progress::{Cadence, Progress, encoding, probing};
use crate::sampling::Schedule;
use crate::{data, interrupt, output, ranks};
use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use tessera::attention2d::{Grid, TokenSharding};
use tessera::gen_ar::{GenAr, GenArConfig, SampleConfig, TokenObjective, TransformerConfig};
use tessera::moe::MoeConfig;
use tessera::quantize::{Calibration, LevelRule, Quantizer, QuantizerConfig};
use tessera::tokenizers::Patched;
use tessera::train::{LATENTS_FILE, LatentCache, StepReport, TrainConfig, train_on};
use tessera::{
    ArCard, ArModel, Bits, CalibrationOptions, ComputePrecision, Orientation, calibrate,
    decoder_noise, encode_posteriors, measured_on, require_distributions,
};

/// Train a generator on the tokens of a VAE.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera train ar --data pictures/ --img-size 64 --vae runs/vae/vae --enc 256,4,4 --dec 256,6,4 \
    --head 256,3,4 -o runs/ar\n  \
    tessera train ar --data pictures/ --img-size 128 --vae taef2.safetensors --enc 256,6,4 --dec 256,6,4 \
    --head-subset 0.25 -o runs/photos\n  \
    tessera train ar --data pictures/ --img-size 64 --vae runs/vae/vae --experts 2-in-8 -o runs/ar-race\n  \
    mpirun -n 4 tessera train ar --data pictures/ --img-size 64 --vae runs/vae/vae --attn-grid 2x1 \
    -o runs/ar-ranks")]
pub struct TrainAr {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    training: LoopArgs,
    /// The tokenizer: a VAE's folder, ours or of diffusers, a file of weights of any kind that `reconstruct` takes, or
    /// org/name in the hub's cache.
    #[arg(long, value_name = "PATH")]
    vae: PathBuf,
    /// Which weights of the tokenizer's checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND")]
    weights: Option<WeightsKind>,
    /// Side of the squares of latents that are one token, 1 or 2; with 2 there are a quarter as many tokens, of four
    /// times as many dimensions.
    #[arg(
        long,
        visible_alias = "patch-size",
        default_value_t = 1,
        value_name = "N"
    )]
    #[arg(value_parser = within(1_usize..=MOST_PATCH))]
    patch: usize,
    /// Latents encoded before, of the same pictures and VAE (written on the first run if the file does not exist). They
    /// are kept in the run's folder unless given.
    #[arg(long, visible_alias = "use-cached", value_name = "FILE")]
    cached: Option<PathBuf>,
    /// Bits per dimension, 1 to 16; or auto:MEAN, which gives each dimension its own for a mean of 1 to 12.
    #[arg(long, default_value = "6", value_name = "N")]
    bits: Bits,
    /// How the level of a latent is chosen where the VAE gives a distribution.
    #[arg(long, value_enum, default_value = "nearest")]
    level: Level,
    /// Normalized latents are clipped to this many standard deviations.
    #[arg(long, default_value_t = 5.0, value_name = "X")]
    #[arg(value_parser = within(above(0.0_f32)))]
    range: f32,
    /// One scale for all channels and no mean, as the paper, instead of each channel's own.
    #[arg(long)]
    global_scale: bool,
    /// The encoder: width,depth,heads.
    #[arg(long, default_value = "128,3,4", value_parser = transformer, value_name = "W,D,H")]
    enc: TransformerConfig,
    /// The decoder: width,depth,heads.
    #[arg(long, default_value = "128,4,4", value_parser = transformer, value_name = "W,D,H")]
    dec: TransformerConfig,
    /// The head over the dimensions of a token: width,depth,heads.
    #[arg(long, default_value = "128,3,4", value_parser = transformer, value_name = "W,D,H")]
    head: TransformerConfig,
    /// Experts in place of the MLPs of encoder and decoder, k-in-E: each token has k of E on average, each a k-th as
    /// wide as the MLP. Without, the model is dense, as the paper's.
    #[arg(long, value_name = "K-in-E")]
    experts: Option<MoeConfig>,
    /// Copies of the class embedding in front of the tokens.
    #[arg(long, default_value_t = 8, value_name = "N")]
    #[arg(value_parser = within(0_usize..=65_536))]
    buffer_size: usize,
    /// Dropout in attention and after projections.
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    #[arg(value_parser = within(0.0_f32..=1.0))]
    dropout: f32,
    /// Smallest share of positions masked in training.
    #[arg(long, default_value_t = 0.7, value_name = "X")]
    #[arg(value_parser = within(0.0_f32..=1.0))]
    mask_ratio_min: f32,
    /// Spread of the masked share around 1; the paper's grid of 256 positions takes 0.25, small grids want more.
    #[arg(long, default_value_t = 0.25, value_name = "X")]
    #[arg(value_parser = within(0.0_f32..=1000.0))]
    mask_ratio_std: f32,
    /// Crops of each picture to train on: the whole, and windows of it with 0.85 to 1 of its side.
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = within(1_usize..=1000))]
    crops: usize,
    /// Mirror pictures at random.
    #[arg(long)]
    flip: bool,
    /// Share of the masked positions the head is trained on each step.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    #[arg(value_parser = within(share()))]
    head_subset: f32,
    /// Dimensions of a token that the head predicts at a time, independently of each other; 1 is the paper's head. A
    /// divisor of their number.
    #[arg(long, default_value_t = 1, value_name = "G")]
    #[arg(value_parser = within(1_usize..=65_536))]
    dims_per_step: usize,
    /// Names of the classes, in the order of their ids; the data's own names unless given.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    class_names: Vec<String>,
    /// Side in px of a finished picture, the center of --img-size; all of it unless given.
    #[arg(long, value_name = "PX")]
    #[arg(value_parser = within(1..=MOST_PX))]
    picture_size: Option<usize>,
    /// Steps of drawing a sample grid; at most one per token.
    #[arg(long, default_value_t = 16, value_name = "N")]
    #[arg(value_parser = within(1..=MOST_STEPS as usize))]
    sample_steps: usize,
    /// What linear maps are multiplied in.
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE")]
    precision: Products,
    /// How the finished model's weights are stored.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
    /// Ranks of mpirun as grids, RxC, each of which has a share of every batch and its tokens dealt to its ranks;
    /// without, every rank has a share of the batch by itself.
    #[arg(long, value_name = "RxC")]
    attn_grid: Option<Grid>,
    /// What the model is called.
    #[arg(long, default_value = "tessera-ar", value_name = "NAME")]
    name: String,
    /// Default guidance scale of the finished model.
    #[arg(long, default_value_t = 2.0, value_name = "X")]
    #[arg(value_parser = within(0.0_f32..=1000.0))]
    cfg_scale: f32,
    /// Default guidance schedule of the finished model.
    #[arg(long, value_enum, default_value = "linear")]
    cfg_schedule: Schedule,
    /// Default temperature of the finished model.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    #[arg(value_parser = within(0.0_f32..))]
    temperature: f32,
}

/// The paper's choices for experts, less the loss of their guesses of a target, which this model has none of.
fn without_target(moe: MoeConfig) -> MoeConfig {
    MoeConfig {
        target_weight: 0.0,
        ..moe
    }
}

fn transformer(text: &str) -> Result<TransformerConfig, String> {
    training::transformer(text, "256,6,4")
}

/// What `config.json` calls a run of this command.
const KIND: &str = "gen-ar";

/// What `config.json` of the run says; a resumed run must say the same.
#[derive(Serialize)]
struct RunConfig<'a> {
    kind: &'static str,
    generator: &'a GenArConfig,
    training: &'a TrainConfig,
    head_subset: f32,
    patch_size: usize,
    flip: bool,
    level: LevelRule,
    quantizer: &'a QuantizerConfig,
    class_names: &'a [String],
    data: &'a Pictures,
    vae_sha256: &'a str,
}

/// What of it is known before the pictures are encoded.
#[derive(Serialize)]
struct Known<'a> {
    kind: &'static str,
    training: &'a TrainConfig,
    head_subset: f32,
    patch_size: usize,
    flip: bool,
    data: &'a Pictures,
    vae_sha256: &'a str,
}

impl TrainAr {
    /// Encodes and calibrates, trains, measures the thresholds of experts again for the averaged weights, and leaves
    /// the whole model in `OUTPUT/model`.
    ///
    /// # Errors
    /// Bad data, bad sizes, a VAE that does not fit, a loss that is not finite.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        let training = TrainConfig {
            precision: global.products(&device, self.precision)?,
            ..self.training.config()
        };
        let (ranks, sequence) = ranks::training(self.attn_grid)?;
        let entry = run::enter(&ranks, &self.run)?;
        let (vae, vae_sha256) = run::tokenizer(&self.vae, self.weights, &self.data, &device)?;
        let vae = Patched::over(vae, self.patch)?;
        require_distributions(&*vae, self.level.into())?;
        vae.check_image_size(self.data.img_size, self.data.img_size)?;
        let pictures = data::open_crops(&self.data, self.crops, global.quiet)?;
        let plan = training.plan(pictures.len()).map_err(run::in_words)?;
        // Before the pictures are encoded, which takes long.
        let class_names = self.class_names(pictures.class_names())?;
        let side = self.data.img_size / vae.downsampling();
        let shape = [vae.latent_channels(), side, side];
        self.check_sizes(&self.generator(shape, class_names.len()), &training)?;
        let data = Pictures::of(&*pictures)?;
        let known = Known {
            kind: KIND,
            training: &training,
            head_subset: self.head_subset,
            patch_size: self.patch,
            flip: self.flip,
            data: &data,
            vae_sha256: &vae_sha256,
        };
        run::require_same(&entry, &known)?;
        let in_run = self.run.output.join(LATENTS_FILE);
        let kept = Kept {
            file: self.cached.as_deref().unwrap_or(&in_run),
            named: self.cached.is_some(),
            provenance: provenance(vae.config_json(), &vae_sha256, self.data.img_size, &data),
            mirrored: self.flip,
            quiet: global.quiet,
        };
        let encode = |orientation| {
            encoding(global.quiet, |progress| {
                encode_posteriors(&*vae, &*pictures, orientation, &device, progress)
            })
        };
        let cache = kept.posteriors(&*pictures, || {
            Ok(LatentCache {
                moments_flip: match self.flip {
                    true => Some(encode(Orientation::Mirrored)?.moments),
                    false => None,
                },
                ..encode(Orientation::Upright)?
            })
        })?;
        let noise = match self.bits {
            Bits::Uniform(_) => None,
            Bits::Auto { .. } => Some(probing(global.quiet, |progress| {
                decoder_noise(&*vae, &*pictures, &device, progress)
            })?),
        };
        drop(pictures);
        let options = CalibrationOptions {
            bits: self.bits,
            decoder_noise: noise.as_deref(),
            range: self.range,
            scale: scale_by(self.global_scale),
            seed: self.training.seed,
        };
        let calibration = measured_on(&*vae, calibrate(&cache, &options)?)?;
        let quantizer = Quantizer::new(calibration.quantizer.clone())?;
        let card = self.card(&cache, &calibration)?;
        let config = GenArConfig {
            channel_order: calibration.order.clone(),
            levels: quantizer.levels(),
            channel_levels: quantizer.channel_levels(),
            ..self.generator(cache.latent_shape(), card.class_names.len())
        };
        self.check_sizes(&config, &training)?;
        let run_config = RunConfig {
            kind: KIND,
            generator: &config,
            training: &training,
            head_subset: self.head_subset,
            patch_size: self.patch,
            flip: self.flip,
            level: self.level.into(),
            quantizer: quantizer.config(),
            class_names: &card.class_names,
            data: &data,
            vae_sha256: &vae_sha256,
        };
        let run = run::open(&ranks, entry, &run_config, &training, global.quiet)?;
        let _lock = run.lock();
        let autodiff = device.burn().clone().autodiff();
        let model = config.init(&quantizer.values(), training.seed, &autodiff);
        let model = model.on(sequence)?;
        if !global.quiet {
            output::note(format_args!(
                "{} parameters, {} images of {} tokens",
                model.num_trainable(),
                cache.len(),
                config.seq()
            ));
        }
        let objective = TokenObjective {
            cache: &cache,
            quantizer: &quantizer,
            device: autodiff,
            level: self.level.into(),
            flip: self.flip,
            head_subset: self.head_subset,
        };
        let model_so_far = ArModel {
            generator: config.init(&quantizer.values(), training.seed, device.burn()),
            quantizer: quantizer.clone(),
            classifier: None,
            card,
            vae,
            calibration: Some(calibration),
            digest: None,
            precision: ComputePrecision::F32,
            device,
        };
        let folder = self.run.output.join("model");
        if ranks.first() {
            // So that the checkpoints can be drawn with while the run goes on.
            model_so_far.describe(&folder, self.dtype.into())?;
        }
        let progress = Progress::new("train ar", "steps", plan.total_steps, global.quiet);
        let shows = Samples {
            model: model_so_far,
            folder: self.run.output.join("samples"),
            steps: self.sample_steps,
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
        let ema = trained.ema.on(TokenSharding::Local)?;
        let calibrated = objective.calibrated(ema, &training);
        ArModel {
            generator: calibrated.map_err(anyhow::Error::from_boxed)?,
            ..watch.of.model
        }
        .save(&folder, self.dtype.into())?;
        output::text(folder.display())?;
        Ok(())
    }

    fn card(&self, cache: &LatentCache, calibration: &Calibration) -> Result<ArCard> {
        let class_names = self.class_names(&cache.class_names)?;
        let picture_size = self.picture_size.unwrap_or(self.data.img_size);
        let [_, height, width] = cache.latent_shape();
        Ok(ArCard {
            schema: ArCard::SCHEMA.into(),
            name: self.name.clone(),
            img_size: self.data.img_size,
            picture_size,
            class_names,
            quantizer: calibration.quantizer.clone(),
            patch_size: self.patch,
            sampling: SampleConfig {
                steps: height * width,
                cfg_scale: self.cfg_scale,
                cfg_schedule: self.cfg_schedule.into(),
                temperature: self.temperature,
                ..SampleConfig::default()
            },
            parts: BTreeMap::new(),
        })
    }

    /// The names of the classes, for data with these.
    fn class_names(&self, of_data: &[String]) -> Result<Vec<String>> {
        if self.class_names.is_empty() {
            return Ok(of_data.to_vec());
        }
        if self.class_names.len() != of_data.len() {
            bail!(
                "--class-names: {} names given, the data has {} classes",
                self.class_names.len(),
                of_data.len()
            );
        }
        Ok(self.class_names.clone())
    }

    /// Refuses sizes that make no model, or no pictures.
    fn check_sizes(&self, config: &GenArConfig, training: &TrainConfig) -> Result<()> {
        if let Some(picture_size) = self.picture_size.filter(|size| *size > self.data.img_size) {
            bail!(
                "--picture-size {picture_size} is more than --img-size {}",
                self.data.img_size
            );
        }
        config.validate().map_err(run::sizes_in_words)?;
        if let Some(moe) = &config.moe {
            let tokens = config.buffer_size + config.seq();
            moe.validate_races([training.batch_size / training.grad_accum.max(1), tokens])?;
        }
        Ok(())
    }

    /// The sizes of a generator of latents of this shape, in the order of their channels, each as wide as on average.
    fn generator(&self, [channels, height, width]: [usize; 3], classes: usize) -> GenArConfig {
        let bits = match self.bits {
            Bits::Uniform(bits) => bits,
            Bits::Auto { mean } => mean.ceil() as u8,
        };
        GenArConfig {
            class_num: classes,
            buffer_size: self.buffer_size,
            mask_ratio_min: self.mask_ratio_min,
            mask_ratio_std: self.mask_ratio_std,
            attn_dropout: self.dropout,
            proj_dropout: self.dropout,
            dims_per_step: self.dims_per_step,
            moe: self.experts.clone().map(without_target),
            dec: self.dec,
            ..GenArConfig::new([height, width], channels, 1 << bits, self.enc, self.head)
        }
    }
}

/// Draws a grid of samples, a column per class.
struct Samples {
    model: ArModel,
    folder: PathBuf,
    /// Steps of a grid, which has no more than tokens.
    steps: usize,
}

impl Shows<GenAr> for Samples {
    fn line(&self, report: &StepReport) -> String {
        // With experts the loss is more than the likelihood that bits count.
        let nats = report
            .parts
            .iter()
            .find(|part| part.0 == "cross_entropy")
            .map_or(report.loss, |part| part.1);
        let bits = nats / std::f32::consts::LN_2;
        format!("loss {:.4} ({bits:.3} bits/dim)", report.loss)
    }

    fn is_shown(&self, epoch: u64, _: Cadence) -> bool {
        samples_file(&self.folder, epoch).exists()
    }

    fn show(&mut self, epoch: u64, ema: &GenAr, _: Cadence) -> Flow {
        let (requests, columns) = sample_requests(self.model.card.class_names.len());
        // The first rank draws alone.
        let ema = ema.clone().on(TokenSharding::Local)?;
        let sampling = self.model.card.sampling.clone();
        let sampling = SampleConfig {
            steps: self.steps.min(sampling.steps),
            ..sampling
        };
        match ema.generate(&requests, &sampling, &mut |_| interrupt::flow()) {
            Ok(indices) => {
                let cells = self.model.decode(indices.view())?;
                write_samples(&self.folder, epoch, &cells, columns)?;
                Ok(interrupt::flow())
            }
            Err(tessera::gen_ar::Error::Cancelled { .. }) => Ok(ControlFlow::Break(())),
            Err(error) => Err(error.into()),
        }
    }
}
