//! `tessera eval`: how good are the generator's pictures, and how much does quantization cost?

mod features;
mod pictures;
mod print;

use crate::args::{DataArgs, Global, MOST_PICTURES, ModelArgs, within};
use crate::draw::draw;
use crate::progress::Progress;
use crate::sampling::SamplingArgs;
use crate::{data, output};
use anyhow::{Context, Result, bail, ensure};
use clap::{ArgGroup, Args};
use features::FeatureArgs;
use pictures::Pictures;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use tessera::evaluate::{
    Classifier, Evaluation, FeatureFigures, FeatureFloor, FeatureReport, Looked, RealPictures,
    evaluate, on_squares,
};
use tessera::pictures::Pixels;
use tessera::pictures::dataset::{Dataset, Split, spaced};
use tessera::quantize::Quantizer;
use tessera::{ArModel, ComputePrecision, Model, RateDistortion, Request, Tokenizer, entropy_bits};
use tessera_plots as plots;

/// Bit widths that reconstruction is measured at.
const BITS: [u8; 4] = [3, 4, 5, 6];
/// Pictures that the grid of reconstructions shows.
const SHOWN: usize = 16;

/// Judge a model: generated pictures by a classifier, or reconstructions by PSNR and SSIM.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("eyes").multiple(true).args(["judge", "features"]))]
#[command(after_help = "Examples:\n  \
    tessera eval --features efficientnet_lite0.safetensors --pictures out/ --against photos/test\n  \
    tessera eval -n 100 --data clothing-dataset-small/\n  \
    tessera eval --reconstruction --data clothing-dataset-small/ -o report\n  \
    tessera eval --pictures out --judge runs/judge/model --data cifar10/")]
pub struct Eval {
    #[command(flatten)]
    model: ModelArgs,
    /// The real data, IDX files or a folder of train/ and test/, sized as for training: the training half for the
    /// floor, the test half to compare with.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Judge the pictures of this folder, whatever drew them, instead of a model's. Where all say in their metadata
    /// what class they were asked for, as those of `tessera generate` do, agreement is reported too.
    #[arg(
        long,
        value_name = "DIR",
        requires = "eyes",
        conflicts_with_all = ["model", "reconstruction", "num_images", "seed", "SamplingArgs"]
    )]
    pictures: Option<PathBuf>,
    /// The classifier, as `tessera train judge` leaves it; the model's own unless given.
    #[arg(long, value_name = "DIR", conflicts_with = "reconstruction")]
    judge: Option<PathBuf>,
    /// Measure reconstructions of the test images instead of generated pictures.
    #[arg(long, conflicts_with = "SamplingArgs")]
    reconstruction: bool,
    #[command(flatten)]
    features: FeatureArgs,
    /// Generated pictures per class.
    #[arg(short, long, default_value_t = 100, value_name = "N")]
    #[arg(value_parser = within(1..=MOST_PICTURES))]
    num_images: usize,
    /// At most so many real images of either half; all unless given.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = within(1..=usize::MAX))]
    limit: Option<usize>,
    /// Picture i is drawn from seed + i.
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    #[arg(value_parser = within(0..=u64::MAX))]
    seed: u64,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Pictures drawn at once.
    #[arg(long, default_value_t = 100, value_name = "N")]
    #[arg(value_parser = within(1..=MOST_PICTURES))]
    batch_size: usize,
    /// A folder for pictures and plots.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is known of generated pictures.
#[derive(Serialize)]
struct GenerationReport {
    model: String,
    images: usize,
    images_per_second: f64,
    classes: Vec<String>,
    #[serde(flatten)]
    evaluation: Option<Evaluation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<FeatureReport>,
}

/// What is known of reconstructions.
#[derive(Serialize)]
struct ReconstructionReport {
    model: String,
    images: usize,
    rows: Vec<Quality>,
    /// Of the model's own bit width, per dimension, in bits.
    entropy_bits: Vec<f32>,
    /// Their mean where dimensions differ.
    bits: f32,
    /// Of training pictures beside the test pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_floor: Option<FeatureFloor>,
}

/// Quality of one kind of reconstruction, means over the images.
#[derive(Serialize)]
struct Quality {
    latents: String,
    psnr_db: f64,
    /// None where every picture is too small for it.
    ssim: Option<f64>,
    /// Beside the originals.
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<FeatureFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    perceptual: Option<f64>,
}

