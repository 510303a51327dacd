//! `tessera bench generate`: whole pictures, by part.

use crate::args::{Compute, Global, MOST_PICTURES, ModelArgs, within};
use crate::progress::Progress;
use crate::sampling::SamplingArgs;
use crate::{interrupt, output};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use tessera::gen_ar::GenArConfig;
use tessera::{Device, Model, peak_memory_mib};
use tessera_bench::matmul_peak;
use tessera_bench::pictures::{Report, Setting, Subject, median_run};

/// Measure generating pictures, by part: encoder, decoder and head of the generator, and the tokenizer's decoder.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  tessera bench generate\n  \
    tessera bench generate --arch tokenbridge-l --steps 64 --cfg-scale 3.1 --batch-size 1")]
pub struct Generate {
    /// An architecture with random weights, which cost what trained ones cost; the built-in model unless given.
    #[arg(short, long, value_enum, value_name = "NAME", conflicts_with = "model")]
    arch: Option<Arch>,
    #[command(flatten)]
    model: ModelArgs,
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

impl Generate {
    /// Measures and prints.
    ///
    /// # Errors
    /// A model that cannot be read, a setting out of range, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        global.say_widened(&device, self.dtype);
        let peak = matmul_peak(device.burn());
        let subject = self
            .subject(&device, global)?
            .in_precision(self.dtype.into())?;
        let sampling = self.sampling.over(&subject.sampling, subject.seq())?;
        let parts = median_run(self.repeats, || -> tessera::Result<_> {
            let mut progress = Progress::new("bench", "steps", sampling.steps as u64, global.quiet);
            let parts = subject.run(self.batch_size, &sampling, &mut |step| {
                progress.set(step as u64, "");
                interrupt::flow()
            })?;
            progress.finish();
            Ok(parts)
        })?;
        let setting = Setting {
            model: subject.name,
            device: global.device.to_string(),
            threads: rayon::current_num_threads(),
            dtype: self.dtype.into(),
            batch_size: self.batch_size,
            repeats: self.repeats,
            sampling,
        };
        let report = Report::new(setting, parts, peak, peak_memory_mib());
        match self.json {
            true => output::report("tessera.bench.generate/v1", &report),
            false => output::text(report),
        }
    }

    fn subject(&self, device: &Device, global: &Global) -> Result<Subject> {
        if let Some(arch) = self.arch {
            let config = match arch {
                Arch::TokenbridgeB => GenArConfig::tokenbridge_b(),
                Arch::TokenbridgeL => GenArConfig::tokenbridge_l(),
                Arch::TokenbridgeH => GenArConfig::tokenbridge_h(),
            };
            let name = arch.to_possible_value();
            let name = name.as_ref().map_or("", |value| value.get_name());
            return Ok(Subject::of_config(name, &config, device)?);
        }
        match self.model.open(device, global.quiet)? {
            Model::Ar(model) => Ok(Subject::of_model(model, device)),
            opened => bail!(
                "{}: only autoregressive models are measured part by part",
                opened.name()
            ),
        }
    }
}
