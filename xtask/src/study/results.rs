//! What a run came to, read from what the commands left, and kept as one file that is there whole or not at all.

use crate::workspace;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;

/// The layout of the file.
const SCHEMA: &str = "tessera.study.run/v1";
/// The share of the steps, at the end, that the training loss is the mean of.
const LAST: f64 = 0.2;

/// What is measured of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Mean squared error over the last fifth of training.
    Training,
    /// The same of the averaged weights on held-out pictures, with the experts as at inference.
    Validation,
    /// Fréchet distance in the judge's features; it is not FID.
    Frechet,
    /// Pictures that the judge takes for the class they were asked for.
    Agreement,
    /// Maximal violation of even loads, the mean over the layers.
    MaxVio,
    /// Share of the pairs of experts in use, the mean over the layers.
    Combinations,
    /// Experts a token has on average at inference.
    Active,
}

impl Measure {
    /// All, in the order of the report's columns.
    pub const ALL: [Self; 7] = [
        Self::Training,
        Self::Validation,
        Self::Frechet,
        Self::Agreement,
        Self::MaxVio,
        Self::Combinations,
        Self::Active,
    ];

    /// In the run's file.
    fn key(self) -> &'static str {
        match self {
            Self::Training => "training_loss",
            Self::Validation => "validation_loss",
            Self::Frechet => "frechet",
            Self::Agreement => "agreement",
            Self::MaxVio => "max_vio",
            Self::Combinations => "combination_usage",
            Self::Active => "mean_active",
        }
    }

    /// At the head of a column.
    pub fn label(self) -> &'static str {
        match self {
            Self::Training => "training loss",
            Self::Validation => "validation loss",
            Self::Frechet => "Fréchet distance",
            Self::Agreement => "agreement",
            Self::MaxVio => "MaxVio",
            Self::Combinations => "combinations in use",
            Self::Active => "experts a token",
        }
    }

    /// Digits after the point.
    pub fn digits(self) -> usize {
        match self {
            Self::Training | Self::Validation => 4,
            Self::Frechet | Self::Agreement | Self::MaxVio | Self::Combinations => 3,
            Self::Active => 2,
        }
    }

    /// A value such that less is better.
    pub fn cost(self, value: f64) -> f64 {
        match self {
            Self::Agreement | Self::Combinations => -value,
            _ => value,
        }
    }
}

/// A run's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The variant's key.
    pub variant: String,
    /// The seed.
    pub seed: u64,
    /// What was measured, by [`Measure::key`], and the floor of the Fréchet distance.
    figures: Value,
    /// Steps and mean squared errors of training.
    pub curve: Vec<(f64, f64)>,
    /// How long training took; unknown if it was interrupted.
    pub seconds: Option<f64>,
}

/// Where the commands of a run left what they measured.
pub struct Sources<'a> {
    /// The run's folder.
    pub run: &'a Path,
    /// What `tessera eval --pictures` printed.
    pub eval: &'a Path,
    /// What `tessera route` printed; a dense model has no routes.
    pub route: Option<&'a Path>,
}

impl Run {
    /// Reads what the commands left.
    ///
    /// # Errors
    /// If a file is missing or lacks a figure.
    pub fn collect(
        variant: &str,
        seed: u64,
        seconds: Option<f64>,
        sources: &Sources<'_>,
    ) -> Result<Self> {
        let metrics = lines(&sources.run.join("metrics.jsonl"))?;
        let curve: Vec<(f64, f64)> = metrics
            .iter()
            .filter_map(|line| Some((line["step"].as_f64()?, line["mse"].as_f64()?)))
            .collect();
        let end = curve.last().context("no steps in metrics.jsonl")?.0;
        let late = curve
            .iter()
            .filter(|(step, _)| *step > (1.0 - LAST) * end)
            .map(|(_, mse)| *mse);
        let (count, sum) = late.fold((0.0, 0.0), |(count, sum), mse| (count + 1.0, sum + mse));
        let validation = lines(&sources.run.join("validation.jsonl"))?;
        let validation = validation.last().and_then(|line| line["mse"].as_f64());
        let eval = value(sources.eval)?;
        let mut figures = json!({
            "training_loss": sum / count,
            "validation_loss": validation.context("no loss in validation.jsonl")?,
            "frechet": number(&eval, "/frechet/distance")?,
            "floor": number(&eval, "/frechet/floor")?,
            "floor_std": number(&eval, "/frechet/floor_std")?,
            "agreement": number(&eval, "/agreement/accuracy")?,
            "real_accuracy": number(&eval, "/real_test_accuracy")?,
        });
        if let Some(route) = sources.route {
            let route = value(route)?;
            for measure in [Measure::MaxVio, Measure::Combinations, Measure::Active] {
                figures[measure.key()] =
                    number(&route, &format!("/mean/{}", measure.key()))?.into();
            }
        }
        Ok(Self {
            variant: variant.into(),
            seed,
            figures,
            curve,
            seconds,
        })
    }

