//! `tessera train dit`.

use super::training::latents::{Kept, provenance};
use super::training::run::{self, Pictures};
use super::training::watch::{Shows, Watching};
use super::training::{self, Flow, sample_requests, samples_file, write_samples};
use crate::args::{
    DataArgs, Dtype, Global, LoopArgs, MOST_STEPS, Products, RunArgs, WeightsKind, above, spelled,
    within,
};
use crate::progress::{Cadence, Progress, encoding};
use crate::{data, interrupt, output, ranks};
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use ndarray::Array4;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use tessera::attention2d::{Grid, TokenSharding};
use tessera::gen_ar::TransformerConfig;
use tessera::gen_dit::{Dit, DitConfig, LatentObjective, Process, SampleConfig};
use tessera::moe::{Gate, MoeConfig, RoutingRule};
use tessera::quantize::{MomentsBuilder, ScaleBy};
use tessera::tokenizers::{ImageTokenizer, PixelTokenizer};
use tessera::train::{LATENTS_FILE, StepReport, TrainConfig, ValidationLog, train_on};
use tessera::{
    ComputePrecision, Device, DitCard, DitModel, LatentFile, Orientation, encode_dataset,
};

/// Train a diffusion transformer, dense or with racing experts, on pixels or the latents of a tokenizer.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera train dit --data pictures/ --img-size 128 --vae taef2.safetensors --experts 2-in-8 -o runs/race\n  \
    tessera train dit --data cifar10/ --img-size 32 --patch 4 --size 192,6,6 --experts 4-in-32 -o runs/pixels")]
pub struct TrainDit {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    training: LoopArgs,
    /// The tokenizer, a folder or a file of weights; pixels are diffused unless given.
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    /// Which weights of the tokenizer's checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND", requires = "vae")]
    weights: Option<WeightsKind>,
    /// Width, depth and heads.
    #[arg(long, default_value = "256,8,4", value_parser = size, value_name = "W,D,H")]
    size: TransformerConfig,
    /// Side of the squares of latents that are one token.
    #[arg(long, default_value_t = 2, value_name = "N")]
    #[arg(value_parser = within(1_usize..=1024))]
    patch: usize,
    /// What the model is trained to undo.
    #[arg(long, value_enum, default_value = "flow")]
    process: ProcessArg,
    /// Experts in every block, k-in-E: each token has k of E on average, each a k-th as wide as the dense MLP. Without,
    /// the model is dense.
    #[arg(long, value_name = "K-in-E")]
    experts: Option<MoeConfig>,
    #[command(flatten)]
    routing: RoutingArgs,
    /// Crops of each picture to train on: the whole, and windows of it with 0.85 to 1 of its side.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        conflicts_with = "val_share"
    )]
    #[arg(value_parser = within(1_usize..=1000))]
    crops: usize,
    /// Mirror pictures at random.
    #[arg(long)]
    flip: bool,
    /// Share of the pictures that is held out, evenly spaced, for the validation loss in validation.jsonl.
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    #[arg(value_parser = within(0.0_f64..=1.0))]
    val_share: f64,
    /// Steps of drawing a sample grid.
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
    #[arg(long, default_value = "tessera-dit", value_name = "NAME")]
    name: String,
    /// Default steps of sampling of the finished model.
    #[arg(long, default_value_t = 50, value_name = "N")]
    #[arg(value_parser = within(1_usize..=1000))]
    steps: usize,
    /// Default guidance scale of the finished model.
    #[arg(long, default_value_t = 2.0, value_name = "X")]
    #[arg(value_parser = within(0.0_f32..=1000.0))]
    cfg_scale: f32,
}

