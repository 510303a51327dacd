//! How pictures are drawn, as flags.

use crate::args::{share, spelled, within};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use tessera::{CfgSchedule, Model, Sampling};

/// How pictures are drawn; the model's own settings unless given.
#[derive(Debug, Clone, Default, Args)]
pub struct SamplingArgs {
    /// Steps, as many as positions at most; as the model has it unless given.
    #[arg(long, visible_alias = "num-iter", alias = "num_iter", value_name = "N")]
    #[arg(value_parser = within(1_usize..=1_000_000))]
    pub steps: Option<usize>,
    /// Guidance scale, of which 1 is none; as the model has it unless given.
    #[arg(
        long,
        visible_alias = "cfg",
        alias = "guidance-scale",
        value_name = "X"
    )]
    #[arg(value_parser = within(0.0_f32..=1000.0))]
    pub cfg_scale: Option<f32>,
    /// How guidance grows over the steps; as the model has it unless given.
    #[arg(long, alias = "cfg_schedule", value_enum, value_name = "NAME")]
    pub cfg_schedule: Option<Schedule>,
    /// Logits are divided by it, and 0 is greedy; as the model has it unless given.
    #[arg(long, value_name = "X")]
    #[arg(value_parser = within(0.0_f32..))]
    pub temperature: Option<f32>,
    /// Keep the N likeliest levels, where 0 keeps all; as the model has it unless given.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = within(0_usize..=65_536))]
    pub top_k: Option<usize>,
    /// Keep the fewest likeliest levels whose probabilities reach X; as the model has it unless given.
    #[arg(long, value_name = "X")]
    #[arg(value_parser = within(share()))]
    pub top_p: Option<f32>,
}

spelled!(
    /// Schedules of guidance, as on the command line.
    pub enum Schedule for CfgSchedule {
        /// From 1 to the scale.
        Linear,
        /// The scale at every step.
        Constant,
    }
);

impl SamplingArgs {
    /// The first option given that only means something where tokens are drawn from logits.
    fn of_logits(&self) -> Option<&'static str> {
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

    /// `defaults` with these in place of its own.
    ///
    /// # Errors
    /// When a setting is out of range, or one that the model does not have.
    pub fn of_model(&self, model: &Model, defaults: &Sampling) -> Result<Sampling> {
        if let (Model::Dit(_), Some(option)) = (model, self.of_logits()) {
            bail!(
                "{option}: a setting of autoregressive models; this one is a diffusion transformer"
            );
        }
        self.over(defaults)
    }

    /// The same for an autoregressive model, which has all of them.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn over(&self, defaults: &Sampling) -> Result<Sampling> {
        let config = Sampling {
            steps: self.steps.unwrap_or(defaults.steps),
            cfg_scale: self.cfg_scale.unwrap_or(defaults.cfg_scale),
            cfg_schedule: self
                .cfg_schedule
                .map_or(defaults.cfg_schedule, CfgSchedule::from),
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
        };
        config.validate().map_err(tessera::Error::from)?;
        Ok(config)
    }
}
