//! The report of a study of sampling: what agrees with the papers, the figures, and time against distance.

use super::settings::{Grid, Series, Setting, claims};
use crate::study::report::machine;
use crate::study::statistics::{Gain, Mean, Verdict};
use crate::workspace;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The figures of a run: a setting with a seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// The Fréchet distance.
    pub distance: f64,
    /// The share of pictures that the judge takes for the class they were asked for.
    pub agreement: f64,
}

/// What a picture takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Time {
    /// In all.
    pub seconds: f64,
    /// Operations of encoder and decoder, in 10⁹.
    pub gflop: f64,
}

/// What is reported.
pub struct Report<'a> {
    /// What the study was of: the model, the data, the pictures of a run.
    pub subject: &'a str,
    /// The settings, in order.
    pub settings: &'a [Setting],
    /// What they were made from.
    pub grid: &'a Grid,
    /// The model's folder.
    pub model: &'a Path,
    /// The time of each setting.
    pub times: &'a BTreeMap<String, Time>,
    /// The figures of each setting that is done, seed by seed.
    pub runs: &'a BTreeMap<String, Vec<Figures>>,
}

/// A setting's means over its seeds.
struct Row<'a> {
    setting: &'a Setting,
    runs: &'a [Figures],
    time: Time,
    distance: Mean,
    agreement: Mean,
}

impl<'a> Report<'a> {
    /// Writes `report.md` and `distance.svg` into a folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        workspace::write(&folder.join("distance.svg"), self.svg()?.as_bytes())?;
        workspace::write(&folder.join("report.md"), self.text().as_bytes())
    }

    fn rows(&self) -> Vec<Row<'a>> {
        let row = |setting: &'a Setting| -> Option<Row<'a>> {
            let runs = self.runs.get(&setting.name)?;
            let of = |figure: fn(&Figures) -> f64| {
                Mean::of(&runs.iter().map(figure).collect::<Vec<_>>())
            };
            Some(Row {
                setting,
                runs,
                time: *self.times.get(&setting.name)?,
                distance: of(|run| run.distance)?,
                agreement: of(|run| run.agreement)?,
            })
        };
        self.settings.iter().filter_map(row).collect()
    }

    fn text(&self) -> String {
        let rows = self.rows();
        let reference = rows
            .iter()
            .find(|row| row.setting.name == self.grid.reference());
        let front = front(&rows);
        let mut text = format!(
            "# What cheaper sampling costs\n\n{} {}.\n\n",
            self.subject,
            machine()
        );
        text += "## What agrees with the papers\n\n";
        for claim in claims(self.grid) {
            let (Some(better), Some(than)) =
                (self.runs.get(&claim.better), self.runs.get(&claim.than))
            else {
                continue;
            };
            if let Some(gain) = gain(better, than) {
                let said = match gain.verdict() {
                    Verdict::Agrees => "nearer",
                    Verdict::Disagrees => "farther",
                    Verdict::Undecided => "undecided",
                };
                let _ = writeln!(
                    text,
                    "- **{}**: {said}, the distance changes by {} ({} of {} seeds). Paper: {}.",
                    claim.text,
                    change(&gain),
                    gain.in_favor,
                    gain.seeds,
                    claim.paper
                );
            }
        }
        text += "\n## Figures\n\n![Seconds of a picture against distance](distance.svg)\n\n";
        text += "Settings in bold are the best: no other is faster and nearer. The change of the distance is that to \
            exact\ndrawing in the most steps, seed by seed, with its 95 % interval (Student's t).\n\n";
        text +=
            "| setting | s a picture | times as fast | GFLOP | distance | change | agreement |\n";
        text += "|---|---|---|---|---|---|---|\n";
        for row in &rows {
            let name = match front.contains(&row.setting.name.as_str()) {
                true => format!("**{}**", row.setting.name),
                false => row.setting.name.clone(),
            };
            let gain = reference.and_then(|reference| gain(row.runs, reference.runs));
            let change = match gain {
                Some(gain) if row.setting.name != self.grid.reference() => change(&gain),
                _ => String::new(),
            };
            let _ = writeln!(
                text,
                "| {name} | {:.3} | {:.2} | {:.1} | {:.2} ± {:.2} | {change} | {:.1} % |",
                row.time.seconds,
                reference.map_or(f64::NAN, |reference| reference.time.seconds
                    / row.time.seconds),
                row.time.gflop,
                row.distance.mean,
                row.distance.std,
                100.0 * row.agreement.mean,
            );
        }
        text += "\n## Commands\n\n```\n";
        for row in &rows {
            let _ = writeln!(
                text,
                "{}: tessera generate -m {} {}",
                row.setting.name,
                self.model.display(),
                row.setting.options
            );
        }
        text + "```\n"
    }

    fn svg(&self) -> Result<String> {
        let rows = self.rows();
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (960, 640)).into_drawing_area();
            area.fill(&WHITE)
                .map_err(Into::into)
                .and_then(|()| draw(&area, &rows))
                .and_then(|()| area.present().map_err(Into::into))
                .map_err(|error| anyhow!("cannot draw the distances: {error}"))?;
        }
        Ok(svg)
    }
}

