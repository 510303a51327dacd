//! What every method and every grid would cost, as a table.

use super::heading;
use crate::cost::network::Network;
use crate::cost::plan::{Plan, Prediction, predict};
use crate::cost::schedule::Setting;
use crate::cost::volume::Direction;
use crate::error::Result;
use crate::methods::method::Method;
use crate::units::{mib, time};
use serde::Serialize;
use std::fmt;

/// A [`Plan`] beside plain Ring Attention. Its `Display` is a table.
#[derive(Debug, Serialize)]
pub struct PlanReport<'a> {
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

impl<'a> PlanReport<'a> {
    /// Predicts every method and every grid.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn new(setting: Setting, network: &'a Network, passes: &'a [Direction]) -> Result<Self> {
        let plan = Plan::new(&setting, network, passes)?;
        let ring = predict(&setting, network, Method::Ring { zigzag: false }, passes)?;
        let row = |prediction: Prediction| Row {
            name: prediction.method.to_string(),
            speed_up: ring.seconds / prediction.seconds,
            prediction,
        };
        Ok(Self {
            setting,
            network,
            passes,
            methods: plan.predictions.into_iter().map(row).collect(),
        })
    }
}

impl fmt::Display for PlanReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        heading(f, &self.setting, self.passes, self.network)?;
        if let Some(best) = self.methods.first() {
            let ranks = self.setting.ranks;
            writeln!(
                f,
                "{ranks} ranks, fastest: {}, {} a layer\n",
                best.name,
                time(best.prediction.seconds)
            )?;
        }
        writeln!(
            f,
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
                f,
                "{name:<28} {:>9} {:>9} {:>13} {:>9} {speed_up:>9.2}",
                time(prediction.seconds),
                time(prediction.computing_s),
                mib(prediction.bytes),
                prediction.messages
            )?;
        }
        Ok(())
    }
}
