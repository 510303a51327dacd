//! The report of the routes for people.

use super::{Class, Measures, NOISE_TIME, Report, Time};
use std::fmt;

/// Rows of the table of times.
const TIME_ROWS: usize = 10;
/// Experts in a line of the table of loads.
const LOADS: usize = 16;

/// A table of the layers, of the load of each expert, of times and of classes.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table(self, f)
    }
}

fn table(report: &Report, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (experts, k, times) = (report.experts, report.k, report.times.len());
    let rule = serde_json::to_value(report.rule).unwrap_or_default();
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
    Ok(())
}

/// The times in ten ranges, or each if there are no more.
fn time_rows(report: &Report, out: &mut fmt::Formatter<'_>) -> fmt::Result {
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