/// How tokens get their experts; the paper's choices unless given.
#[derive(Debug, Clone, Args)]
struct RoutingArgs {
    /// Who races whom; race unless given.
    #[arg(long, value_enum, requires = "experts")]
    rule: Option<RuleArg>,
    /// What scales an expert's output; identity unless given.
    #[arg(long, value_enum, requires = "experts")]
    gate: Option<GateArg>,
    /// Experts a token has on average, where it is not the k of k-in-E; that unless given.
    #[arg(long, requires = "experts", value_name = "X")]
    #[arg(value_parser = within(above(0.0_f64)))]
    mean_k: Option<f64>,
    /// At inference, let the experts of each image race instead of holding them against a learned threshold.
    #[arg(long, requires = "experts")]
    no_threshold: bool,
    /// Weight of the router similarity loss; 1e-4 unless given.
    #[arg(long, requires = "experts", value_name = "X")]
    #[arg(value_parser = within(0.0_f64..))]
    similarity: Option<f64>,
    /// Weight of Switch's balance loss; 0 unless given.
    #[arg(long, requires = "experts", value_name = "X")]
    #[arg(value_parser = within(0.0_f64..))]
    balance: Option<f64>,
    /// Weight of the per-layer regularization; 1e-2 unless given.
    #[arg(long, requires = "experts", value_name = "X")]
    #[arg(value_parser = within(0.0_f64..))]
    per_layer: Option<f64>,
}

impl RoutingArgs {
    fn over(&self, config: MoeConfig) -> MoeConfig {
        MoeConfig {
            k: self.mean_k.unwrap_or(config.k),
            rule: self.rule.map_or(config.rule, RoutingRule::from),
            gate: self.gate.map_or(config.gate, Gate::from),
            threshold: config.threshold && !self.no_threshold,
            similarity_weight: self.similarity.unwrap_or(config.similarity_weight),
            balance_weight: self.balance.unwrap_or(config.balance_weight),
            target_weight: self.per_layer.unwrap_or(config.target_weight),
            ..config
        }
    }
}

spelled!(
    /// What the model is trained to undo.
    enum ProcessArg for Process {
        /// Denoising diffusion with a learned sigma, as DiT.
        Ddpm,
        /// Rectified flow.
        Flow,
    }
);
spelled!(
    /// Who races whom.
    enum RuleArg for RoutingRule {
        /// The experts of one token (token choice).
        Token,
        /// The tokens of one image for one expert (expert choice).
        Expert,
        /// The tokens of the batch for one expert.
        BatchSeq,
        /// At one position, all images and experts.
        BatchExperts,
        /// In one image, all tokens and experts.
        SeqExperts,
        /// Everything against everything.
        Race,
    }
);
spelled!(
    /// What scales an expert's output.
    enum GateArg for Gate {
        /// The raw logit.
        Identity,
        /// The logistic function.
        Sigmoid,
        /// Softmax over the experts.
        Softmax,
    }
);

fn size(text: &str) -> Result<TransformerConfig, String> {
    training::transformer(text, "256,8,4")
}

/// What `config.json` calls a run of this command.
const KIND: &str = "gen-dit";

/// What `config.json` of the run says; a resumed run must say the same.
#[derive(Serialize)]
struct RunConfig<'a> {
    kind: &'static str,
    model: &'a DitConfig,
    training: &'a TrainConfig,
    latent_mean: &'a [f32],
    latent_scale: &'a [f32],
    class_names: &'a [String],
    flip: bool,
    val_share: f64,
    data: &'a Pictures,
    vae_sha256: Option<&'a str>,
}

/// What of it is known before the pictures are encoded.
#[derive(Serialize)]
struct Known<'a> {
    kind: &'static str,
    model: &'a DitConfig,
    training: &'a TrainConfig,
    flip: bool,
    val_share: f64,
    data: &'a Pictures,
    vae_sha256: Option<&'a str>,
}

