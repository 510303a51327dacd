//! `tessera bench generate`: whole pictures, by part.

use super::measure::matmul_peak;
use crate::args::{Compute, Global, MOST_PICTURES, within};
use crate::progress::{Progress, loading};
use crate::sampling::SamplingArgs;
use crate::{interrupt, memory, output};
use anyhow::{Result, bail};
use burn::tensor::Tensor;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tessera::backend::{host_values, streams};
use tessera::gen_ar::{GenAr, GenArConfig, ImageRequest, SampleConfig, StageBreakdown};
use tessera::quantize::{Quantizer, QuantizerConfig};
use tessera::tokenizers::{ImageTokenizer, KlVaeConfig};
use tessera::{Device, Model, Source};

/// Measure generating pictures, by part: encoder, decoder and head of the generator, and the tokenizer's decoder.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  tessera bench generate\n  \
    tessera bench generate --arch tokenbridge-l --steps 64 --cfg-scale 3.1 --batch-size 1")]
pub struct Generate {
    /// An architecture with random weights, which cost what trained ones cost; the built-in model unless given.
    #[arg(short, long, value_enum, value_name = "NAME", conflicts_with = "model")]
    arch: Option<Arch>,
    /// A model as `tessera generate -m` takes it.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// The tokenizer of a released checkpoint.
    #[arg(long, value_name = "PATH", requires = "model")]
    vae: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// What the generator's linear maps are computed in.
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE")]
    dtype: Compute,
    /// Pictures drawn at once.
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = within(1..=MOST_PICTURES))]
    batch_size: usize,
    /// Runs measured, after one to warm up where that is short; the median is printed.
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = within(1_usize..=1_000_000))]
    repeats: usize,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// The generators with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arch {
    /// TokenBridge-B with KL-16.
    TokenbridgeB,
    /// TokenBridge-L with KL-16.
    TokenbridgeL,
    /// TokenBridge-H with KL-16.
    TokenbridgeH,
}

/// What is measured.
struct Subject {
    name: String,
    generator: GenAr,
    vae: Box<dyn ImageTokenizer>,
    /// Sides of a picture's latents.
    latents: [usize; 2],
    sampling: SampleConfig,
    device: Device,
}

/// Seconds and arithmetic of one part.
#[derive(Debug, Clone, Copy, Serialize)]
struct Part {
    part: &'static str,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    gflop: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    device: String,
    threads: usize,
    dtype: Compute,
    batch_size: usize,
    repeats: usize,
    sampling: SampleConfig,
    seconds: f64,
    images_per_second: f64,
    parts: Vec<Part>,
    matmul_peak_gflops: f64,
    gflops: f64,
    share_of_peak: f64,
    peak_memory_mib: Option<u64>,
}

impl Generate {
    /// Measures and prints.
    ///
    /// # Errors
    /// A model that cannot be read, a setting out of range, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        let peak = matmul_peak(device.burn());
        let mut subject = self.subject(&device, global)?;
        subject.generator = device.in_precision(subject.generator, self.dtype.into())?;
        let config = self.sampling.over(&subject.sampling)?;
        let requests: Vec<_> = (0..self.batch_size as u64)
            .map(|seed| ImageRequest {
                class: Some(0),
                seed,
            })
            .collect();
        let mut runs = Vec::new();
        let warm = subject.run(&requests, &config, global.quiet)?;
        // A long first run is as good as any later one: what it warms up takes milliseconds.
        let first_counts = total(&warm) > 20.0;
        runs.extend(first_counts.then_some(warm));
        while runs.len() < self.repeats {
            runs.push(subject.run(&requests, &config, global.quiet)?);
        }
        runs.sort_by(|a, b| total(a).total_cmp(&total(b)));
        let parts = runs.swap_remove(runs.len() / 2);
        let seconds = total(&parts);
        let counted: f64 = parts.iter().filter_map(|part| part.gflop).sum();
        let over: f64 = parts
            .iter()
            .filter(|part| part.gflop.is_some())
            .map(|part| part.seconds)
            .sum();
        let gflops = counted / over;
        let report = Report {
            model: subject.name,
            device: global.device.to_string(),
            threads: rayon::current_num_threads(),
            dtype: self.dtype,
            batch_size: self.batch_size,
            repeats: self.repeats,
            sampling: config,
            seconds,
            images_per_second: self.batch_size as f64 / seconds,
            parts,
            matmul_peak_gflops: peak,
            gflops,
            share_of_peak: gflops / peak,
            peak_memory_mib: memory::peak(),
        };
        match self.json {
            true => output::report("tessera.bench.generate/v1", &report),
            false => report.print(),
        }
    }

    fn subject(&self, device: &Device, global: &Global) -> Result<Subject> {
        let Some(arch) = self.arch else {
            let mut source = Source::of(self.model.as_deref());
            if let Some(vae) = &self.vae {
                source = source.vae(vae);
            }
            let opened = loading(global.quiet, |progress| {
                Model::open(source.on_progress(progress), device)
            })?;
            let Model::Ar(model) = opened else {
                bail!(
                    "{}: only autoregressive models are measured part by part",
                    opened.name()
                );
            };
            return Ok(Subject {
                name: model.card.name,
                latents: model.generator.config().grid,
                generator: model.generator,
                vae: model.vae,
                sampling: model.card.sampling,
                device: device.clone(),
            });
        };
        let config = match arch {
            Arch::TokenbridgeB => GenArConfig::tokenbridge_b(),
            Arch::TokenbridgeL => GenArConfig::tokenbridge_l(),
            Arch::TokenbridgeH => GenArConfig::tokenbridge_h(),
        };
        let quantizer = Quantizer::new(QuantizerConfig::tokenbridge())?;
        Ok(Subject {
            name: arch
                .to_possible_value()
                .map_or_else(String::new, |value| value.get_name().into()),
            latents: config.grid,
            generator: burn::module::Module::materialize(config.init(
                quantizer.values(),
                0,
                device.burn(),
            )),
            vae: Box::new(burn::module::Module::materialize(
                KlVaeConfig::kl16().init(0, device.burn())?,
            )),
            sampling: SampleConfig {
                cfg_scale: 3.1,
                ..SampleConfig::default()
            },
            device: device.clone(),
        })
    }
}

