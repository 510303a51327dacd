//! How pictures are drawn, as flags.

use crate::args::{share, spelled, within};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use tessera::gen_ar::{Cache, Decoding, EasyThreshold, LazySchedule, Order};
use tessera::{CfgSchedule, Model, Sampling, SamplingPreset};

/// How pictures are drawn; the model's own settings unless given.
#[derive(Debug, Clone, Default, Args)]
pub struct SamplingArgs {
    /// A named choice of steps, order and cache, which --steps, --order and --cache override; none unless given.
    #[arg(long, value_enum, value_name = "NAME")]
    pub preset: Option<PresetName>,
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
    /// The order of the positions; as the model has it unless given.
    #[arg(long, value_enum, value_name = "NAME")]
    pub order: Option<OrderName>,
    /// What steps reuse of earlier ones: faster, and other pictures; as the model has it unless given.
    #[arg(long, value_enum, value_name = "NAME")]
    pub cache: Option<CacheName>,
    /// Steps before N, and step N, reuse nothing; LazyMAR's 5 of 64 unless given.
    #[arg(long, value_name = "N", requires = "cache")]
    #[arg(value_parser = within(0_usize..=1_000_000))]
    pub cache_start: Option<usize>,
    /// From then on every Nth step reuses nothing; LazyMAR's 9 of 64 unless given.
    #[arg(long, value_name = "N", requires = "cache")]
    #[arg(value_parser = within(1_usize..=1_000_000))]
    pub cache_refresh: Option<usize>,
    /// Reuse predictions until they have changed by X in all; 0.2 unless given.
    #[arg(long, value_name = "X", requires = "cache")]
    #[arg(value_parser = within(0.0_f32..=1000.0))]
    pub cache_threshold: Option<f32>,
    /// How the head draws a token's dimensions, which changes no token on a CPU; the faster way unless given.
    #[arg(long, value_enum, value_name = "NAME")]
    pub head: Option<HeadName>,
}

spelled!(
    /// Trades of time for quality, as on the command line.
    pub enum PresetName for SamplingPreset {
        /// Half the steps, one per four positions at most, in stages; steps between full ones reuse features.
        Fast,
        /// Half the steps, in stages.
        Balanced,
        /// The model's steps, positions in random order, nothing reused.
        Exact,
    }
);
spelled!(
    /// Orders of positions, as on the command line.
    pub enum OrderName for Order {
        /// At random.
        Random,
        /// Every fourth position, then those between them, then every other one, many at once.
        Staged,
        /// Spread evenly at every step.
        Halton,
    }
);
spelled!(
    /// Ways of drawing the dimensions of a token, as on the command line.
    pub enum HeadName for Decoding {
        /// One after the other.
        Sequential,
        /// All from a guess, again until it is right.
        Jacobi,
    }
);

/// Caches, as on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheName {
    /// Nothing: exact.
    None,
    /// Keys, values and guidance of an autoregressive model (LazyMAR).
    Lazy,
    /// Predictions of a diffusion transformer (EasyCache).
    Easy,
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
            ("--preset", self.preset.is_some()),
            ("--cfg-schedule", self.cfg_schedule.is_some()),
            ("--temperature", self.temperature.is_some()),
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--order", self.order.is_some()),
            ("--head", self.head.is_some()),
            ("--cache lazy", self.cache == Some(CacheName::Lazy)),
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
        match model {
            Model::Ar(model) => self.over(defaults, model.generator.config().seq()),
            Model::Dit(_) => {
                let config = self.merged(defaults, usize::MAX)?;
                // What caches it has is checked when it draws.
                let checked = Sampling {
                    cache: None,
                    ..config.clone()
                };
                checked.validate().map_err(tessera::Error::from)?;
                Ok(config)
            }
        }
    }

    /// The same for an autoregressive model of so many positions, which has all of them.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn over(&self, defaults: &Sampling, seq: usize) -> Result<Sampling> {
        let config = match self.preset {
            Some(preset) => self.merged(&defaults.clone().preset(preset.into(), seq), seq)?,
            None => self.merged(defaults, seq)?,
        };
        config.validate().map_err(tessera::Error::from)?;
        Ok(config)
    }

    /// Of `seq` positions at most so many steps are drawn.
    fn merged(&self, defaults: &Sampling, seq: usize) -> Result<Sampling> {
        let steps = self.steps.unwrap_or(defaults.steps);
        Ok(Sampling {
            steps,
            cfg_scale: self.cfg_scale.unwrap_or(defaults.cfg_scale),
            cfg_schedule: self
                .cfg_schedule
                .map_or(defaults.cfg_schedule, CfgSchedule::from),
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            order: self.order.map_or(defaults.order, Order::from),
            cache: self.cache_of(steps.min(seq), defaults.cache)?,
            head: self.head.map(Decoding::from).or(defaults.head),
            // With another of its settings it is no longer one.
            preset: defaults
                .preset
                .filter(|_| self.steps.is_none() && self.order.is_none() && self.cache.is_none()),
        })
    }

    /// What is reused over so many steps.
    fn cache_of(&self, steps: usize, default: Option<Cache>) -> Result<Option<Cache>> {
        let of_lazy = self.cache_start.or(self.cache_refresh).is_some();
        Ok(match self.cache {
            Some(CacheName::None | CacheName::Easy) if of_lazy => {
                bail!("--cache-start, --cache-refresh: settings of --cache lazy")
            }
            Some(CacheName::None | CacheName::Lazy) if self.cache_threshold.is_some() => {
                bail!("--cache-threshold: a setting of --cache easy")
            }
            // A preset's schedule is of its own steps.
            None if self.preset.is_some() && self.steps.is_some() => {
                default.map(|_| Cache::Lazy(LazySchedule::of_steps(steps)))
            }
            None => default,
            Some(CacheName::None) => None,
            Some(CacheName::Lazy) => {
                let LazySchedule { start, refresh } = LazySchedule::of_steps(steps);
                Some(Cache::Lazy(LazySchedule {
                    start: self.cache_start.unwrap_or(start),
                    refresh: self.cache_refresh.unwrap_or(refresh),
                }))
            }
            Some(CacheName::Easy) => Some(Cache::Easy(match self.cache_threshold {
                Some(threshold) => EasyThreshold { threshold },
                None => EasyThreshold::default(),
            })),
        })
    }
}
