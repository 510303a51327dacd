//! `tessera eval`: how good are the generator's pictures, and how much does quantisation cost?

mod judged;
mod pictures;

use crate::args::Global;
use crate::bundle::Bundle;
use crate::data::{Padded, encoded, spaced};
use crate::output;
use crate::plot;
use crate::progress::Progress;
use crate::sampling::{SamplingArgs, draw};
use anyhow::{Context, Result, bail};
use clap::Args;
use judged::{Judged, Real, as_judged};
use ndarray::Array4;
use pictures::Pictures;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tessera_gen_ar::ImageRequest;
use tessera_quantize::{CalibrationBuilder, MomentsBuilder, Quantizer};
use tessera_tokenizer::{GridStyle, Pixels, grid, psnr, ssim};
use tessera_train::data::{Dataset, Split, load_mnist_folder};
use tessera_train::judge::{examine, images_of};

/// Bit widths that reconstruction is measured at.
const BITS: [u8; 4] = [3, 4, 5, 6];
/// Where Debian's package of the built-in model's data lies.
const FASHION_MNIST: &str = "/usr/share/datasets/fashion-mnist";

/// Judge a model: generated pictures by a classifier, or reconstructions by PSNR and SSIM.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera eval -n 100 --data /usr/share/datasets/fashion-mnist\n  \
    tessera eval --reconstruction --data /usr/share/datasets/fashion-mnist -o report\n  \
    tessera eval --pictures out --judge runs/judge/model --data cifar10/")]
pub struct Eval {
    /// The model's folder; the built-in Fashion-MNIST model unless given.
    #[arg(short, long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The real data: the training half for the floor, the test half to compare with. For a model IDX files, for pictures
    /// also a folder of train/ and test/.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Judge the pictures of this folder, whatever drew them, instead of a model's. Where all say in their metadata what
    /// class they were asked for, as those of `tessera generate` do, agreement is reported too.
    #[arg(
        long,
        value_name = "DIR",
        requires = "judge",
        conflicts_with_all = ["model", "reconstruction", "num_images", "seed", "output"]
    )]
    pictures: Option<PathBuf>,
    /// The classifier for --pictures, as `tessera train judge` leaves it.
    #[arg(long, value_name = "DIR", requires = "pictures")]
    judge: Option<PathBuf>,
    /// Measure reconstructions of the test images instead of generated pictures.
    #[arg(long)]
    reconstruction: bool,
    /// Generated pictures per class.
    #[arg(short, long, default_value_t = 100, value_name = "N")]
    num_images: usize,
    /// At most so many real images of either half.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Picture i is drawn from seed + i.
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Pictures drawn at once.
    #[arg(long, default_value_t = 100, value_name = "N")]
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
    schema: &'static str,
    model: String,
    images: usize,
    images_per_second: f64,
    classes: Vec<String>,
    #[serde(flatten)]
    judged: Judged,
}

/// What is known of reconstructions.
#[derive(Serialize)]
struct ReconstructionReport {
    schema: &'static str,
    model: String,
    images: usize,
    rows: Vec<Quality>,
    /// Of the model's own bit width, per dimension, in bits.
    entropy_bits: Vec<f32>,
    bits: u8,
}

/// Quality of one kind of reconstruction, means over the images.
#[derive(Serialize)]
struct Quality {
    latents: String,
    psnr_db: f64,
    ssim: f64,
}