impl TrainDit {
    /// Encodes, trains, measures the thresholds again for the averaged weights, and leaves the model in `OUTPUT/model`.
    ///
    /// # Errors
    /// Bad data, bad sizes, a tokenizer that does not fit, a loss that is not finite.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        let training = TrainConfig {
            precision: global.products(&device, self.precision)?,
            ..self.training.config()
        };
        let (ranks, sequence) = ranks::training(self.attn_grid)?;
        let entry = run::enter(&ranks, &self.run)?;
        let (tokenizer, vae_sha256) = self.tokenizer(&device)?;
        tokenizer.check_image_size(self.data.img_size, self.data.img_size)?;
        let pictures = data::open_crops(&self.data, self.crops, global.quiet)?;
        let config = self.model(&*tokenizer, pictures.class_names().len())?;
        let (train, held_out) = held_out(pictures.len(), self.val_share)?;
        let plan = training.plan(train.len()).map_err(run::in_words)?;
        let trained_on = Pictures::of(&*pictures)?;
        let known = Known {
            kind: KIND,
            model: &config,
            training: &training,
            flip: self.flip,
            val_share: self.val_share,
            data: &trained_on,
            vae_sha256: vae_sha256.as_deref(),
        };
        run::require_same(&entry, &known)?;
        let encode = |orientation| {
            encoding(global.quiet, |progress| {
                encode_dataset(&*tokenizer, &*pictures, orientation, &device, progress)
            })
        };
        let both = || -> Result<LatentFile> {
            Ok(LatentFile {
                latents: encode(Orientation::Upright)?,
                mirrored: match self.flip {
                    true => Some(encode(Orientation::Mirrored)?),
                    false => None,
                },
                provenance: serde_json::Value::Null,
            })
        };
        let LatentFile {
            latents, mirrored, ..
        } = match &vae_sha256 {
            Some(weights) => Kept {
                file: &self.run.output.join(LATENTS_FILE),
                named: false,
                mirrored: false,
                provenance: provenance(
                    serde_json::json!({ "flip": self.flip }),
                    weights,
                    self.data.img_size,
                    &trained_on,
                ),
                quiet: global.quiet,
            }
            .means(both)?,
            None => both()?,
        };
        let card = self.card(&latents, pictures.class_names())?;
        if let Some(moe) = &config.moe {
            moe.validate_races([
                training.batch_size / training.grad_accum.max(1),
                config.seq(),
            ])?;
        }
        let run_config = RunConfig {
            kind: KIND,
            model: &config,
            training: &training,
            latent_mean: &card.latent_mean,
            latent_scale: &card.latent_scale,
            class_names: &card.class_names,
            flip: self.flip,
            val_share: self.val_share,
            data: &trained_on,
            vae_sha256: vae_sha256.as_deref(),
        };
        let run = run::open(&ranks, entry, &run_config, &training, global.quiet)?;
        let _lock = run.lock();
        let labels: Vec<usize> = (0..pictures.len()).map(|i| pictures.label(i)).collect();
        let autodiff = device.burn().clone().autodiff();
        let data = LatentObjective {
            values: card.normalize(latents),
            mirrored: mirrored.map(|mirrored| card.normalize(mirrored)),
            labels,
            train,
            device: autodiff.clone(),
        };
        let model = config.init(training.seed, &autodiff).on(sequence)?;
        if !global.quiet {
            let counted = config.parameters();
            output::note(format_args!(
                "{:.2} M parameters in the blocks, of which a token meets {:.2} M; {} images of {} tokens",
                counted.total as f64 / 1e6,
                counted.activated as f64 / 1e6,
                data.train.len(),
                config.seq()
            ));
        }
        let progress = Progress::new("train dit", "steps", plan.total_steps, global.quiet);
        let shows = Samples {
            model: DitModel {
                card,
                tokenizer,
                transformer: config.init(0, device.burn()),
                digest: None,
                precision: ComputePrecision::F32,
                device,
            },
            data: &data,
            held_out,
            validation: ValidationLog::of(&self.run.output),
            steps: self.sample_steps,
            output: self.run.output.clone(),
        };
        let mut watch = Watching::new(shows, progress, self.training.cadence(global.quiet));
        let folder = self.run.output.join("model");
        if ranks.first() {
            // So that the checkpoints can be drawn with while the run goes on.
            watch.of.model.describe(&folder)?;
        }
        let saving = interrupt::Saving::begin();
        let trained = train_on(&ranks, model, &data, &training, run, &mut watch);
        let trained = trained.map_err(run::in_words)?;
        drop(saving);
        watch.finish();
        interrupt::not_stopped(&trained)?;
        if !ranks.first() {
            return Ok(());
        }
        let ema = trained.ema.on(TokenSharding::Local)?;
        DitModel {
            transformer: data.calibrated(ema, training.batch_size, training.seed)?,
            ..watch.of.model
        }
        .save(&folder, self.dtype.into())?;
        output::text(folder.display())?;
        Ok(())
    }

    /// The tokenizer, and SHA-256 of its weights if it has some.
    fn tokenizer(&self, device: &Device) -> Result<(Box<dyn ImageTokenizer>, Option<String>)> {
        let Some(path) = &self.vae else {
            let pixels = PixelTokenizer::new(self.data.channels, device.burn());
            return Ok((Box::new(pixels), None));
        };
        let (tokenizer, sha256) = run::tokenizer(path, self.weights, &self.data, device)?;
        Ok((tokenizer, Some(sha256)))
    }

    /// What the options and the tokenizer make of the model.
    fn model(&self, tokenizer: &dyn ImageTokenizer, classes: usize) -> Result<DitConfig> {
        let process = Process::from(self.process);
        let config = DitConfig {
            input_size: self.data.img_size / tokenizer.downsampling(),
            in_channels: tokenizer.latent_channels(),
            num_classes: classes,
            learn_sigma: process == Process::Ddpm,
            process,
            moe: self.experts.clone().map(|moe| self.routing.over(moe)),
            hidden_size: self.size.width,
            depth: self.size.depth,
            num_heads: self.size.heads,
            patch_size: self.patch,
            ..DitConfig::xl_2()
        };
        config.validate().map_err(run::sizes_in_words)?;
        Ok(config)
    }

    /// What the data and the options make of its card.
    fn card(&self, latents: &Array4<f32>, class_names: &[String]) -> Result<DitCard> {
        let mut moments = MomentsBuilder::new();
        moments.add(latents.view())?;
        let normal = moments.finish()?.quantizer_config(8, 5.0, ScaleBy::Channel);
        let sampling = SampleConfig::new(self.steps, self.cfg_scale);
        sampling.validate()?;
        Ok(DitCard {
            schema: DitCard::SCHEMA.into(),
            name: self.name.clone(),
            img_size: self.data.img_size,
            class_names: class_names.to_vec(),
            latent_mean: normal.mean,
            latent_scale: normal.scale,
            sampling,
            parts: BTreeMap::new(),
        })
    }
}

