//! The report of the routes as pictures.

use crate::output;
use anyhow::{Result, ensure};
use std::path::Path;
use tessera::pictures::Pixels;
use tessera::routing::{NOISE_TIME, Report, Shown, Time};
use tessera_plots::heat::{self, Row};
use tessera_plots::{self as plots, Line, Look};

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
    let rows = shown.pictures().map(|(index, picture)| {
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
