//! Curves of the training loss as SVG: the losses, and how far each is from the dense model's.

use super::results::Run;
use super::variants::VARIANTS;
use crate::workspace;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

/// Width and height in px.
const SIZE: (u32, u32) = (960, 900);
/// Points of a curve: each is the mean of as many logged steps.
const POINTS: usize = 24;
/// Points at the beginning that are left out: all models fall alike there, and far.
const FALL: usize = 3;

/// The curves of some runs.
pub struct Chart<'a> {
    /// The runs.
    pub runs: &'a [Run],
}

/// A variant's curve, the mean over its seeds.
struct Curve {
    label: &'static str,
    points: Vec<(f64, f64)>,
}

impl Chart<'_> {
    /// Draws, and writes the file whole.
    ///
    /// # Errors
    /// If there is nothing to draw, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        workspace::write(path, self.svg()?.as_bytes())
    }

    fn svg(&self) -> Result<String> {
        let curves = self.curves();
        let dense = curves.iter().find(|curve| curve.label == "dense");
        let beside: Vec<Curve> = match dense {
            Some(dense) => curves.iter().map(|curve| curve.minus(dense)).collect(),
            None => Vec::new(),
        };
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
            let [above, below] = match &area.split_evenly((2, 1))[..] {
                [above, below] => [above.clone(), below.clone()],
                _ => unreachable!("two rows were asked for"),
            };
            area.fill(&WHITE)
                .map_err(Into::into)
                .and_then(|()| panel(&above, "Training loss, mean over the seeds", &curves))
                .and_then(|()| panel(&below, "The same, less the dense model's", &beside))
                .and_then(|()| area.present().map_err(Into::into))
                .map_err(|error| anyhow!("cannot draw the curves: {error}"))?;
        }
        Ok(text)
    }

    fn curves(&self) -> Vec<Curve> {
        let of = |key: &str| -> Vec<Vec<(f64, f64)>> {
            let runs = self.runs.iter().filter(|run| run.variant == key);
            runs.map(|run| thinned(&run.curve)).collect()
        };
        VARIANTS
            .iter()
            .map(|variant| Curve {
                label: variant.label,
                points: mean(&of(variant.key)),
            })
            .filter(|curve| !curve.points.is_empty())
            .collect()
    }
}

impl Curve {
    fn minus(&self, other: &Self) -> Self {
        let pairs = self.points.iter().zip(&other.points);
        Self {
            label: self.label,
            points: pairs.map(|(a, b)| (a.0, a.1 - b.1)).collect(),
        }
    }
}

/// Means of neighbors, without the fall at the beginning.
fn thinned(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let chunk = curve.len().div_ceil(POINTS).max(1);
    let chunks = curve.chunks(chunk);
    let skipped = if chunks.len() > 2 * FALL { FALL } else { 0 };
    chunks
        .skip(skipped)
        .map(|chunk| {
            let count = chunk.len() as f64;
            let sum = chunk
                .iter()
                .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
            (sum.0 / count, sum.1 / count)
        })
        .collect()
}

/// The mean of curves, as far as all go.
fn mean(curves: &[Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    let length = curves.iter().map(Vec::len).min().unwrap_or(0);
    let at = |i: usize| {
        let sum: f64 = curves.iter().map(|curve| curve[i].1).sum();
        (curves[0][i].0, sum / curves.len() as f64)
    };
    (0..length).map(at).collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn panel(area: &Area<'_>, title: &str, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let range = |of: fn(&(f64, f64)) -> f64| {
        all().map(of).fold((f64::MAX, f64::MIN), |(low, high), x| {
            (low.min(x), high.max(x))
        })
    };
    if all().next().is_none() {
        return Ok(());
    }
    let ((left, right), (low, high)) = (range(|p| p.0), range(|p| p.1));
    let room = 0.05 * (high - low).max(1e-9);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(64)
        // The rest is the legend's.
        .build_cartesian_2d(left..right + 0.4 * (right - left), low - room..high + room)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("step")
        .draw()?;
    for curve in curves {
        let at = VARIANTS
            .iter()
            .position(|variant| variant.label == curve.label);
        let color = match at {
            Some(0) | None => BLACK.to_rgba(),
            Some(at) => Palette99::pick(at).to_rgba(),
        };
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), style))?
            .label(curve.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
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
    use crate::study::results::testing::run;
    use serde_json::json;

    #[test]
    fn a_chart_names_every_variant_it_has_a_run_of() {
        let figures = |loss: f64| json!({ "training_loss": loss });
        let runs = [
            run("dense", 0, figures(0.5)),
            run("dense", 1, figures(0.75)),
            run("race", 0, figures(0.25)),
        ];
        let svg = Chart { runs: &runs }.svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("Race, identity"));
        assert!(!svg.contains("softmax"));
        let curves = Chart { runs: &runs }.curves();
        let last = curves[0].points.last().unwrap().1;
        assert!(
            (last - 0.625 - (1.0 / 39.0 + 1.0 / 40.0) / 2.0).abs() < 1e-9,
            "{last}"
        );
    }
}
