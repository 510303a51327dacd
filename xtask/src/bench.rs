//! `cargo xtask bench --peer`: `tessera bench ops` and plain PyTorch in alternation, and the ratios of their times.

use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use xshell::{Shell, cmd};

/// Run the benches of the workspace; with --peer, compare the operations with PyTorch.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench --peer\n  cargo xtask bench --peer attention \
        kl16 --rounds 7"
)]
pub struct Bench {
    /// Run `tessera bench ops` and benches/peer/peer.py in alternation and print the ratios of their times.
    #[arg(long)]
    peer: bool,
    /// Names of operations or parts of them [default: all but the steps of whole models].
    #[arg(value_name = "NAME", requires = "peer")]
    names: Vec<String>,
    /// Turns of each program.
    #[arg(long, default_value_t = 5, value_name = "N", requires = "peer")]
    rounds: usize,
    /// Seconds per operation and turn.
    #[arg(long, default_value_t = 1.0, value_name = "S", requires = "peer")]
    seconds: f64,
    /// Threads of both programs [default: the number of cores].
    #[arg(short, long, value_name = "N", requires = "peer")]
    threads: Option<usize>,
    /// The Python that has PyTorch.
    #[arg(
        long,
        default_value = "python3",
        value_name = "PROGRAM",
        requires = "peer"
    )]
    python: String,
}

/// The message if PyTorch is missing.
const INSTALL: &str = "PyTorch is not installed for this Python; `python3 -m pip install torch --index-url \
    https://download.pytorch.org/whl/cpu` installs it without CUDA, `python3 -m pip install torch` with it";

/// A program that is measured.
#[derive(Debug, Clone, Copy)]
enum Side {
    Tessera,
    PyTorch,
}

/// Names in the order of measurement, and the milliseconds of each, one value per turn.
#[derive(Default)]
struct Times {
    order: Vec<String>,
    ours: BTreeMap<String, Vec<f64>>,
    theirs: BTreeMap<String, Vec<f64>>,
}

impl Bench {
    /// Measures and prints.
    ///
    /// # Errors
    /// If PyTorch is missing or a program fails.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let _root = sh.push_dir(workspace::root());
        if !self.peer {
            let cargo = workspace::cargo();
            return Ok(cmd!(sh, "{cargo} bench --workspace").run()?);
        }
        ensure!(self.rounds > 0, "--rounds: found 0, expected 1 or more");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (python, threads) = (&self.python, self.threads.unwrap_or(cores).to_string());
        let version = cmd!(sh, "{python} -c 'import torch; print(torch.__version__)'").quiet();
        let version = version.ignore_stderr().read().context(INSTALL)?;
        eprintln!("building tessera");
        let program = workspace::build_tessera(sh)?;
        let (names, seconds) = (&self.names, self.seconds.to_string());
        let peer = Path::new("benches").join("peer").join("peer.py");
        let mut times = Times::default();
        for round in 1..=self.rounds {
            eprintln!("turn {round} of {}", self.rounds);
            let ours = cmd!(
                sh,
                "{program} -t {threads} bench ops {names...} --seconds {seconds} --json"
            );
            times.add(&ours.quiet().read()?, Side::Tessera)?;
            let theirs = cmd!(
                sh,
                "{python} {peer} {names...} --threads {threads} --seconds {seconds}"
            );
            times.add(&theirs.quiet().read()?, Side::PyTorch)?;
        }
        print!("{}", times.table(&version, &threads));
        Ok(())
    }
}

impl Times {
    /// Adds the output of a program in one turn.
    fn add(&mut self, lines: &str, side: Side) -> Result<()> {
        for line in lines.lines() {
            let found: Value =
                serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
            let (Some(name), Some(ms)) = (found["case"].as_str(), found["ms"].as_f64()) else {
                bail!("no `case` and `ms` in {line}");
            };
            if !self.order.iter().any(|known| known == name) {
                self.order.push(name.into());
            }
            let times = match side {
                Side::Tessera => &mut self.ours,
                Side::PyTorch => &mut self.theirs,
            };
            times.entry(name.into()).or_default().push(ms);
        }
        Ok(())
    }

    /// A Markdown table: medians over the turns of times and of the turns' ratios.
    fn table(&self, version: &str, threads: &str) -> String {
        let mut table = format!(
            "| {threads} threads | Tessera, ms | PyTorch {version}, ms | ratio | of the turns \
                |\n|---|---|---|---|---|\n"
        );
        for name in &self.order {
            let (Some(ours), Some(theirs)) = (self.ours.get(name), self.theirs.get(name)) else {
                continue;
            };
            let mut ratios: Vec<_> = ours
                .iter()
                .zip(theirs)
                .map(|(ours, theirs)| ours / theirs)
                .collect();
            ratios.sort_by(f64::total_cmp);
            let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
            let _ = writeln!(
                table,
                "| {name} | {} | {} | **{:.2}** | {least:.2} to {most:.2} |",
                three_digits(median(ours)),
                three_digits(median(theirs)),
                median(&ratios)
            );
        }
        table
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Three significant digits.
fn three_digits(ms: f64) -> String {
    let digits = (2.0 - ms.abs().log10().floor()).clamp(0.0, 3.0) as usize;
    format!("{ms:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_and_the_ratios_of_each_turn() {
        let mut times = Times::default();
        for (ours, theirs) in [(1.0, 2.0), (3.0, 4.0), (200.0, 100.0)] {
            times
                .add(
                    &format!("{{\"case\": \"conv\", \"ms\": {ours}}}"),
                    Side::Tessera,
                )
                .expect("a line");
            times
                .add(
                    &format!("{{\"case\": \"conv\", \"ms\": {theirs}}}"),
                    Side::PyTorch,
                )
                .expect("a line");
        }
        let table = times.table("2", "4");
        let last = table.lines().last();
        assert_eq!(
            last,
            Some("| conv | 3.00 | 4.00 | **0.75** | 0.50 to 2.00 |")
        );
        assert!(times.add("no json", Side::Tessera).is_err());
        assert!(times.add("{\"case\": \"conv\"}", Side::Tessera).is_err());
    }

    #[test]
    fn three_digits_count_whatever_the_size() {
        assert_eq!(
            [0.1234, 1.2345, 12.345, 1234.5].map(three_digits),
            ["0.123", "1.23", "12.3", "1234"]
        );
    }
}