impl Eval {
    /// Measures and prints.
    ///
    /// # Errors
    /// A model without judge, data that is missing, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        if let (Some(folder), Some(_)) = (&self.pictures, &self.features.features) {
            ensure!(
                self.output.is_none() || self.features.writes(),
                "-o with --pictures is for --neighbors N"
            );
            if let Some(folder) = &self.output {
                output::folder(folder, self.overwrite)?;
            }
            let (limit, output) = (self.limit, self.output.as_deref());
            let args = &self.features;
            return args.folders(folder, limit, output, self.json, &device, global.quiet);
        }
        if let (Some(folder), Some(judge)) = (&self.pictures, &self.judge) {
            ensure!(self.output.is_none(), "-o with --pictures needs --features");
            let pictures = Pictures {
                folder,
                judge,
                data: self.data.as_deref(),
                limit: self.limit,
                json: self.json,
            };
            return pictures.run(&device, global.quiet);
        }
        if let Some(folder) = &self.output {
            output::folder(folder, self.overwrite)?;
        }
        let model = self.model.open(&device, global.quiet)?;
        match (model, self.reconstruction) {
            (model, false) => {
                self.generation(model.in_precision(ComputePrecision::F32)?, global.quiet)
            }
            (Model::Ar(model), true) => self.reconstruction(model, global.quiet),
            (Model::Dit(model), true) => bail!(
                "--reconstruction: expected an autoregressive model, found the diffusion transformer `{}`, which \
                 quantizes nothing",
                model.card.name
            ),
        }
    }

    /// One half of the real data, as the tokenizer takes it.
    fn real(
        &self,
        img_size: usize,
        channels: usize,
        split: Split,
        quiet: bool,
    ) -> Result<Option<Box<dyn Dataset>>> {
        let Some(folder) = &self.data else {
            return Ok(None);
        };
        let args = DataArgs {
            data: folder.clone(),
            img_size,
            channels,
            strict: false,
        };
        data::open(&args, split, quiet).map(Some)
    }

    /// The classifier that is given, held against the model whose pictures it is to judge.
    fn judge(&self, model: &Model, [img_size, channels]: [usize; 2]) -> Result<Option<Classifier>> {
        let Some(folder) = &self.judge else {
            return Ok(None);
        };
        let judge = pictures::open_judge(folder, model.device())?;
        let config = judge.config();
        for (what, found, expected) in [
            ("classes", config.classes, model.class_names().len()),
            ("pixels a side", config.img_size, img_size),
            ("channels", config.in_channels, channels),
        ] {
            if found != expected {
                bail!(
                    "{}: the judge is of {found} {what}, the model of {expected}",
                    folder.display()
                );
            }
        }
        Ok(Some(judge))
    }

    fn generation(&self, mut model: Model, quiet: bool) -> Result<()> {
        let looking = self.features.open(model.device(), quiet)?;
        let [img_size, channels] = match &model {
            Model::Ar(model) => [model.card.img_size, model.vae.image_channels()],
            Model::Dit(model) => [model.card.img_size, model.tokenizer.image_channels()],
        };
        let given = self.judge(&model, [img_size, channels])?;
        let own = match &mut model {
            Model::Ar(model) => model.classifier.take(),
            Model::Dit(_) => None,
        };
        let classifier = given.as_ref().or(own.as_ref());
        ensure!(
            classifier.is_some() || looking.is_some(),
            "the model has no judge: train one with `tessera train judge`, and give it with --judge or put its model \
            folder at MODEL/judge"
        );
        let train = self.real(img_size, channels, Split::Train, quiet)?;
        let test = self.real(img_size, channels, Split::Test, quiet)?;
        let sampling = self.sampling.of_model(&model, &model.sampling())?;
        let classes = model.class_names().len();
        let total = classes * self.num_images;
        let tested = |test: &dyn Dataset| spaced(test.len(), self.limit.unwrap_or(usize::MAX));
        if let Some(looking) = &looking {
            let (train, test) = train
                .as_ref()
                .zip(test.as_ref())
                .context("--features needs --data")?;
            looking.require(total, tested(&**test).len(), train.len())?;
        }
        let request = |i: usize| Request::new(i / self.num_images, self.seed + i as u64);
        let requests: Vec<_> = (0..total).map(request).collect();
        let started = Instant::now();
        let mut pictures = Vec::with_capacity(total);
        let generation = model.generate(requests, &sampling).batch(self.batch_size);
        draw(generation, total, quiet, |picture| {
            pictures.push(picture.pixels);
            Ok(())
        })?;
        let images_per_second = pictures.len() as f64 / started.elapsed().as_secs_f64();
        let evaluation = match classifier {
            Some(classifier) => {
                let batches = pictures.chunks(self.batch_size);
                let squares = batches.map(|batch| on_squares(batch, img_size));
                let requested: Vec<usize> = (0..total).map(|i| i / self.num_images).collect();
                let real = train.as_ref().zip(test.as_ref());
                let real = real.map(|(train, test)| RealPictures {
                    train: &**train,
                    test: &**test,
                    limit: self.limit,
                });
                let evaluated = evaluate(classifier, squares)?;
                Some(Evaluation::of(
                    classifier,
                    &evaluated,
                    Some(&requested),
                    real,
                )?)
            }
            None => None,
        };
        let mut report = GenerationReport {
            model: model.name().into(),
            images: pictures.len(),
            images_per_second,
            classes: model.class_names().to_vec(),
            evaluation,
            features: None,
        };
        if let (Some(looking), Some(train), Some(test)) = (&looking, &train, &test) {
            let (tokenizer, quantizer) = match model {
                Model::Ar(model) => {
                    let quantizer = model.quantizer.clone();
                    (Tokenizer::from(model), Some(quantizer))
                }
                Model::Dit(model) => (Tokenizer::from(model), None),
            };
            let through = |real: &dyn Dataset, indices: &[usize]| -> Result<Looked> {
                let mut looked = Looked::default();
                for chunk in indices.chunks(tokenizer.batch()) {
                    let images = chunk.iter().map(|&index| real.image(index));
                    let images: Vec<_> = images.collect::<Result<_, _>>()?;
                    let all = tokenizer.reconstruct(&images, quantizer.as_slice())?;
                    looking.reconstructed(&mut looked, &all, img_size)?;
                }
                Ok(looked)
            };
            let real = [
                through(&**test, &tested(&**test))?,
                through(&**train, &spaced(train.len(), total))?,
            ];
            let pad = |picture: &Pixels| picture.pad(img_size, img_size);
            let padded = pictures.iter().map(pad).collect::<Result<Vec<_>, _>>()?;
            let output = self.output.as_deref();
            report.features = Some(looking.drawn(&padded, &**train, &real, output)?);
        }
        if let Some(folder) = &self.output {
            let columns = 10.min(self.num_images);
            let rows = pictures.chunks(self.num_images);
            let shown: Vec<Pixels> = rows.flat_map(|row| &row[..columns]).cloned().collect();
            output::grid(&folder.join("samples.png"), &shown, columns)?;
            if let Some(shares) = report.evaluation.as_ref().and_then(Evaluation::shares) {
                plots::bars(
                    &folder.join("agreement.svg"),
                    "Agreement of the judge by class",
                    &report.classes,
                    &shares,
                    "share",
                )?;
            }
        }
        if self.json {
            return output::report("tessera.eval.generation/v1", &report);
        }
        output::text(format_args!(
            "{} pictures, {:.1} images/s",
            report.images, report.images_per_second
        ))?;
        if let Some(evaluation) = &report.evaluation {
            print::print(evaluation, &report.classes)?;
        }
        match looking.zip(report.features) {
            Some((looking, features)) => looking.print(&features),
            None => Ok(()),
        }
    }

    fn reconstruction(&self, model: ArModel, quiet: bool) -> Result<()> {
        let looking = self.features.open(&model.device, quiet)?;
        let (name, quantizer) = (model.card.name.clone(), model.quantizer.clone());
        let config = model.card.quantizer.clone();
        let tokenizer = Tokenizer::from(model);
        let size = tokenizer
            .square
            .context("a model's pictures are of one size")?;
        let test = self
            .real(
                size.img_size,
                tokenizer.vae.image_channels(),
                Split::Test,
                quiet,
            )?
            .context("--reconstruction needs --data")?;
        let indices = spaced(test.len(), self.limit.unwrap_or(usize::MAX));
        let train = match &looking {
            Some(looking) => {
                let channels = tokenizer.vae.image_channels();
                let train = self.real(size.img_size, channels, Split::Train, quiet)?;
                let train = train.context("--features needs --data")?;
                looking.require(indices.len(), indices.len(), train.len())?;
                Some(train)
            }
            None => None,
        };
        let mut looked = Looked::default();
        let of_bits = |&bits: &u8| Quantizer::new(config.clone().with_bits(bits));
        let quantizers = BITS.iter().map(of_bits).collect::<Result<Vec<_>, _>>()?;
        let (mut rows, mut latents, mut shown) = (Vec::new(), Vec::new(), Vec::new());
        let mut progress = Progress::new("reconstruct", "images", indices.len() as u64, quiet);
        for chunk in indices.chunks(self.batch_size) {
            let images = chunk.iter().map(|&index| test.image(index));
            let images: Vec<_> = images.collect::<Result<_, _>>()?;
            let encoded = tokenizer.encode(&images)?;
            latents.push(encoded.clone());
            let all = tokenizer.reconstruct_encoded(&images, encoded, &quantizers)?;
            if let Some(looking) = &looking {
                looking.reconstructed(&mut looked, &all, size.img_size)?;
            }
            for all in all {
                rows.push(all.measure("")?);
                if shown.len() < SHOWN {
                    shown.push(all);
                }
            }
            progress.set(rows.len() as u64, "");
            if crate::interrupt::requested() {
                bail!("stopped");
            }
        }
        progress.finish();
        let mean = RateDistortion::mean(&rows).context("no picture to measure")?;
        let names = std::iter::once("continuous".to_owned())
            .chain(BITS.iter().map(|bits| format!("{bits} bits")));
        let (mut figures, mut feature_floor) = (Vec::new(), None);
        if let (Some(looking), Some(train)) = (&looking, &train) {
            for version in 1..looked.versions.len() {
                let of_version = looked.figures(version, looking.knn)?;
                figures.push((of_version, looked.apart(version)));
            }
            let training = looking.training(&**train, indices.len())?;
            let (original, training) = (looked.features(0), training.features(0));
            let floor = FeatureFloor::of(indices.len(), original, training, looking.knn)?;
            feature_floor = Some(floor);
        }
        let mut figures = figures.into_iter();
        let rows = names.zip(mean.qualities()).map(|(latents, quality)| {
            let (features, perceptual) = figures.next().unzip();
            Quality {
                latents,
                psnr_db: quality.psnr,
                ssim: quality.ssim,
                features,
                perceptual,
            }
        });
        let report = ReconstructionReport {
            model: name,
            images: indices.len(),
            rows: rows.collect(),
            entropy_bits: entropy_bits(&latents, &quantizer)?,
            bits: quantizer.config().mean_bits(),
            feature_floor,
        };
        if let Some(folder) = &self.output {
            let rows = 0..2 + BITS.len();
            let cells =
                rows.flat_map(|row| shown.iter().filter_map(move |all| all.pictures().nth(row)));
            let cells: Vec<Pixels> = cells.cloned().collect();
            output::grid(&folder.join("reconstructions.png"), &cells, shown.len())?;
            let labels: Vec<String> = (0..report.entropy_bits.len())
                .map(|i| i.to_string())
                .collect();
            let values: Vec<f64> = report
                .entropy_bits
                .iter()
                .map(|&bits| bits.into())
                .collect();
            let title = format!("Entropy per dimension at {} bits", report.bits);
            plots::bars(
                &folder.join("entropy.svg"),
                &title,
                &labels,
                &values,
                "bits",
            )?;
        }
        if self.json {
            return output::report("tessera.eval.reconstruction/v1", &report);
        }
        output::text(format_args!("{} test images", report.images))?;
        let heads = match report.feature_floor {
            Some(_) => "  FD-EffLite0 perceptual",
            None => "",
        };
        output::text(format_args!(
            "{:<12} {:>8} {:>8}{heads}",
            "latents", "PSNR dB", "SSIM"
        ))?;
        for row in &report.rows {
            let looked = row.features.zip(row.perceptual);
            let looked = looked
                .map(|(figures, apart)| format!("  {:>11.2} {apart:>10.4}", figures.distance));
            output::text(format_args!(
                "{:<12} {:>8.3} {:>8}{}",
                row.latents,
                row.psnr_db,
                output::ssim(row.ssim),
                looked.unwrap_or_default()
            ))?;
        }
        if let (Some(floor), Some(looking)) = (&report.feature_floor, &looking) {
            looking.print_floor(floor)?;
        }
        let entropies: Vec<String> = report
            .entropy_bits
            .iter()
            .map(|bits| format!("{bits:.3}"))
            .collect();
        output::text(format_args!(
            "entropy per dimension at {} bits: {}",
            report.bits,
            entropies.join(" ")
        ))?;
        Ok(())
    }
}
