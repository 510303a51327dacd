//! Charts as SVG.

use crate::colors::{color, rgb};
use crate::error::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::io::Write;
use std::path::Path;
use tessera_files::{Existing, create_folder, write_atomically};

/// Width and height of a chart in px.
const SIZE: (u32, u32) = (900, 480);
/// The color of the bars.
const COLOR: RGBColor = RGBColor(0, 90, 160);
/// Where the legend beside a chart begins, in px from the left.
const LEGEND: i32 = 770;
/// A chart of cells has its numbers in them up to so many a side.
const NUMBERED: usize = 16;

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

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Look {
    /// One of many in an order, at a place in 0..=1.
    Of(f64),
    /// The one to see first.
    Bold,
    /// What the others are held against.
    Reference,
}

fn style(look: Look) -> ShapeStyle {
    match look {
        // The last quarter of the colors is too light for lines on white.
        Look::Of(place) => rgb(color(0.75 * place)).stroke_width(2),
        Look::Bold => RGBColor(200, 30, 30).stroke_width(4),
        Look::Reference => RGBColor(120, 120, 120).stroke_width(2),
    }
}

/// A line of a chart.
#[derive(Debug, Clone)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// In what color, how wide.
    pub look: Look,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// A chart of lines over `x`, values from zero, with a legend.
///
/// # Errors
/// As [`bars`].
pub fn lines(
    path: &Path,
    title: &str,
    [x_label, y_label]: [&str; 2],
    x: std::ops::Range<f64>,
    lines: &[Line],
) -> Result<()> {
    let points = lines.iter().flat_map(|line| &line.points);
    let top = upper(&points.map(|point| point.1).collect::<Vec<_>>())?;
    svg(path, |area| {
        let (left, right) = area.split_horizontally(LEGEND);
        let mut chart = ChartBuilder::on(&left)
            .caption(title, ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_label_formatter(&|x| x.to_string())
            .x_desc(x_label)
            .y_desc(y_label)
            .axis_desc_style(("sans-serif", 15))
            .draw()?;
        let height = ((SIZE.1 as i32 - 80) / lines.len().max(1) as i32).min(22);
        for (line, y) in lines.iter().zip((56..).step_by(height as usize)) {
            let style = style(line.look);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            right.draw(&PathElement::new([(0, y), (22, y)], style))?;
            let font = ("sans-serif", height.min(16)).into_text_style(&right);
            let text = font.pos(Pos::new(HPos::Left, VPos::Center));
            right.draw(&Text::new(line.name.clone(), (30, y), text))?;
        }
        Ok(())
    })
}

/// A chart of lines over `x`, both axes in powers of two, with a legend and a mark at every point. Values are above
/// zero.
///
/// # Errors
/// As [`bars`].
pub fn powers(
    path: &Path,
    title: &str,
    [x_label, y_label]: [&str; 2],
    lines: &[Line],
) -> Result<()> {
    let points = || lines.iter().flat_map(|line| &line.points);
    upper(&points().map(|point| point.1).collect::<Vec<_>>())?;
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        0.9 * low..1.1 * high
    };
    let x = ends(&mut points().map(|point| point.0));
    let y = ends(&mut points().map(|point| point.1));
    svg(path, |area| {
        let (left, right) = area.split_horizontally(LEGEND - 60);
        let mut chart = ChartBuilder::on(&left)
            .caption(title, ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x.log_scale().base(4.0), y.log_scale().base(2.0))?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_label_formatter(&|x| x.to_string())
            .y_label_formatter(&|y| y.to_string())
            .x_desc(x_label)
            .y_desc(y_label)
            .axis_desc_style(("sans-serif", 15))
            .draw()?;
        for (line, y) in lines.iter().zip((56..).step_by(24)) {
            let style = style(line.look);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            let dot = |&point: &(f64, f64)| Circle::new(point, 4, style.filled());
            chart.draw_series(line.points.iter().map(dot))?;
            right.draw(&PathElement::new([(0, y), (22, y)], style))?;
            let font = ("sans-serif", 14).into_text_style(&right);
            let text = font.pos(Pos::new(HPos::Left, VPos::Center));
            right.draw(&Text::new(line.name.clone(), (30, y), text))?;
        }
        Ok(())
    })
}

