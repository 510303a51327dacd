//! Whole pictures of an autoregressive model, by part: encoder, decoder and head of the generator, and the tokenizer's
//! decoder.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Serialize;
use std::fmt::{self, Display};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use tessera::backend::{host_values, streams};
use tessera::gen_ar::{GenAr, GenArConfig, ImageRequest, SampleConfig, StageBreakdown};
use tessera::quantize::{Quantizer, QuantizerConfig};
use tessera::tokenizers::{ImageTokenizer, KlVaeConfig};
use tessera::{ArModel, ComputePrecision, Device, Result};

/// The model that is measured.
pub struct Subject {
    /// Its name.
    pub name: String,
    /// How it draws, unless told otherwise.
    pub sampling: SampleConfig,
    generator: GenAr,
    vae: Box<dyn ImageTokenizer>,
    /// Sides of a picture's latents.
    latents: [usize; 2],
    device: Device,
}

/// Seconds and arithmetic of one part.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Part {
    /// Its name.
    pub part: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// Its arithmetic, in 10⁹ operations, where matrix products are what counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gflop: Option<f64>,
}

/// What is measured.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// The model's name.
    pub model: String,
    /// The device's name.
    pub device: String,
    /// CPU threads.
    pub threads: usize,
    /// What linear maps are computed in.
    #[serde(serialize_with = "as_shown")]
    pub dtype: ComputePrecision,
    /// Pictures drawn at once.
    pub batch_size: usize,
    /// Runs whose median counts.
    pub repeats: usize,
    /// How they are drawn.
    pub sampling: SampleConfig,
}

/// The figures of a run. Its `Display` is a table.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    setting: Setting,
    seconds: f64,
    images_per_second: f64,
    parts: Vec<Part>,
    matmul_peak_gflops: f64,
    gflops: f64,
    share_of_peak: f64,
    peak_memory_mib: Option<u64>,
}

fn as_shown<S: serde::Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// A run longer than this, in seconds, is as good as any later one: what it warms up takes milliseconds.
const LONG: f64 = 20.0;

fn total(parts: &[Part]) -> f64 {
    parts.iter().map(|part| part.seconds).sum()
}

/// The parts of the median of so many runs, after one to warm up where that is short.
///
/// # Errors
/// What `run` gives.
pub fn median_run<E>(
    repeats: usize,
    mut run: impl FnMut() -> Result<Vec<Part>, E>,
) -> Result<Vec<Part>, E> {
    let mut runs = Vec::new();
    let warm = run()?;
    let first_counts = total(&warm) > LONG;
    runs.extend(first_counts.then_some(warm));
    while runs.len() < repeats {
        runs.push(run()?);
    }
    runs.sort_by(|a, b| total(a).total_cmp(&total(b)));
    Ok(runs.swap_remove(runs.len() / 2))
}

impl Subject {
    /// Positions of a picture.
    pub fn seq(&self) -> usize {
        self.generator.config().seq()
    }

    /// A model as it is.
    pub fn of_model(model: ArModel, device: &Device) -> Self {
        Self {
            name: model.card.name,
            latents: model.generator.config().grid,
            generator: model.generator,
            vae: model.vae,
            sampling: model.card.sampling,
            device: device.clone(),
        }
    }

    /// A generator with random weights, which cost what trained ones cost, and KL-16.
    ///
    /// # Errors
    /// Sizes that make no model.
    pub fn of_config(name: &str, config: &GenArConfig, device: &Device) -> Result<Self> {
        let quantizer = Quantizer::new(QuantizerConfig::tokenbridge())?;
        let generator = config.init(&quantizer.values(), 0, device.burn());
        let vae = KlVaeConfig::kl16().init(0, device.burn())?;
        Ok(Self {
            name: name.into(),
            latents: config.grid,
            generator: Module::materialize(generator),
            vae: Box::new(Module::materialize(vae)),
            sampling: SampleConfig {
                cfg_scale: 3.1,
                ..SampleConfig::default()
            },
            device: device.clone(),
        })
    }

    /// The same, its linear maps computed in `dtype`.
    ///
    /// # Errors
    /// A type that the device does not compute in.
    pub fn in_precision(self, dtype: ComputePrecision) -> Result<Self> {
        let generator = self.device.in_precision(self.generator, dtype)?;
        Ok(Self { generator, ..self })
    }

    /// Draws so many pictures at once; `step` is told of every step, from 1.
    ///
    /// # Errors
    /// A value that is not finite, or `step` said to stop.
    pub fn run(
        &self,
        batch_size: usize,
        config: &SampleConfig,
        step: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Part>> {
        let request = |seed| ImageRequest {
            class: Some(0),
            seed,
        };
        let requests: Vec<_> = (0..batch_size as u64).map(request).collect();
        let mut spent = StageBreakdown::<Duration>::default();
        let mut flops = StageBreakdown::<f64>::default();
        let indices = self.generator.generate(&requests, config, &mut |at| {
            spent += at.spent;
            flops += at.flops;
            step(at.step)
        })?;
        let [height, width] = self.latents;
        let shape = [indices.dim().0, self.vae.latent_channels(), height, width];
        let latents: Tensor<4> = streams::MEASUREMENT
            .of(0, 0)
            .normal_tensor(shape, self.device.burn());
        let started = Instant::now();
        std::hint::black_box(host_values(self.vae.decode(latents)));
        let decoded = started.elapsed();
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
    /// The figures of a run's parts, beside the best rate of this machine's matrix product
    /// ([`matmul_peak`](crate::matmul_peak)) and the most memory that the process held.
    pub fn new(
        setting: Setting,
        parts: Vec<Part>,
        matmul_peak_gflops: f64,
        peak_memory_mib: Option<u64>,
    ) -> Self {
        let seconds = total(&parts);
        let counted: f64 = parts.iter().filter_map(|part| part.gflop).sum();
        let over: f64 = parts
            .iter()
            .filter(|part| part.gflop.is_some())
            .map(|part| part.seconds)
            .sum();
        let gflops = counted / over;
        Self {
            images_per_second: setting.batch_size as f64 / seconds,
            setting,
            seconds,
            parts,
            matmul_peak_gflops,
            gflops,
            share_of_peak: gflops / matmul_peak_gflops,
            peak_memory_mib,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            setting, seconds, ..
        } = self;
        writeln!(
            f,
            "{} on {} with {} threads in {:?}: {} at once, {} steps, guidance {}",
            setting.model,
            setting.device,
            setting.threads,
            setting.dtype,
            setting.batch_size,
            setting.sampling.steps,
            setting.sampling.cfg_scale
        )?;
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
            writeln!(f, "  {part:<8} {spent:>9.3} s {share:>4.0} % {rate}")?;
        }
        writeln!(
            f,
            "  {:<8} {seconds:>9.3} s, {:.3} images/s",
            "all", self.images_per_second
        )?;
        write!(
            f,
            "generator: {:.0} GFLOP/s, {:.0} % of the matrix product's best, {:.0} GFLOP/s",
            self.gflops,
            100.0 * self.share_of_peak,
            self.matmul_peak_gflops
        )?;
        match self.peak_memory_mib {
            Some(memory) => write!(f, "\npeak memory: {memory} MiB"),
            None => Ok(()),
        }
    }
}
