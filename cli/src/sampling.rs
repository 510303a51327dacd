//! Drawing pictures: requests in batches, each picture from its own seed.

use crate::bundle::Bundle;
use crate::progress::Progress;
use crate::{interrupt, ranks};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use ndarray::Array3;
use std::ops::ControlFlow;
use tessera_gen_ar::{CfgSchedule, ImageRequest, SampleConfig};
use tessera_tokenizer::Pixels;

/// How pictures are drawn; the model's own settings unless given.
#[derive(Debug, Clone, Default, Args)]
pub struct SamplingArgs {
    /// Steps; as many as positions at most.
    #[arg(long, visible_alias = "num-iter", alias = "num_iter", value_name = "N")]
    pub steps: Option<usize>,
    /// Guidance scale; 1 is none.
    #[arg(
        long,
        visible_alias = "cfg",
        alias = "guidance-scale",
        value_name = "X"
    )]
    pub cfg_scale: Option<f32>,
    /// How guidance grows over the steps.
    #[arg(long, alias = "cfg_schedule", value_enum, value_name = "NAME")]
    pub cfg_schedule: Option<Schedule>,
    /// Logits are divided by it; 0 is greedy.
    #[arg(long, value_name = "X")]
    pub temperature: Option<f32>,
    /// Keep the N likeliest levels; 0 keeps all.
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// Keep the fewest likeliest levels whose probabilities reach X.
    #[arg(long, value_name = "X")]
    pub top_p: Option<f32>,
}

/// Schedules of guidance, as on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Schedule {
    /// From 1 to the scale.
    Linear,
    /// The scale at every step.
    Constant,
}

impl From<Schedule> for CfgSchedule {
    fn from(schedule: Schedule) -> Self {
        match schedule {
            Schedule::Linear => Self::Linear,
            Schedule::Constant => Self::Constant,
        }
    }
}

impl SamplingArgs {
    /// The first option given that only means something where tokens are drawn from logits.
    pub fn of_logits(&self) -> Option<&'static str> {
        let given = [
            ("--cfg-schedule", self.cfg_schedule.is_some()),
            ("--temperature", self.temperature.is_some()),
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
        ];
        given
            .into_iter()
            .find(|option| option.1)
            .map(|option| option.0)
    }

    /// The model's settings with these in place of its own.
    ///
    /// # Errors
    /// When one is out of range.
    pub fn over(&self, defaults: &SampleConfig) -> Result<SampleConfig> {
        let config = SampleConfig {
            steps: self.steps.unwrap_or(defaults.steps),
            cfg_scale: self.cfg_scale.unwrap_or(defaults.cfg_scale),
            cfg_schedule: self
                .cfg_schedule
                .map_or(defaults.cfg_schedule, CfgSchedule::from),
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
        };
        config.validate()?;
        Ok(config)
    }
}

/// Draws all requests, `batch_size` at a time, and hands every finished batch to `finished` with the number of its
/// first picture.
///
/// # Errors
/// A value that is not finite, Ctrl-C, or what `finished` gives.
pub fn draw(
    bundle: &Bundle,
    requests: &[ImageRequest],
    config: &SampleConfig,
    batch_size: usize,
    quiet: bool,
    finished: impl FnMut(usize, Vec<Pixels>) -> Result<()>,
) -> Result<()> {
    let generate = |batch: &[ImageRequest], done: &mut StepDone<'_>| {
        let generator = &bundle.generator;
        let indices = generator.generate(batch, config, &mut |step| done(step.step, step.steps));
        Ok(indices?)
    };
    let decode = |indices: Array3<u16>| bundle.decode(indices.view());
    in_batches(requests, batch_size, quiet, generate, decode, finished)
}

/// Hears which step of how many is done; `Break` cancels.
pub type StepDone<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Draws requests of any model in batches: `generate` makes of a batch, on all ranks, what `decode` makes pictures of on the first.
///
/// # Errors
/// What the functions give, Ctrl-C.
pub fn in_batches<R, T>(
    requests: &[R],
    batch_size: usize,
    quiet: bool,
    generate: impl Fn(&[R], &mut StepDone<'_>) -> Result<T>,
    decode: impl Fn(T) -> Result<Vec<Pixels>>,
    mut finished: impl FnMut(usize, Vec<Pixels>) -> Result<()>,
) -> Result<()> {
    anyhow::ensure!(batch_size > 0, "--batch-size: found 0, expected 1 or more");
    let mut progress = Progress::new("generate", "images", requests.len() as u64, quiet);
    for (index, batch) in requests.chunks(batch_size).enumerate() {
        let first = index * batch_size;
        let generated = generate(batch, &mut |step, steps| {
            let done = first + batch.len() * step / steps;
            progress.set(done as u64, format!("step {step}/{steps}"));
            interrupt::flow()
        });
        let generated =
            generated.with_context(|| format!("after {first} of {} images", requests.len()))?;
        if ranks::first() {
            finished(first, decode(generated)?)?;
        }
    }
    progress.finish();
    Ok(())
}
