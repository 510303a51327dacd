//! `tessera attn plan`: what every method and every grid would cost.

use super::setting::{SettingArgs, heading};
use crate::args::{MOST_TOKENS, within};
use crate::output;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use tessera::attention2d::units::{mib, time};
use tessera::attention2d::{Direction, Method, Network, Prediction, Setting, predict};

/// Choose a method and a grid for so many ranks.
///
/// Times are those of a model: a message takes its latency and its bytes, a kernel its call and its arithmetic, and
/// every round as long as for the slowest rank. Volumes are exact.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera attn plan --ranks 64 --tokens 131072 --heads 32 --kv-heads 8 --causal\n  \
    tessera attn plan --ranks 16 --tokens 32768 --network a100,node=8 --forward --json")]
pub struct Plan {
    /// Ranks that divide the attention between them.
    #[arg(long, value_name = "N", value_parser = within(1_usize..=65_536))]
    ranks: usize,
    /// Tokens of a sequence.
    #[arg(long, value_name = "N", value_parser = within(1..=MOST_TOKENS))]
    tokens: usize,
    #[command(flatten)]
    setting: SettingArgs,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    setting: Setting,
    network: &'a Network,
    passes: &'a [Direction],
    /// Fastest first.
    methods: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    #[serde(flatten)]
    prediction: Prediction,
    /// How many times faster than plain Ring Attention.
    speed_up: f64,
}

impl Plan {
    /// Predicts and prints.
    ///
    /// # Errors
    /// Heads that those of keys do not divide.
    pub fn run(self) -> Result<()> {
        let (network, passes) = (&self.setting.network("h100")?, self.setting.passes());
        let setting = self.setting.setting(self.ranks, self.tokens);
        let plan = tessera::attention2d::Plan::new(&setting, network, passes)?;
        let ring = predict(&setting, network, Method::Ring { zigzag: false }, passes)?;
        let row = |prediction: Prediction| Row {
            name: prediction.method.to_string(),
            speed_up: ring.seconds / prediction.seconds,
            prediction,
        };
        let report = Report {
            setting,
            network,
            passes,
            methods: plan.predictions.into_iter().map(row).collect(),
        };
        match self.json {
            true => output::report("tessera.attn.plan/v1", &report),
            false => output::text(report.table()?.trim_end()),
        }
    }
}

impl Report<'_> {
    fn table(&self) -> Result<String, std::fmt::Error> {
        let mut text = heading(&self.setting, self.passes, self.network);
        if let Some(best) = self.methods.first() {
            let ranks = self.setting.ranks;
            writeln!(
                text,
                "{ranks} ranks, fastest: {}, {} a layer\n",
                best.name,
                time(best.prediction.seconds)
            )?;
        }
        writeln!(
            text,
            "{:<28} {:>9} {:>9} {:>13} {:>9} {:>9}",
            "method", "time", "computing", "received", "messages", "x ring"
        )?;
        for Row {
            name,
            prediction,
            speed_up,
        } in &self.methods
        {
            writeln!(
                text,
                "{name:<28} {:>9} {:>9} {:>13} {:>9} {speed_up:>9.2}",
                time(prediction.seconds),
                time(prediction.computing_s),
                mib(prediction.bytes),
                prediction.messages
            )?;
        }
        Ok(text)
    }
}
