//! The bars of the paper's figure on A100s, beside what the simulation says of them.

use crate::cost::network::Network;
use crate::cost::schedule::Setting;
use crate::cost::simulate::simulate;
use crate::cost::volume::Direction;
use crate::error::Result;
use crate::methods::grid::Grid;
use crate::methods::method::{Keys, Merge, Method};
use crate::methods::shape::Shape;
use crate::methods::wire::WireDtype;
use crate::units::time;
use rayon::prelude::*;
use serde::Serialize;
use std::fmt;

/// A GPT-3: name, layers, heads, elements of a head. The largest one's published width is no multiple of its heads.
struct Model(&'static str, usize, usize, usize);

const MODELS: [Model; 3] = [
    Model("760M", 24, 16, 96),
    Model("2.7B", 32, 32, 80),
    Model("13B", 40, 40, 128),
];

/// Ranks, and for each model the bars for 2^13 to 2^17 tokens, read off the figure to within 0.03.
const BARS: [(usize, [[f64; 5]; 3]); 2] = [
    (
        16,
        [
            [2.89, 3.17, 2.62, 2.44, 2.67],
            [2.98, 2.89, 2.94, 3.03, 2.56],
            [2.40, 2.83, 3.26, 2.83, 2.76],
        ],
    ),
    (
        64,
        [
            [4.85, 4.50, 4.85, 4.21, 3.86],
            [4.33, 4.11, 4.36, 4.50, 4.26],
            [4.00, 3.89, 5.00, 4.85, 4.40],
        ],
    ),
];

/// Of the 2.7B model, seconds of a step by Ring Attention and by Attention2D, read off the paper's other figure as
/// milliseconds.
const TIMES: [(usize, [[f64; 5]; 2]); 2] = [
    (
        16,
        [
            [0.371, 0.717, 1.430, 2.771, 5.705],
            [0.117, 0.239, 0.480, 0.910, 2.217],
        ],
    ),
    (
        64,
        [
            [0.420, 0.910, 1.500, 2.990, 6.544],
            [0.100, 0.230, 0.370, 0.661, 1.541],
        ],
    ),
];

/// The speed-up of Attention2D without overlap over Ring Attention: three sizes of GPT-3 on 16 and 64 A100s, as the
/// paper has it and as the simulation does. Its `Display` is a table in Markdown.
#[derive(Debug, Serialize)]
pub struct FigureReport<'a> {
    network: &'a Network,
    bars: Vec<Bar>,
    /// Of the bars' errors, without their signs.
    median_error: f64,
    worst_error: f64,
    /// Of the 2.7B model's times that the paper shows.
    median_time_error: f64,
    worst_time_error: f64,
}

#[derive(Debug, Serialize)]
struct Bar {
    model: &'static str,
    ranks: usize,
    tokens: usize,
    predicted: f64,
    paper: f64,
    /// `predicted / paper - 1`.
    error: f64,
    /// Predicted, of Ring Attention and of Attention2D.
    seconds: [f64; 2],
    /// The paper's, where it shows them.
    paper_seconds: Option<[f64; 2]>,
}

impl<'a> FigureReport<'a> {
    /// Simulates every bar on a network.
    ///
    /// # Errors
    /// None, as the figure's methods go with its ranks.
    pub fn new(network: &'a Network) -> Result<Self> {
        let mut wanted = Vec::new();
        for (ranks, models) in BARS {
            for (model, papers) in MODELS.iter().zip(models) {
                for (step, paper) in papers.into_iter().enumerate() {
                    wanted.push((model, ranks, step, paper));
                }
            }
        }
        let bars: Result<Vec<_>> = wanted
            .into_par_iter()
            .map(|(model, ranks, step, paper)| bar(network, model, ranks, step, paper))
            .collect();
        let bars = bars?;
        let [median_error, worst_error] = errors(bars.iter().map(|bar| bar.error));
        let times = bars
            .iter()
            .filter_map(|bar| Some((bar.seconds, bar.paper_seconds?)));
        let [median_time_error, worst_time_error] =
            errors(times.flat_map(|(ours, paper)| [0, 1].map(|i| ours[i] / paper[i] - 1.0)));
        Ok(Self {
            network,
            bars,
            median_error,
            worst_error,
            median_time_error,
            worst_time_error,
        })
    }
}

fn bar(
    network: &Network,
    &Model(model, layers, heads, head_dim): &Model,
    ranks: usize,
    step: usize,
    paper: f64,
) -> Result<Bar> {
    let tokens = 1 << (13 + step);
    let shape = Shape {
        batch: 1,
        tokens,
        heads,
        kv_heads: heads,
        head_dim,
    };
    let setting = Setting {
        shape,
        ranks,
        causal: true,
        wire_dtype: WireDtype::Bf16,
        partial_dtype: WireDtype::Bf16,
    };
    // Of a layer besides its scores: 12 M² weights, a multiplication and an addition with each for every token.
    let width = (heads * head_dim) as f64;
    let rest = 24.0 * width * width * (tokens / ranks) as f64 / network.flops_per_s;
    let seconds = |method| -> Result<f64> {
        let attention = simulate(&setting, network, method, Direction::Forward)?.seconds;
        Ok(layers as f64 * (attention + rest))
    };
    let side = ranks.isqrt();
    let seconds = [
        seconds(Method::Ring { zigzag: false })?,
        // As the paper has it: algorithm 1, outputs round the row.
        seconds(Method::Attention2D {
            grid: Grid::new(side, side)?,
            merge: Merge::Ring,
            keys: Keys::Transposed,
            overlap: false,
        })?,
    ];
    let shown = TIMES
        .iter()
        .find(|times| times.0 == ranks && model == "2.7B");
    let predicted = seconds[0] / seconds[1];
    Ok(Bar {
        model,
        ranks,
        tokens,
        predicted,
        paper,
        error: predicted / paper - 1.0,
        seconds,
        paper_seconds: shown.map(|(_, times)| [times[0][step], times[1][step]]),
    })
}

/// The median and the largest, without signs.
fn errors(errors: impl Iterator<Item = f64>) -> [f64; 2] {
    let mut sizes: Vec<_> = errors.map(f64::abs).collect();
    sizes.sort_by(f64::total_cmp);
    let middle = (sizes[(sizes.len() - 1) / 2] + sizes[sizes.len() / 2]) / 2.0;
    [middle, sizes[sizes.len() - 1]]
}

impl fmt::Display for FigureReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.network)?;
        f.write_str("| model | GPUs | tokens | predicted | paper | error | Ring | Attention2D | paper's Ring \
            | paper's Attention2D |\n")?;
        f.write_str("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")?;
        for bar in &self.bars {
            let [ring, square] = bar.seconds.map(time);
            let [paper_ring, paper_square] = match bar.paper_seconds {
                Some(seconds) => seconds.map(time),
                None => ["–", "–"].map(String::from),
            };
            writeln!(
                f,
                "| {} | {} | {} | {:.2} | {:.2} | {:+.1} % | {ring} | {square} | {paper_ring} | {paper_square} |",
                bar.model,
                bar.ranks,
                bar.tokens,
                bar.predicted,
                bar.paper,
                100.0 * bar.error
            )?;
        }
        writeln!(
            f,
            "\nSpeed-ups: median error {:.1} %, worst {:.1} %. \
            Times of the 2.7B model: median error {:.1} %, worst {:.1} %.",
            100.0 * self.median_error,
            100.0 * self.worst_error,
            100.0 * self.median_time_error,
            100.0 * self.worst_time_error
        )
    }
}