/// A chart of colored cells, the first row on top, and the scale of the colors, from zero.
///
/// # Errors
/// As [`bars`].
pub fn cells(
    path: &Path,
    title: &str,
    [x_label, y_label]: [&str; 2],
    rows: &[Vec<f64>],
) -> Result<()> {
    let top = upper(&rows.concat())?;
    let columns = rows.first().map_or(0, Vec::len);
    svg(path, |area| {
        let (left, right) = area.split_horizontally(LEGEND);
        let mut chart = ChartBuilder::on(&left)
            .caption(title, ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(
                0.5..columns.max(1) as f64 + 0.5,
                0.5..rows.len().max(1) as f64 + 0.5,
            )?;
        let whole = |number: f64| match number.fract() == 0.0 {
            true => number.to_string(),
            false => String::new(),
        };
        chart
            .configure_mesh()
            .disable_mesh()
            .x_labels((columns + 2).min(32))
            .y_labels((rows.len() + 2).min(32))
            .x_label_formatter(&|&x| whole(x))
            .y_label_formatter(&|&y| whole(rows.len() as f64 + 1.0 - y))
            .x_desc(x_label)
            .y_desc(y_label)
            .axis_desc_style(("sans-serif", 15))
            .draw()?;
        let centered = ("sans-serif", 15)
            .into_text_style(&left)
            .pos(Pos::new(HPos::Center, VPos::Center));
        for (row, y) in rows.iter().zip((1..=rows.len()).rev()) {
            for (&value, x) in row.iter().zip(1..) {
                let (x, y, place) = (f64::from(x), y as f64, value / top);
                let corners = [(x - 0.5, y - 0.5), (x + 0.5, y + 0.5)];
                let cell = Rectangle::new(corners, rgb(color(place)).filled());
                chart.draw_series([cell])?;
                if columns.max(rows.len()) <= NUMBERED {
                    let ink = if place > 0.6 { BLACK } else { WHITE };
                    let text = Text::new(format!("{value:.1}"), (x, y), centered.color(&ink));
                    chart.draw_series([text])?;
                }
            }
        }
        const STEPS: i32 = 100;
        for step in 0..STEPS {
            let filled = rgb(color(f64::from(step) / f64::from(STEPS))).filled();
            let y = 56 + 3 * (STEPS - step);
            right.draw(&Rectangle::new([(10, y - 3), (34, y)], filled))?;
        }
        for part in 0..=4 {
            let y = 56 + 3 * STEPS * (4 - part) / 4;
            let font = ("sans-serif", 14).into_text_style(&right);
            let text = font.pos(Pos::new(HPos::Left, VPos::Center));
            let value = format!("{:.1}", top * f64::from(part) / 4.0);
            right.draw(&Text::new(value, (40, y), text))?;
        }
        Ok(())
    })
}

/// Refuses a name that no chart can be written under: before long work, not after.
///
/// # Errors
/// When it does not end in `.svg`.
pub fn require_svg(path: &Path) -> Result<()> {
    match path.extension() {
        Some(ending) if ending.eq_ignore_ascii_case("svg") => Ok(()),
        _ => Err(Error::Ending { path: path.into() }),
    }
}

/// Draws in memory, then writes the file whole.
fn svg(
    path: &Path,
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<()> {
    require_svg(path)?;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let drawn = area
            .fill(&WHITE)
            .map_err(Into::into)
            .and_then(|()| draw(&area));
        drawn
            .and_then(|()| area.present().map_err(Into::into))
            .map_err(|error| Error::Draw {
                path: path.into(),
                cause: error.to_string(),
            })?;
    }
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    Ok(write_atomically(path, Existing::Replace, |file| {
        file.write_all(text.as_bytes())
    })?)
}

/// The upper end of an axis that begins at zero.
fn upper(values: &[f64]) -> Result<f64> {
    if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
        return Err(Error::NotFinite { value });
    }
    let most = values.iter().copied().fold(0.0, f64::max);
    Ok(if most > 0.0 { 1.08 * most } else { 1.0 })
}
