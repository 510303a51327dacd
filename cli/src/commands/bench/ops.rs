//! `tessera bench ops`.

use crate::args::{Global, within};
use crate::interrupt;
use crate::output;
use anyhow::{Result, bail};
use burn::tensor::Device;
use clap::Args;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::ops::Bound;
use tessera_bench::Median;
use tessera_bench::operations::{Case, cases};

/// Measure the operations and blocks one by one, at the shapes of TokenBridge-L and KL-16.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  tessera bench ops\n  tessera bench ops attention conv --json")]
pub struct Ops {
    /// Names or parts of names [default: all but the steps of whole models, which take seconds each].
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Seconds to measure each for.
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    #[arg(value_parser = within((Bound::Excluded(0.0_f64), Bound::Included(3600.0))))]
    seconds: f64,
    /// Print one line of JSON per name.
    #[arg(long)]
    json: bool,
}

/// What a case comes to.
#[derive(Debug, Serialize)]
pub struct Line {
    case: &'static str,
    #[serde(flatten)]
    median: Median,
    #[serde(skip_serializing_if = "Option::is_none")]
    gflops: Option<f64>,
}

impl Line {
    /// Measures a case for about so many seconds.
    ///
    /// # Errors
    /// Ctrl-C.
    pub fn of(case: &Case, device: &Device, seconds: f64) -> Result<Self> {
        if interrupt::requested() {
            bail!("stopped");
        }
        let median = case.measure(device, seconds)?;
        Ok(Self {
            case: case.name,
            median,
            gflops: case.gflops(median),
        })
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rate = self
            .gflops
            .map_or(String::new(), |rate| format!("{rate:8.0} GFLOP/s"));
        write!(f, "{:<34} {:>10.3} ms {rate}", self.case, self.median.ms)
    }
}

impl Ops {
    /// Measures and prints each case as it is done.
    ///
    /// # Errors
    /// No such name, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.device.open()?;
        for case in cases(&self.names)? {
            let line = Line::of(case, &device, self.seconds)?;
            match self.json {
                true => output::text(serde_json::to_string(&line)?)?,
                false => output::text(&line)?,
            }
        }
        Ok(())
    }
}