/// By how much smaller distances are, seed by seed.
fn gain(better: &[Figures], than: &[Figures]) -> Option<Gain> {
    let pairs = better.iter().zip(than);
    let pairs: Vec<_> = pairs.map(|(a, b)| (a.distance, b.distance)).collect();
    Gain::of(&pairs)
}

/// By how much a distance changes, with its interval if there is one.
fn change(gain: &Gain) -> String {
    match gain.half.is_finite() {
        true => format!("{:+.2} ± {:.2}", -gain.mean, gain.half),
        false => format!("{:+.2}", -gain.mean),
    }
}

/// The names of settings such that no other is faster and nearer.
fn front<'a>(rows: &'a [Row<'_>]) -> Vec<&'a str> {
    let beaten = |row: &Row<'_>| {
        rows.iter().any(|other| {
            other.time.seconds < row.time.seconds && other.distance.mean < row.distance.mean
        })
    };
    let best = rows.iter().filter(|row| !beaten(row));
    best.map(|row| row.setting.name.as_str()).collect()
}

/// Of the series, dark enough for dots on white.
const COLORS: [RGBColor; Series::ALL.len()] = [
    RGBColor(200, 30, 50),
    RGBColor(60, 150, 60),
    RGBColor(190, 140, 0),
    RGBColor(30, 100, 190),
    RGBColor(230, 110, 20),
    RGBColor(140, 60, 160),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(area: &Area<'_>, rows: &[Row<'_>]) -> Result<(), Box<dyn std::error::Error>> {
    let range = |of: fn(&Row<'_>) -> f64| {
        rows.iter()
            .map(of)
            .fold((f64::MAX, f64::MIN), |(low, high), x| {
                (low.min(x), high.max(x))
            })
    };
    if rows.is_empty() {
        return Ok(());
    }
    let ((left, right), (low, high)) = (
        range(|row| row.time.seconds),
        range(|row| row.distance.mean),
    );
    let room = 0.06 * (high - low).max(1e-6);
    let front = front(rows);
    let mut chart = ChartBuilder::on(area)
        .caption(
            "Seconds of a picture, and its distance from real ones",
            ("sans-serif", 20),
        )
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(
            (0.9 * left..1.1 * right).log_scale(),
            low - room..high + room,
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|seconds| format!("{}", (1000.0 * seconds).round() / 1000.0))
        .x_desc("seconds of a picture")
        .y_desc("Fréchet distance")
        .draw()?;
    for (index, series) in Series::ALL.into_iter().enumerate() {
        let color = COLORS[index];
        let points: Vec<_> = rows.iter().filter(|row| row.setting.of == series).collect();
        let at = |row: &&Row<'_>| (row.time.seconds, row.distance.mean);
        chart
            .draw_series(
                points
                    .iter()
                    .map(|row| Circle::new(at(row), 4, color.filled())),
            )?
            .label(series.label())
            .legend(move |(x, y)| Circle::new((x + 9, y), 4, color.filled()));
        let best = points
            .iter()
            .filter(|row| front.contains(&row.setting.name.as_str()));
        chart.draw_series(best.map(|row| {
            EmptyElement::at(at(row))
                + Circle::new((0, 0), 8, BLACK.stroke_width(1))
                + Text::new(row.setting.name.clone(), (2, 12), ("sans-serif", 13))
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(TRANSPARENT)
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_agrees_and_marks_what_nothing_beats() {
        let grid = Grid::quick();
        let settings = grid.settings();
        let figures = |distances: [f64; 3]| -> Vec<Figures> {
            let run = |distance| Figures {
                distance,
                agreement: 0.9,
            };
            distances.map(run).into()
        };
        let time = |name: &str, seconds: f64| {
            let gflop = 10.0 * seconds;
            (name.to_owned(), Time { seconds, gflop })
        };
        let times = BTreeMap::from([
            time("exact-4", 4.0),
            time("staged-2", 2.0),
            time("exact-2", 2.1),
            time("lazy-4", 1.5),
        ]);
        let runs = BTreeMap::from([
            ("exact-4".to_owned(), figures([10.0, 11.0, 12.0])),
            ("staged-2".to_owned(), figures([9.0, 10.1, 11.0])),
            ("exact-2".to_owned(), figures([12.0, 13.0, 14.0])),
            ("lazy-4".to_owned(), figures([10.0, 12.0, 11.0])),
        ]);
        let report = Report {
            subject: "A model.",
            settings: &settings,
            grid: &grid,
            model: Path::new("model"),
            times: &times,
            runs: &runs,
        };
        let text = report.text();
        let said = "stages are better than random order at 2 steps**: nearer, the distance changes by -2.97";
        assert!(text.contains(said));
        assert!(text.contains("lazy steps cost nothing at 4 steps**: undecided"));
        assert!(text.contains("| **staged-2** | 2.000 | 2.00 | 20.0 | 10.03 ± 1.00 | -0.97 ± "));
        assert!(text.contains("| **lazy-4** |") && text.contains("| exact-4 |"));
        let svg = report.svg().unwrap();
        assert!(svg.contains("staged-2") && !svg.contains("exact-4<"));
    }
}