    /// A figure; a dense model has none of its routes.
    pub fn get(&self, measure: Measure) -> Option<f64> {
        self.figures[measure.key()].as_f64()
    }

    /// The floor of the Fréchet distance, its deviation, and the judge's accuracy on real pictures.
    pub fn judge(&self) -> Option<[f64; 3]> {
        let figure = |name: &str| self.figures[name].as_f64();
        Some([
            figure("floor")?,
            figure("floor_std")?,
            figure("real_accuracy")?,
        ])
    }

    /// Reads a run's file; `None` if the run is not done.
    ///
    /// # Errors
    /// If it is there and damaged.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let value = value(path)?;
        let read = || {
            let point = |point: &Value| Some((point[0].as_f64()?, point[1].as_f64()?));
            let curve: Option<Vec<_>> = value["curve"].as_array()?.iter().map(point).collect();
            Some(Self {
                variant: value["variant"].as_str()?.into(),
                seed: value["seed"].as_u64()?,
                figures: value["figures"].clone(),
                curve: curve?,
                seconds: value["seconds"].as_f64(),
            })
        };
        let known = value["schema"] == SCHEMA;
        let run = known.then(read).flatten();
        Ok(Some(run.with_context(|| {
            format!("{} is not a result of this version", path.display())
        })?))
    }

    /// Writes the run's file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let value = json!({
            "schema": SCHEMA,
            "variant": self.variant,
            "seed": self.seed,
            "seconds": self.seconds,
            "figures": self.figures,
            "curve": self.curve,
        });
        workspace::write(path, format!("{value:#}\n").as_bytes())
    }
}

fn value(path: &Path) -> Result<Value> {
    serde_json::from_str(&workspace::read_text(path)?)
        .with_context(|| format!("{} is not JSON", path.display()))
}

fn lines(path: &Path) -> Result<Vec<Value>> {
    let text = workspace::read_text(path)?;
    let lines = text.lines().map(serde_json::from_str);
    lines
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not lines of JSON", path.display()))
}

fn number(value: &Value, pointer: &str) -> Result<f64> {
    let found = value.pointer(pointer).and_then(Value::as_f64);
    found.with_context(|| format!("no number at {pointer}"))
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// A run with these figures and a curve that falls to its training loss.
    pub fn run(variant: &str, seed: u64, figures: Value) -> Run {
        let end = figures["training_loss"].as_f64().unwrap();
        Run {
            variant: variant.into(),
            seed,
            curve: (1..=40)
                .map(|i| (10.0 * f64::from(i), end + 1.0 / f64::from(i)))
                .collect(),
            figures,
            seconds: Some(10.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xshell::Shell;

    #[test]
    fn a_run_is_collected_written_and_read_again() {
        let sh = Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let metrics: String = (1..=10)
            .map(|i| format!("{{\"step\":{i},\"mse\":{}}}\n", 1.0 / f64::from(i)))
            .collect();
        sh.write_file(at("metrics.jsonl"), metrics).unwrap();
        let validation = "{\"epoch\":1,\"mse\":0.5}\n{\"epoch\":2,\"mse\":0.25}\n";
        sh.write_file(at("validation.jsonl"), validation).unwrap();
        let frechet = r#"{"distance":9.5,"floor":0.5,"floor_std":0.25}"#;
        let eval = format!(
            r#"{{"agreement":{{"accuracy":0.5}},"real_test_accuracy":0.75,"frechet":{frechet}}}"#
        );
        sh.write_file(at("eval.json"), eval).unwrap();
        let route = r#"{"mean":{"max_vio":1.5,"combination_usage":0.5,"mean_active":2.25}}"#;
        sh.write_file(at("route.json"), route).unwrap();
        let sources = Sources {
            run: folder.path(),
            eval: &at("eval.json"),
            route: Some(&at("route.json")),
        };
        let run = Run::collect("race", 1, Some(2.5), &sources).unwrap();
        let training = (1.0 / 9.0 + 1.0 / 10.0) / 2.0;
        assert!((run.get(Measure::Training).unwrap() - training).abs() < 1e-12);
        assert_eq!(run.get(Measure::Validation), Some(0.25));
        assert_eq!(run.get(Measure::MaxVio), Some(1.5));
        assert_eq!(run.get(Measure::Active), Some(2.25));
        assert_eq!(run.judge(), Some([0.5, 0.25, 0.75]));
        assert_eq!(Run::read(&at("run.json")).unwrap(), None);
        run.write(&at("run.json")).unwrap();
        assert_eq!(Run::read(&at("run.json")).unwrap(), Some(run));
        sh.write_file(at("run.json"), "{}").unwrap();
        assert!(Run::read(&at("run.json")).is_err());
    }

    #[test]
    fn a_missing_figure_is_named() {
        let error = number(&json!({}), "/frechet/distance").unwrap_err();
        assert!(error.to_string().contains("/frechet/distance"));
    }
}