/// The images to train on and those held out.
fn held_out(images: usize, share: f64) -> Result<(Vec<usize>, Vec<usize>)> {
    ensure!(
        (0.0..1.0).contains(&share),
        "--val-share {share}: expected 0 or more and less than 1"
    );
    let count = (images as f64 * share).round() as usize;
    let is_held_out = |i: usize| (i + 1) * count / images > i * count / images;
    Ok((0..images).partition(|&i| !is_held_out(i)))
}

/// Draws a grid of samples, a column per class, and measures the loss on what was held out.
struct Samples<'a> {
    model: DitModel,
    data: &'a LatentObjective,
    held_out: Vec<usize>,
    /// The losses on those, of the averaged weights as at inference.
    validation: ValidationLog,
    /// Steps of a grid.
    steps: usize,
    output: PathBuf,
}

/// The folder of the grids.
const SAMPLES: &str = "samples";

impl Shows<Dit> for Samples<'_> {
    fn line(&self, report: &StepReport) -> String {
        let mse = report.parts.iter().find(|part| part.0 == "mse");
        format!("mse {:.4}", mse.map_or(report.loss, |part| part.1))
    }

    fn at_end_of(&self, epoch: u64, cadence: Cadence) -> bool {
        !self.held_out.is_empty() || cadence.draws(epoch)
    }

    fn is_shown(&self, epoch: u64, cadence: Cadence) -> bool {
        let samples = samples_file(&self.output.join(SAMPLES), epoch);
        let drawn = !cadence.draws(epoch) || samples.exists();
        drawn && (self.held_out.is_empty() || self.validation.has(epoch))
    }

    fn show(&mut self, epoch: u64, ema: &Dit, cadence: Cadence) -> Flow {
        // The first rank draws and measures alone.
        let ema = &ema.clone().on(TokenSharding::Local)?;
        if !self.held_out.is_empty() {
            // The same noise at every epoch.
            let mse = self.data.validation_mse(ema, &self.held_out);
            self.validation.add(epoch, "mse", mse)?;
        }
        if !cadence.draws(epoch) {
            return Ok(interrupt::flow());
        }
        let (requests, columns) = sample_requests(self.model.card.class_names.len());
        let sampling = SampleConfig {
            steps: self.steps,
            ..self.model.card.sampling
        };
        match ema.generate(&requests, &sampling, &mut |_| interrupt::flow()) {
            Ok(latents) => {
                let cells = self.model.decode(latents)?;
                write_samples(&self.output.join(SAMPLES), epoch, &cells, columns)?;
                Ok(interrupt::flow())
            }
            Err(tessera::gen_dit::Error::Cancelled { .. }) => Ok(ControlFlow::Break(())),
            Err(error) => Err(error.into()),
        }
    }
}
