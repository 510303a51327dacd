//! `tessera attn simulate`: passes played out message by message on ever more ranks.

use super::figure::{self, Figure};
use super::setting::{SettingArgs, heading};
use crate::args::{Global, MOST_TOKENS, within};
use crate::progress::Progress;
use crate::{interrupt, output};
use anyhow::{Result, ensure};
use clap::Args;
use rayon::prelude::*;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tessera::attention2d::units::{mib, time};
use tessera::attention2d::{Direction, Method, Network, Plan, Setting, Spread, simulate};
use tessera_plots::{self as plots, Line, Look};

/// Play attention out on ever more ranks, message by message, and hold it against Ring Attention.
///
/// Every rank has a clock: a message begins when both ends are ready and takes its latency and its bytes, more where
/// ranks share the way into a node; a rank goes on when it has computed and has received. Attention2D is on the grid
/// that `attn plan` chooses.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera attn simulate --tokens 1048576 --causal -o speed-up.svg\n  \
    tessera attn simulate --max-ranks 1024 --heads 32 --kv-heads 8 --network h100-1 --json\n  \
    tessera attn simulate --figure a100")]
pub struct Simulate {
    /// The most ranks; 4, 16, 64 and so on up to it.
    #[arg(long, default_value_t = 65_536, value_name = "N", value_parser = within(4_u32..=65_536))]
    max_ranks: u32,
    /// Tokens of a sequence, whatever the ranks.
    #[arg(long, default_value_t = 1 << 20, value_name = "N", value_parser = within(1..=MOST_TOKENS))]
    tokens: usize,
    #[command(flatten)]
    setting: SettingArgs,
    /// Instead, the bars of a figure of the paper beside what the model says of them. The attention is the figure's,
    /// and the machines are a100 unless --network is given.
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "output")]
    figure: Option<Figure>,
    /// Draw the speed-ups over Ring Attention into this SVG file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write over a file that exists.
    #[arg(long, requires = "output")]
    overwrite: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    /// On the most ranks.
    setting: Setting,
    network: &'a Network,
    passes: &'a [Direction],
    points: Vec<Point>,
}

/// One method on so many ranks.
#[derive(Debug, Serialize)]
struct Point {
    ranks: usize,
    name: String,
    #[serde(flatten)]
    method: Method,
    seconds: f64,
    computing: Spread,
    waiting: Spread,
    /// By the rank that receives most.
    bytes: u64,
    /// By all ranks.
    messages: u64,
    /// How many times faster than plain Ring Attention on as many ranks.
    speed_up: f64,
}

impl Simulate {
    /// Simulates, prints and draws.
    ///
    /// # Errors
    /// Heads that those of keys do not divide, a file that cannot be written, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        if let Some(Figure::A100) = self.figure {
            return figure::run(&self.setting.network("a100")?, self.json);
        }
        if let Some(file) = &self.output {
            plots::require_svg(file)?;
            output::file(file, self.overwrite)?;
        }
        let (network, passes) = (&self.setting.network("h100")?, self.setting.passes());
        let steps = std::iter::successors(Some(4_u32), |ranks| ranks.checked_mul(4));
        let mut runs = Vec::new();
        for ranks in steps.take_while(|&ranks| ranks <= self.max_ranks) {
            let setting = self.setting.setting(ranks as usize, self.tokens);
            let plan = Plan::new(&setting, network, passes)?;
            let rings = [false, true].map(|zigzag| Method::Ring { zigzag });
            let planned = plan.attention2d().map(|chosen| chosen.method);
            runs.extend(
                rings
                    .into_iter()
                    .chain(planned)
                    .map(|method| (setting, method)),
            );
        }
        let points = play(&runs, network, passes, global.quiet)?;
        let report = Report {
            setting: runs[runs.len() - 1].0,
            network,
            passes,
            points,
        };
        if let Some(file) = &self.output {
            report.draw(file)?;
        }
        match self.json {
            true => output::report("tessera.attn.simulate/v1", &report),
            false => output::text(report.table()?.trim_end()),
        }
    }
}

/// The longest runs begin first, so that the last to end is a short one.
fn play(
    runs: &[(Setting, Method)],
    network: &Network,
    passes: &[Direction],
    quiet: bool,
) -> Result<Vec<Point>> {
    let progress = Progress::new("simulating", "runs", runs.len() as u64, quiet);
    let progress = Mutex::new((progress, 0));
    let play = |&(setting, method): &(Setting, Method)| -> Result<Point> {
        ensure!(!interrupt::requested(), "stopped");
        let mut point = Point::new(&setting, method);
        for &pass in passes {
            point.add(&simulate(&setting, network, method, pass)?);
        }
        if let Ok(mut progress) = progress.lock() {
            progress.1 += 1;
            let done = progress.1;
            progress.0.set(done, format!("{} ranks", setting.ranks));
        }
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
    if let Ok(progress) = progress.lock() {
        progress.0.finish();
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

    fn add(&mut self, pass: &tessera::attention2d::Simulation) {
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

impl Report<'_> {
    fn table(&self) -> Result<String, std::fmt::Error> {
        let mut text = heading(&self.setting, self.passes, self.network);
        writeln!(
            text,
            "\n{:>6} {:<26} {:>9} {:>9} {:>9} {:>9} {:>12} {:>7}",
            "ranks", "method", "time", "computing", "waiting", "at most", "received", "x ring"
        )?;
        for point in &self.points {
            writeln!(
                text,
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
        Ok(text)
    }

    fn draw(&self, file: &Path) -> Result<()> {
        let line = |name: &str, look, of: fn(&Method) -> bool| Line {
            name: name.into(),
            look,
            points: self
                .points
                .iter()
                .filter(|point| of(&point.method))
                .map(|point| (point.ranks as f64, point.speed_up))
                .collect(),
        };
        let lines = [
            line("Attention2D", Look::Bold, |method| {
                matches!(method, Method::Attention2D { .. })
            }),
            line("zigzag Ring", Look::Of(0.4), |method| {
                matches!(method, Method::Ring { zigzag: true })
            }),
            line("Ring Attention", Look::Reference, |method| {
                matches!(method, Method::Ring { zigzag: false })
            }),
        ];
        let title = format!(
            "Simulated speed-up over Ring Attention, {} tokens, {}",
            self.setting.shape.tokens, self.network.name
        );
        Ok(plots::powers(
            file,
            &title,
            ["ranks", "times as fast"],
            &lines,
        )?)
    }
}
