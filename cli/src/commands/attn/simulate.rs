//! `tessera attn simulate`: passes played out message by message on ever more ranks.

use super::setting::SettingArgs;
use crate::args::{Global, MOST_TOKENS, within};
use crate::progress::Progress;
use crate::{interrupt, output};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tessera::attention2d::{FigureReport, Method, Setting, SweepReport, Watch};
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

/// A figure of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// Speed-up of Attention2D without overlap over Ring Attention, three sizes of GPT-3 on 16 and 64 A100s.
    A100,
}

impl Simulate {
    /// Simulates, prints and draws.
    ///
    /// # Errors
    /// Heads that those of keys do not divide, a file that cannot be written, Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        if let Some(Figure::A100) = self.figure {
            let network = self.setting.network("a100")?;
            let report = FigureReport::new(&network)?;
            return match self.json {
                true => output::report("tessera.attn.figure/v1", &report),
                false => output::text(report.to_string().trim_end()),
            };
        }
        if let Some(file) = &self.output {
            plots::require_svg(file)?;
            output::file(file, self.overwrite)?;
        }
        let (network, passes) = (&self.setting.network("h100")?, self.setting.passes());
        let steps = std::iter::successors(Some(4_u32), |ranks| ranks.checked_mul(4));
        let steps: Vec<_> = steps.take_while(|&ranks| ranks <= self.max_ranks).collect();
        let settings = steps
            .iter()
            .map(|&ranks| self.setting.setting(ranks as usize, self.tokens));
        // Two rings and a grid on each number of ranks.
        let watching = Watching::new(3 * steps.len() as u64, global.quiet);
        let report = SweepReport::new(settings, network, passes, &watching)?;
        watching.finish();
        if let Some(file) = &self.output {
            draw(&report, file)?;
        }
        match self.json {
            true => output::report("tessera.attn.simulate/v1", &report),
            false => output::text(report.to_string().trim_end()),
        }
    }
}

/// Shows how many runs are done.
struct Watching(Mutex<(Progress, u64)>);

impl Watching {
    fn new(runs: u64, quiet: bool) -> Self {
        Self(Mutex::new((
            Progress::new("simulating", "runs", runs, quiet),
            0,
        )))
    }

    fn finish(self) {
        if let Ok((progress, _)) = self.0.into_inner() {
            progress.finish();
        }
    }
}

impl Watch for Watching {
    fn stops(&self) -> bool {
        interrupt::requested()
    }

    fn on_run(&self, setting: &Setting) {
        if let Ok(mut progress) = self.0.lock() {
            progress.1 += 1;
            let done = progress.1;
            progress.0.set(done, format!("{} ranks", setting.ranks));
        }
    }
}

fn draw(report: &SweepReport<'_>, file: &Path) -> Result<()> {
    let line = |name: &str, look, of: fn(&Method) -> bool| Line {
        name: name.into(),
        look,
        points: report
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
        report.setting.shape.tokens, report.network.name
    );
    Ok(plots::powers(
        file,
        &title,
        ["ranks", "times as fast"],
        &lines,
    )?)
}
