//! Passes simulated on ever more ranks, beside Ring Attention.

use super::heading;
use crate::cost::network::Network;
use crate::cost::plan::Plan;
use crate::cost::schedule::Setting;
use crate::cost::simulate::{Simulation, Spread, simulate};
use crate::cost::volume::Direction;
use crate::error::{Error, Result};
use crate::methods::method::Method;
use crate::units::{mib, time};
use rayon::prelude::*;
use serde::Serialize;
use std::fmt;

/// Watches runs that are simulated on several threads.
pub trait Watch: Sync {
    /// Whether no further run should begin.
    fn stops(&self) -> bool;

    /// A run of that setting is done.
    fn on_run(&self, setting: &Setting);
}

/// Both Ring Attentions, and Attention2D on the grid that [`Plan`] chooses, on ever more ranks. Its `Display` is a
/// table.
#[derive(Debug, Serialize)]
pub struct SweepReport<'a> {
    /// On the most ranks.
    pub setting: Setting,
    /// The machines.
    pub network: &'a Network,
    /// What is simulated.
    pub passes: &'a [Direction],
    /// The fewest ranks first.
    pub points: Vec<Point>,
}

/// One method on so many ranks.
#[derive(Debug, Serialize)]
pub struct Point {
    /// How many.
    pub ranks: usize,
    /// What the method is called.
    pub name: String,
    /// The method.
    #[serde(flatten)]
    pub method: Method,
    /// Seconds of all passes.
    pub seconds: f64,
    /// Inside kernels.
    pub computing: Spread,
    /// Without computation.
    pub waiting: Spread,
    /// By the rank that receives most.
    pub bytes: u64,
    /// By all ranks.
    pub messages: u64,
    /// How many times faster than plain Ring Attention on as many ranks.
    pub speed_up: f64,
}

impl<'a> SweepReport<'a> {
    /// Simulates settings, the fewest ranks first.
    ///
    /// # Errors
    /// Heads that those of keys do not divide, no setting, or [`Error::Stopped`].
    pub fn new(
        settings: impl Iterator<Item = Setting>,
        network: &'a Network,
        passes: &'a [Direction],
        watch: &dyn Watch,
    ) -> Result<Self> {
        let mut runs = Vec::new();
        for setting in settings {
            let plan = Plan::new(&setting, network, passes)?;
            let rings = [false, true].map(|zigzag| Method::Ring { zigzag });
            let planned = plan.attention2d().map(|chosen| chosen.method);
            let methods = rings.into_iter().chain(planned);
            runs.extend(methods.map(|method| (setting, method)));
        }
        let Some(&(setting, _)) = runs.last() else {
            return Err(Error::config("settings", "one or more", 0));
        };
        Ok(Self {
            setting,
            network,
            passes,
            points: play(&runs, network, passes, watch)?,
        })
    }
}

/// The longest runs begin first, so that the last to end is a short one.
fn play(
    runs: &[(Setting, Method)],
    network: &Network,
    passes: &[Direction],
    watch: &dyn Watch,
) -> Result<Vec<Point>> {
    let play = |&(setting, method): &(Setting, Method)| -> Result<Point> {
        if watch.stops() {
            return Err(Error::Stopped);
        }
        let mut point = Point::new(&setting, method);
        for &pass in passes {
            point.add(&simulate(&setting, network, method, pass)?);
        }
        watch.on_run(&setting);
        Ok(point)
    };
    let points: Result<Vec<_>> = runs.par_iter().rev().with_max_len(1).map(play).collect();
    let mut points = points?;
    points.reverse();
    let mut ring = 1.0;
    for point in &mut points {
        if (point.method == Method::Ring { zigzag: false }) {
            ring = point.seconds;
        }
        point.speed_up = ring / point.seconds;
    }
    Ok(points)
}

impl Point {
    fn new(setting: &Setting, method: Method) -> Self {
        Self {
            ranks: setting.ranks,
            name: method.to_string(),
            method,
            seconds: 0.0,
            computing: Spread::default(),
            waiting: Spread::default(),
            bytes: 0,
            messages: 0,
            speed_up: 1.0,
        }
    }

    fn add(&mut self, pass: &Simulation) {
        self.seconds += pass.seconds;
        for (sum, part) in [
            (&mut self.computing, pass.computing),
            (&mut self.waiting, pass.waiting),
        ] {
            sum.mean_s += part.mean_s;
            sum.max_s += part.max_s;
        }
        self.bytes += pass.received.iter().max().copied().unwrap_or(0);
        self.messages += pass.messages;
    }
}

impl fmt::Display for SweepReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        heading(f, &self.setting, self.passes, self.network)?;
        writeln!(
            f,
            "\n{:>6} {:<26} {:>9} {:>9} {:>9} {:>9} {:>12} {:>7}",
            "ranks", "method", "time", "computing", "waiting", "at most", "received", "x ring"
        )?;
        for point in &self.points {
            writeln!(
                f,
                "{:>6} {:<26} {:>9} {:>9} {:>9} {:>9} {:>12} {:>7.2}",
                point.ranks,
                point.name,
                time(point.seconds),
                time(point.computing.mean_s),
                time(point.waiting.mean_s),
                time(point.waiting.max_s),
                mib(point.bytes),
                point.speed_up
            )?;
        }
        Ok(())
    }
}
