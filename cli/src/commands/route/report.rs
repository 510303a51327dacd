//! The report of the routes: as JSON, as a table, and as pictures.

use crate::output;
use anyhow::{Result, ensure};
use std::fmt::Write;
use std::path::Path;
use tessera::pictures::Pixels;
use tessera::routing::{Class, Measures, NOISE_TIME, Report, Routing, Subject, Time, TokenMaps};
use tessera_plots::heat::{self, Row};
use tessera_plots::{self as plots, Line, Look};

/// Pictures in the sheet of heat maps at most.
const SHOWN: usize = 8;
/// Rows of the table of times.
const TIME_ROWS: usize = 10;
/// Experts in a line of the table of loads.
const LOADS: usize = 16;

/// What is counted, and the pictures that are shown of it.
pub(super) struct Shown {
    pub(super) routing: Routing,
    /// Evenly spread among all pictures.
    chosen: Vec<usize>,
    pictures: Vec<Pixels>,
}

impl Shown {
    /// Nothing counted yet of so many pictures.
    pub(super) fn new(routing: Routing, pictures: usize) -> Self {
        let shown = pictures.min(SHOWN);
        Self {
            routing,
            chosen: (0..shown).map(|i| i * pictures / shown).collect(),
            pictures: Vec::new(),
        }
    }

    /// The next pictures, with maps for those that are shown.
    pub(super) fn mapped(&self, subjects: &[Subject]) -> Vec<Subject> {
        let mut subjects = subjects.to_vec();
        for (subject, index) in subjects.iter_mut().zip(self.routing.pictures()..) {
            if self.chosen.contains(&index) {
                subject.maps = TokenMaps::Counted;
            }
        }
        subjects
    }

    /// Keeps what is shown of finished pictures, from `first` on.
    pub(super) fn show(&mut self, first: usize, pictures: Vec<Pixels>) {
        let indexed = (first..).zip(pictures);
        let shown = indexed.filter(|(index, _)| self.chosen.contains(index));
        self.pictures.extend(shown.map(|(_, picture)| picture));
    }
}

/// The figures for people.
pub(super) fn table(report: &Report) -> Result<String> {
    let mut text = String::new();
    let out = &mut text;
    let (experts, k, times) = (report.experts, report.k, report.times.len());
    let rule = serde_json::to_value(report.rule)?;
    writeln!(
        out,
        "{}: {experts} experts in each of {} layers, {k} to a token on average (rule {})\n\
        {} pictures of {} tokens at {times} times",
        report.model,
        report.layers.len(),
        rule.as_str().unwrap_or_default(),
        report.pictures.len(),
        report.tokens_per_picture,
    )?;
    writeln!(
        out,
        "\n{:>5} {:>8} {:>8} {:>8} {:>10} {:>10}",
        "layer", "experts", "none", "MaxVio", "pairs used", "threshold"
    )?;
    let measures = |measures: &Measures| {
        format!(
            "{:>8.3} {:>7.2}% {:>8.3} {:>9.1}%",
            measures.mean_active,
            100.0 * measures.without,
            measures.max_vio,
            100.0 * measures.combination_usage
        )
    };
    for layer in &report.layers {
        let threshold = layer.threshold.map_or("-".into(), |t| format!("{t:.4}"));
        let figures = measures(&layer.measures);
        writeln!(out, "{:>5} {figures} {threshold:>10}", layer.layer)?;
    }
    writeln!(out, "{:>5} {}", "mean", measures(&report.mean))?;
    writeln!(
        out,
        "\nload of each expert, % ({:.1} if even)",
        100.0 / experts as f64
    )?;
    for layer in &report.layers {
        for (line, loads) in layer.load.chunks(LOADS).enumerate() {
            let head = match line {
                0 => layer.layer.to_string(),
                _ => String::new(),
            };
            let loads: String = loads
                .iter()
                .map(|x| format!(" {:5.1}", 100.0 * x))
                .collect();
            writeln!(out, "{head:>5}{loads}")?;
        }
    }
    time_rows(report, out)?;
    if report.classes.len() > 1 {
        let name = |class: &Class| class.name.chars().count();
        let width = report.classes.iter().map(name).max().unwrap_or(0).max(5);
        writeln!(
            out,
            "\n{:width$} {:>8} {:>8}",
            "class", "pictures", "experts"
        )?;
        for class in &report.classes {
            writeln!(
                out,
                "{:width$} {:>8} {:>8.3}",
                class.name, class.pictures, class.mean_active
            )?;
        }
    }
    Ok(text)
}

