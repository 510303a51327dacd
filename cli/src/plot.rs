//! Charts as SVG.

use anyhow::{Result, anyhow, bail};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::io::Write;
use std::path::Path;

/// Width and height of a chart in px.
const SIZE: (u32, u32) = (900, 480);
/// The colour of the bars.
const COLOR: RGBColor = RGBColor(0, 90, 160);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A chart with one bar to a label, from zero.
///
/// # Errors
/// When the name does not end in `.svg`, a value is not finite, or the file cannot be written.
pub fn bars(
    path: &Path,
    title: &str,
    labels: &[String],
    values: &[f64],
    y_label: &str,
) -> Result<()> {
    let top = upper(values)?;
    svg(path, |area| {
        let count = labels.len().max(1);
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(-0.5..count as f64 - 0.5, 0.0..top)?;
        let name = |x: &f64| match (x.fract() == 0.0, labels.get(*x as usize)) {
            (true, Some(label)) => label.clone(),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(count + 2)
            .x_label_formatter(&name)
            .y_desc(y_label)
            .draw()?;
        let bar = |(i, &value): (usize, &f64)| {
            let x = i as f64;
            Rectangle::new([(x - 0.35, 0.0), (x + 0.35, value)], COLOR.filled())
        };
        chart.draw_series(values.iter().enumerate().map(bar))?;
        Ok(())
    })
}

/// Draws in memory, then writes the file whole.
fn svg(
    path: &Path,
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<()> {
    if path
        .extension()
        .is_none_or(|ending| !ending.eq_ignore_ascii_case("svg"))
    {
        bail!(
            "{}: charts are written as SVG; expected a name that ends in .svg",
            path.display()
        );
    }
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let drawn = area
            .fill(&WHITE)
            .map_err(Into::into)
            .and_then(|()| draw(&area));
        drawn
            .and_then(|()| area.present().map_err(Into::into))
            .map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
    }
    Ok(tessera_train::write_atomically(path, |file| {
        file.write_all(text.as_bytes())
    })?)
}

/// The upper end of an axis that begins at zero.
fn upper(values: &[f64]) -> Result<f64> {
    if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
        bail!("a chart of a value that is not finite ({bad})");
    }
    let most = values.iter().copied().fold(0.0, f64::max);
    Ok(if most > 0.0 { 1.08 * most } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_holds_its_labels_and_is_refused_under_another_ending() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("chart.svg");
        bars(
            &file,
            "Title",
            &["zero".into(), "one".into()],
            &[1.0, 2.5],
            "bits",
        )?;
        let text = std::fs::read_to_string(&file)?;
        assert!(
            text.starts_with("<svg") && text.contains("one") && text.contains("Title"),
            "{text}"
        );
        assert!(bars(&folder.path().join("chart.png"), "Title", &[], &[], "bits").is_err());
        assert!(bars(&file, "Title", &["nan".into()], &[f64::NAN], "bits").is_err());
        Ok(())
    }
}
