//! `tessera attn plan`: what every method and every grid would cost.

use super::setting::SettingArgs;
use crate::args::{MOST_TOKENS, within};
use crate::output;
use anyhow::Result;
use clap::Args;
use tessera::attention2d::PlanReport;

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

impl Plan {
    /// Predicts and prints.
    ///
    /// # Errors
    /// Heads that those of keys do not divide.
    pub fn run(self) -> Result<()> {
        let (network, passes) = (&self.setting.network("h100")?, self.setting.passes());
        let setting = self.setting.setting(self.ranks, self.tokens);
        let report = PlanReport::new(setting, network, passes)?;
        match self.json {
            true => output::report("tessera.attn.plan/v1", &report),
            false => output::text(report.to_string().trim_end()),
        }
    }
}