fn total(parts: &[Part]) -> f64 {
    parts.iter().map(|part| part.seconds).sum()
}

impl Subject {
    /// Draws the pictures once.
    fn run(
        &self,
        requests: &[ImageRequest],
        config: &SampleConfig,
        quiet: bool,
    ) -> Result<Vec<Part>> {
        let mut progress = Progress::new("bench", "steps", config.steps as u64, quiet);
        let mut spent = StageBreakdown::<Duration>::default();
        let indices = self.generator.generate(requests, config, &mut |step| {
            spent += step.spent;
            progress.set(step.step as u64, "");
            interrupt::flow()
        })?;
        let [height, width] = self.latents;
        let shape = [indices.dim().0, self.vae.latent_channels(), height, width];
        let latents: Tensor<4> = streams::MEASUREMENT
            .of(0, 0)
            .normal_tensor(shape, self.device.burn());
        let started = Instant::now();
        std::hint::black_box(host_values(self.vae.decode(latents)));
        let decoded = started.elapsed();
        progress.finish();
        let flops = self.generator.config().flops(requests, config);
        let part = |part, time: Duration, flops: Option<f64>| Part {
            part,
            seconds: time.as_secs_f64(),
            gflop: flops.map(|flops| flops / 1e9),
        };
        Ok(vec![
            part("encoder", spent.encoder, Some(flops.encoder)),
            part("decoder", spent.decoder, Some(flops.decoder)),
            part("head", spent.head, Some(flops.head)),
            part("VAE", decoded, None),
        ])
    }
}

impl Report {
    fn print(&self) -> Result<()> {
        let Self {
            sampling, seconds, ..
        } = self;
        output::text(format!(
            "{} on {} with {} threads in {:?}: {} at once, {} steps, guidance {}",
            self.model,
            self.device,
            self.threads,
            self.dtype,
            self.batch_size,
            sampling.steps,
            sampling.cfg_scale
        ))?;
        for Part {
            part,
            seconds: spent,
            gflop,
        } in &self.parts
        {
            let rate = gflop.map_or(String::new(), |gflop| {
                let rate = gflop / spent;
                let share = 100.0 * rate / self.matmul_peak_gflops;
                format!("{gflop:>10.0} GFLOP {rate:>6.0} GFLOP/s {share:>4.0} % of the peak")
            });
            let share = 100.0 * spent / seconds;
            output::text(format!("  {part:<8} {spent:>9.3} s {share:>4.0} % {rate}"))?;
        }
        output::text(format!(
            "  {:<8} {seconds:>9.3} s, {:.3} images/s",
            "all", self.images_per_second
        ))?;
        output::text(format!(
            "generator: {:.0} GFLOP/s, {:.0} % of the matrix product's best, {:.0} GFLOP/s",
            self.gflops,
            100.0 * self.share_of_peak,
            self.matmul_peak_gflops
        ))?;
        if let Some(memory) = self.peak_memory_mib {
            output::text(format!("peak memory: {memory} MiB"))?;
        }
        Ok(())
    }
}
