//! What is said of the routes: as JSON, as a table, and as pictures.

use super::*;

/// What was routed.
#[derive(Debug, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub(super) enum Origin {
    Drawn(SampleConfig),
    Pictures { times: usize },
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    model: String,
    process: Process,
    experts: usize,
    /// Experts a token was to have on average.
    k: f64,
    rule: RoutingRule,
    source: Origin,
    tokens_per_picture: usize,
    layers: Vec<Layer>,
    /// Means over the layers.
    mean: Measures,
    /// From the picture to noise.
    times: Vec<Time>,
    classes: Vec<Class>,
    pictures: Vec<Picture>,
}

/// How evenly experts are used, and how many a token has.
#[derive(Debug, Clone, Copy, Serialize)]
struct Measures {
    mean_active: f64,
    /// Share of tokens without an expert.
    without: f64,
    max_vio: f64,
    combination_usage: f64,
}

#[derive(Debug, Serialize)]
struct Layer {
    /// From 1.
    layer: usize,
    #[serde(flatten)]
    measures: Measures,
    /// `null` where experts race at inference too.
    threshold: Option<f32>,
    /// Share of all pairs of token and expert that each expert has.
    load: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Time {
    time: f32,
    /// Over all layers.
    mean_active: f64,
    /// Of each layer.
    layers: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Class {
    class: usize,
    name: String,
    pictures: usize,
    mean_active: f64,
}

#[derive(Debug, Serialize)]
struct Picture {
    name: String,
    /// `null`: any.
    class: Option<usize>,
    seed: u64,
    mean_active: f64,
}

pub(super) fn report(
    info: &DitCard,
    process: Process,
    moe: &MoeConfig,
    thresholds: &[f32],
    source: Origin,
    routed: &Routed,
) -> Report {
    let measures = |usage: &Usage| Measures {
        mean_active: usage.mean_active(),
        without: usage.share_without(),
        max_vio: usage.max_vio(),
        combination_usage: usage.combination_usage(),
    };
    let share = |loads: Vec<u64>| {
        let all = (loads.iter().sum::<u64>() as f64).max(1.0);
        loads.into_iter().map(|load| load as f64 / all).collect()
    };
    let layers = routed.usage.iter().zip(1..).map(|(usage, layer)| Layer {
        layer,
        measures: measures(usage),
        threshold: thresholds.get(layer - 1).copied(),
        load: share(usage.loads()),
    });
    let layers: Vec<_> = layers.collect();
    let over_layers = |of: &dyn Fn(&Measures) -> f64| {
        layers.iter().map(|layer| of(&layer.measures)).sum::<f64>() / layers.len() as f64
    };
    let mean = Measures {
        mean_active: over_layers(&|measures| measures.mean_active),
        without: over_layers(&|measures| measures.without),
        max_vio: over_layers(&|measures| measures.max_vio),
        combination_usage: over_layers(&|measures| measures.combination_usage),
    };
    let times = routed.times.iter().zip(&routed.active);
    let mut times: Vec<_> = times
        .map(|(&time, active)| Time {
            time,
            mean_active: active
                .iter()
                .copied()
                .fold(Mean::default(), Mean::plus)
                .value(),
            layers: active.iter().map(|mean| mean.value()).collect(),
        })
        .collect();
    times.sort_by(|a, b| a.time.total_cmp(&b.time));
    let classes = info.class_names.iter().enumerate();
    let classes = classes.filter_map(|(class, name)| {
        let of_class = routed
            .pictures
            .iter()
            .filter(|one| one.class == Some(class));
        let pictures = of_class.clone().count();
        let active = of_class.map(|one| one.active);
        (pictures > 0).then(|| Class {
            class,
            name: name.clone(),
            pictures,
            mean_active: active.fold(Mean::default(), Mean::plus).value(),
        })
    });
    let pictures = routed.pictures.iter().map(|one| Picture {
        name: one.name.clone(),
        class: one.class,
        seed: one.seed,
        mean_active: one.active.value(),
    });
    Report {
        schema: "tessera.route/v1",
        model: info.name.clone(),
        process,
        experts: moe.experts,
        k: moe.k,
        rule: moe.rule,
        source,
        tokens_per_picture: routed.seq,
        mean,
        times,
        classes: classes.collect(),
        pictures: pictures.collect(),
        layers,
    }
}

impl Report {
    /// The figures for people.
    pub(super) fn table(&self) -> Result<String> {
        let mut text = String::new();
        let out = &mut text;
        let (experts, k, times) = (self.experts, self.k, self.times.len());
        let rule = serde_json::to_value(self.rule)?;
        writeln!(
            out,
            "{}: {experts} experts in each of {} layers, {k} to a token on average (rule {})\n\
             {} pictures of {} tokens at {times} times",
            self.model,
            self.layers.len(),
            rule.as_str().unwrap_or_default(),
            self.pictures.len(),
            self.tokens_per_picture,
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
        for layer in &self.layers {
            let threshold = layer.threshold.map_or("-".into(), |t| format!("{t:.4}"));
            let figures = measures(&layer.measures);
            writeln!(out, "{:>5} {figures} {threshold:>10}", layer.layer)?;
        }
        writeln!(out, "{:>5} {}", "mean", measures(&self.mean))?;
        writeln!(
            out,
            "\nload of each expert, % ({:.1} if even)",
            100.0 / experts as f64
        )?;
        for layer in &self.layers {
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
        self.by_time(out)?;
        if self.classes.len() > 1 {
            let name = |class: &Class| class.name.chars().count();
            let width = self.classes.iter().map(name).max().unwrap_or(0).max(5);
            writeln!(
                out,
                "\n{:width$} {:>8} {:>8}",
                "class", "pictures", "experts"
            )?;
            for class in &self.classes {
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
    fn by_time(&self, out: &mut String) -> Result<()> {
        let few = self.times.len() <= TIME_ROWS;
        writeln!(out, "\nexperts by time (0 is the picture, 1000 noise)")?;
        let heads: String = self
            .layers
            .iter()
            .map(|layer| format!(" {:>6}", layer.layer))
            .collect();
        writeln!(out, "{:>9} {:>6} layer{heads}", "time", "mean")?;
        let row = |time: &Time| match few {
            true => 0,
            false => ((time.time / END * TIME_ROWS as f32) as usize).min(TIME_ROWS - 1),
        };
        let of_row = |a: &Time, b: &Time| !few && row(a) == row(b);
        for times in self.times.chunk_by(of_row) {
            let width = END as usize / TIME_ROWS;
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
            let layers: String = (0..self.layers.len())
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
}

/// Leaves the pictures in a folder.
pub(super) fn draw(folder: &Path, report: &Report, routed: &Routed) -> Result<()> {
    let loads: Vec<Vec<f64>> = report
        .layers
        .iter()
        .map(|layer| layer.load.iter().map(|load| 100.0 * load).collect())
        .collect();
    plot::cells(
        &folder.join("load.svg"),
        &format!(
            "Load of each expert, % ({:.1} if even)",
            100.0 / report.experts as f64
        ),
        ["expert", "layer"],
        &loads,
    )?;
    plot::lines(
        &folder.join("active-by-time.svg"),
        "Experts that a token has, by time",
        ["time (0: picture, 1000: noise)", "experts of a token, mean"],
        0.0..f64::from(END),
        &by_time(report),
    )?;
    let sheet = sheet(routed)?;
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
        points: [0.0, f64::from(END)].map(|x| (x, report.k)).into(),
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
fn sheet(routed: &Routed) -> Result<Pixels> {
    let mut parts: Vec<usize> = routed.times.iter().map(|&time| part(time)).collect();
    parts.sort_unstable();
    parts.dedup();
    // From noise on, as pictures come to be.
    parts.reverse();
    let bounds = parts.iter().map(|&part| {
        let bound = |part: usize| (END * part as f32 / PARTS as f32).round();
        format!("time {}-{}", bound(part), bound(part + 1))
    });
    let titles: Vec<_> = ["picture".to_owned(), "all times".to_owned()]
        .into_iter()
        .chain(bounds)
        .collect();
    let chosen = routed.chosen.iter().filter_map(|&i| routed.pictures.get(i));
    let rows = chosen.zip(&routed.shown).map(|(one, picture)| {
        let of_part = |part: usize| one.maps.iter().map(|map| map[part].value()).collect();
        let all = |map: &[Mean; PARTS]| {
            map.iter()
                .copied()
                .fold(Mean::default(), Mean::plus)
                .value()
        };
        let mut maps = vec![one.maps.iter().map(all).collect()];
        maps.extend(parts.iter().map(|&part| of_part(part)));
        Row {
            picture: picture.clone(),
            caption: one.name.clone(),
            maps,
        }
    });
    let rows: Vec<_> = rows.collect();
    ensure!(!rows.is_empty(), "no picture to show");
    heat::sheet(
        &titles,
        &rows,
        "mean experts of a token in a layer (time 0: picture, 1000: noise)",
    )
}