impl Eval {
    /// Measures and prints.
    ///
    /// # Errors
    /// A model without judge, data that is missing, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.device.open()?;
        if let (Some(folder), Some(judge)) = (&self.pictures, &self.judge) {
            let pictures = Pictures {
                folder,
                judge,
                data: self.data.as_deref(),
                limit: self.limit,
                json: self.json,
            };
            return pictures.run(&device, global.quiet);
        }
        let bundle = Bundle::open(self.model.as_deref(), &device)?;
        if let Some(folder) = &self.output {
            output::folder(folder, self.overwrite)?;
        }
        match self.reconstruction {
            true => self.reconstruction(&bundle, global.quiet),
            false => self.generation(&bundle, global.quiet),
        }
    }

    /// One half of the real data, as the tokenizer takes it.
    fn real(&self, bundle: &Bundle, split: Split) -> Result<Option<Padded<impl Dataset + use<>>>> {
        let folder = match &self.data {
            Some(folder) => folder.clone(),
            None if Path::new(FASHION_MNIST).is_dir() && self.model.is_none() => {
                FASHION_MNIST.into()
            }
            None => return Ok(None),
        };
        let data = load_mnist_folder(&folder, split)?;
        Ok(Some(Padded::new(
            data,
            bundle.info.img_size,
            bundle.vae.image_channels(),
        )?))
    }

    fn generation(&self, bundle: &Bundle, quiet: bool) -> Result<()> {
        let Some(judge) = &bundle.judge else {
            bail!(
                "the model has no judge: train one with `tessera train judge` and put its model folder at MODEL/judge"
            );
        };
        let config = self.sampling.over(&bundle.info.sampling)?;
        let classes = bundle.info.class_names.len();
        let request = |i: usize| ImageRequest {
            class: Some(i / self.num_images),
            seed: self.seed + i as u64,
        };
        let requests: Vec<_> = (0..classes * self.num_images).map(request).collect();
        let (started, mut pictures) = (Instant::now(), Vec::with_capacity(requests.len()));
        draw(
            bundle,
            &requests,
            &config,
            self.batch_size,
            quiet,
            |_, batch| {
                pictures.extend(batch);
                Ok(())
            },
        )?;
        let images_per_second = pictures.len() as f64 / started.elapsed().as_secs_f64();
        let batches = pictures.chunks(self.batch_size).map(|batch| {
            Ok(as_judged(batch, bundle.info.img_size)
                .expect("a finished picture is the centre of the square"))
        });
        let examined = examine(judge, batches)?;
        let requested: Vec<usize> = (0..requests.len()).map(|i| i / self.num_images).collect();
        let train = self.real(bundle, Split::Train)?;
        let test = self.real(bundle, Split::Test)?;
        let real = train.as_ref().zip(test.as_ref()).map(|(train, test)| Real {
            train,
            test,
            limit: self.limit,
        });
        let report = GenerationReport {
            schema: "tessera.eval.generation/v1",
            model: bundle.info.name.clone(),
            images: pictures.len(),
            images_per_second,
            classes: bundle.info.class_names.clone(),
            judged: Judged::of(judge, &examined, Some(&requested), real)?,
        };
        if let Some(folder) = &self.output {
            let shown: Vec<Pixels> = (0..classes)
                .flat_map(|class| {
                    pictures
                        .iter()
                        .skip(class * self.num_images)
                        .take(10.min(self.num_images))
                })
                .cloned()
                .collect();
            output::picture(
                &folder.join("samples.png"),
                &grid(&shown, 10.min(self.num_images), GridStyle::default())?,
                &[],
            )?;
            plot::bars(
                &folder.join("agreement.svg"),
                "Agreement of the judge by class",
                &report.classes,
                &report.judged.shares().unwrap_or_default(),
                "share",
            )?;
        }
        if self.json {
            return output::json(&report);
        }
        output::text(format_args!(
            "{} pictures, {:.1} images/s",
            report.images, report.images_per_second
        ))?;
        report.judged.print(&report.classes)
    }

    fn reconstruction(&self, bundle: &Bundle, quiet: bool) -> Result<()> {
        let test = self
            .real(bundle, Split::Test)?
            .context("--reconstruction needs --data")?;
        let indices = spaced(test.len(), self.limit.unwrap_or(usize::MAX));
        let quantizers = BITS
            .iter()
            .map(|&bits| {
                Ok(Quantizer::new(tessera_quantize::QuantizerConfig {
                    bits,
                    ..bundle.info.quantizer.clone()
                })?)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut sums = vec![(0.0, 0.0); 1 + BITS.len()];
        let mut latents = Vec::new();
        let mut shown: Vec<Vec<Pixels>> = vec![Vec::new(); 2 + BITS.len()];
        let mut progress = Progress::new("reconstruct", "images", indices.len() as u64, quiet);
        for chunk in indices.chunks(self.batch_size) {
            let images = images_of(&test, chunk)?;
            let originals = images
                .outer_iter()
                .map(|image| Ok(Pixels::from_array(bundle.finish(image.to_owned()).view())?))
                .collect::<Result<Vec<_>>>()?;
            let mean = encoded(&*bundle.vae, images)?;
            let [_, _, height, width] = <[usize; 4]>::from(mean.dim());
            let mut kinds = vec![bundle.decode_latents(mean.clone())?];
            for quantizer in &quantizers {
                let indices = quantizer.quantize(mean.view())?;
                kinds.push(bundle.decode_latents(quantizer.dequantize(
                    indices.view(),
                    height,
                    width,
                )?)?);
            }
            for (sum, kind) in sums.iter_mut().zip(&kinds) {
                for (original, decoded) in originals.iter().zip(kind) {
                    sum.0 += psnr(original, decoded)?;
                    sum.1 += ssim(original, decoded)?;
                }
            }
            if shown[0].len() < 16 {
                for (row, kind) in shown
                    .iter_mut()
                    .zip(std::iter::once(&originals).chain(&kinds))
                {
                    row.extend(kind.iter().take(16 - row.len().min(16)).cloned());
                }
            }
            progress.set((latents.len() * self.batch_size + chunk.len()) as u64, "");
            latents.push(mean);
            if crate::interrupt::requested() {
                bail!("stopped");
            }
        }
        progress.finish();
        let names = std::iter::once("continuous".to_owned())
            .chain(BITS.iter().map(|bits| format!("{bits} bits")));
        let count = indices.len() as f64;
        let quality = |(latents, (psnr, ssim)): (String, &(f64, f64))| Quality {
            latents,
            psnr_db: psnr / count,
            ssim: ssim / count,
        };
        let report = ReconstructionReport {
            schema: "tessera.eval.reconstruction/v1",
            model: bundle.info.name.clone(),
            images: indices.len(),
            rows: names.zip(&sums).map(quality).collect(),
            entropy_bits: entropy(&latents, &bundle.quantizer)?,
            bits: bundle.quantizer.bits(),
        };
        if let Some(folder) = &self.output {
            let columns = shown[0].len();
            let cells: Vec<Pixels> = shown.into_iter().flatten().collect();
            output::picture(
                &folder.join("reconstructions.png"),
                &grid(&cells, columns, GridStyle::default())?,
                &[],
            )?;
            let labels: Vec<String> = (0..report.entropy_bits.len())
                .map(|i| i.to_string())
                .collect();
            let values: Vec<f64> = report
                .entropy_bits
                .iter()
                .map(|&bits| bits.into())
                .collect();
            let title = format!("Entropy per dimension at {} bits", report.bits);
            plot::bars(
                &folder.join("entropy.svg"),
                &title,
                &labels,
                &values,
                "bits",
            )?;
        }
        if self.json {
            return output::json(&report);
        }
        output::text(format_args!("{} test images", report.images))?;
        output::text(format_args!(
            "{:<12} {:>8} {:>8}",
            "latents", "PSNR dB", "SSIM"
        ))?;
        for row in &report.rows {
            output::text(format_args!(
                "{:<12} {:>8.3} {:>8.4}",
                row.latents, row.psnr_db, row.ssim
            ))?;
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

/// Entropy of the model's own tokens per dimension, in bits.
fn entropy(latents: &[Array4<f32>], quantizer: &Quantizer) -> Result<Vec<f32>> {
    let mut moments = MomentsBuilder::new();
    for batch in latents {
        moments.add(batch.view())?;
    }
    let moments = moments.finish()?;
    let mut builder = CalibrationBuilder::new(&moments, quantizer)?;
    for batch in latents {
        builder.add(batch.view())?;
    }
    Ok(builder
        .finish()?
        .dimensions
        .iter()
        .map(|dimension| dimension.entropy_bits)
        .collect())
}