/// The times in ten ranges, or each if there are no more.
fn time_rows(report: &Report, out: &mut String) -> Result<()> {
    let few = report.times.len() <= TIME_ROWS;
    writeln!(out, "\nexperts by time (0 is the picture, 1000 noise)")?;
    let heads: String = report
        .layers
        .iter()
        .map(|layer| format!(" {:>6}", layer.layer))
        .collect();
    writeln!(out, "{:>9} {:>6} layer{heads}", "time", "mean")?;
    let row = |time: &Time| match few {
        true => 0,
        false => ((time.time / NOISE_TIME * TIME_ROWS as f32) as usize).min(TIME_ROWS - 1),
    };
    let of_row = |a: &Time, b: &Time| !few && row(a) == row(b);
    for times in report.times.chunk_by(of_row) {
        let width = NOISE_TIME as usize / TIME_ROWS;
        let head = match few {
            true => format!("{:.1}", times[0].time),
            false => format!(
                "{}-{}",
                row(&times[0]) * width,
                (row(&times[0]) + 1) * width
            ),
        };
        let mean =
            |of: &dyn Fn(&Time) -> f64| times.iter().map(of).sum::<f64>() / times.len() as f64;
        let layers: String = (0..report.layers.len())
            .map(|layer| format!(" {:6.3}", mean(&|time| time.layers[layer])))
            .collect();
        writeln!(
            out,
            "{head:>9} {:6.3}      {layers}",
            mean(&|time| time.mean_active)
        )?;
    }
    Ok(())
}

/// Leaves the pictures in a folder.
pub(super) fn draw(folder: &Path, report: &Report, shown: &Shown) -> Result<()> {
    let loads: Vec<Vec<f64>> = report
        .layers
        .iter()
        .map(|layer| layer.load.iter().map(|load| 100.0 * load).collect())
        .collect();
    plots::cells(
        &folder.join("load.svg"),
        &format!(
            "Load of each expert, % ({:.1} if even)",
            100.0 / report.experts as f64
        ),
        ["expert", "layer"],
        &loads,
    )?;
    plots::lines(
        &folder.join("active-by-time.svg"),
        "Experts that a token has, by time",
        ["time (0: picture, 1000: noise)", "experts of a token, mean"],
        0.0..f64::from(NOISE_TIME),
        &by_time(report),
    )?;
    let sheet = sheet(report, shown)?;
    output::picture(&folder.join("heatmap.png"), &sheet, &[])
}

/// A line for what was asked, each layer, and their mean.
fn by_time(report: &Report) -> Vec<Line> {
    let line = |name: String, look, of: &dyn Fn(&Time) -> f64| Line {
        name,
        look,
        points: report
            .times
            .iter()
            .map(|time| (f64::from(time.time), of(time)))
            .collect(),
    };
    let asked = Line {
        name: format!("asked: {}", report.k),
        look: Look::Reference,
        points: [0.0, f64::from(NOISE_TIME)].map(|x| (x, report.k)).into(),
    };
    let last = (report.layers.len() as f64 - 1.0).max(1.0);
    let layers = (0..report.layers.len()).map(|layer| {
        let look = Look::Of(layer as f64 / last);
        line(format!("layer {}", layer + 1), look, &|time| {
            time.layers[layer]
        })
    });
    let mean = line("mean".into(), Look::Bold, &|time| time.mean_active);
    [asked].into_iter().chain(layers).chain([mean]).collect()
}

/// Some pictures with the experts of their tokens: over all times, and in each part of the time that there was.
fn sheet(report: &Report, shown: &Shown) -> Result<Pixels> {
    // From noise on, as pictures come to be.
    let parts = shown.routing.time_parts().into_iter().rev();
    let parts: Vec<_> = parts.collect();
    let bounds = parts.iter().map(|part| {
        let [first, last] = part.bounds();
        format!("time {first}-{last}")
    });
    let titles: Vec<_> = ["picture".to_owned(), "all times".to_owned()]
        .into_iter()
        .chain(bounds)
        .collect();
    let chosen = shown.chosen.iter().zip(&shown.pictures);
    let rows = chosen.map(|(&index, picture)| {
        let columns = std::iter::once(None).chain(parts.iter().copied().map(Some));
        Row {
            picture: picture.clone(),
            caption: report.pictures[index].name.clone(),
            maps: columns
                .map(|part| shown.routing.token_map(index, part))
                .collect(),
        }
    });
    let rows: Vec<_> = rows.collect();
    ensure!(!rows.is_empty(), "no picture to show");
    Ok(heat::sheet(
        &titles,
        &rows,
        "mean experts of a token in a layer (time 0: picture, 1000: noise)",
    )?)
}
