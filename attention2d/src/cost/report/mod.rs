//! Figures for people: predictions and simulations as rows, which serialize, and as tables.

mod figure;
mod plan;
mod sweep;

pub use figure::FigureReport;
pub use plan::PlanReport;
pub use sweep::{Point, SweepReport, Watch};

use crate::cost::network::Network;
use crate::cost::schedule::Setting;
use crate::cost::volume::Direction;
use std::fmt;

/// The lines above a table.
fn heading(
    f: &mut fmt::Formatter<'_>,
    setting: &Setting,
    passes: &[Direction],
    network: &Network,
) -> fmt::Result {
    let Setting {
        shape, wire_dtype, ..
    } = setting;
    writeln!(
        f,
        "One layer, {}{}: {} x {} tokens, {} heads of {}, {} of keys and values, {wire_dtype}\n{network}",
        match passes.len() {
            1 => "forward",
            _ => "forward and backward",
        },
        if setting.causal { ", causal" } else { "" },
        shape.batch,
        shape.tokens,
        shape.heads,
        shape.head_dim,
        shape.kv_heads,
    )
}
