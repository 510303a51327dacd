//! What is compared: ways of drawing, each one option or two away from exact drawing.

use anyhow::{Result, bail, ensure};
use clap::Args;
use std::collections::HashSet;

/// A way of drawing.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// In file names and tables.
    pub name: String,
    /// Options of `tessera eval`.
    pub options: String,
    /// What it is one of.
    pub of: Series,
}

/// Settings that belong together in the plot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Series {
    /// Random order, nothing reused, by number of steps.
    Exact,
    /// Halton's order.
    Halton,
    /// The order in stages.
    Staged,
    /// Random order with lazy steps.
    Lazy,
    /// The order in stages with lazy steps.
    StagedLazy,
    /// Another guidance or temperature.
    Guidance,
}

impl Series {
    /// All, in the order of the legend.
    pub const ALL: [Self; 6] = [
        Self::Exact,
        Self::Halton,
        Self::Staged,
        Self::Lazy,
        Self::StagedLazy,
        Self::Guidance,
    ];

    /// In the legend.
    pub fn label(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Halton => "halton",
            Self::Staged => "staged",
            Self::Lazy => "lazy",
            Self::StagedLazy => "staged, lazy",
            Self::Guidance => "guidance, temperature",
        }
    }
}

/// What is tried.
#[derive(Debug, Args)]
pub struct Grid {
    /// Numbers of steps; the largest, with nothing reused, is what others are compared with.
    #[arg(
        long,
        default_value = "8,16,32,64",
        value_name = "N,N",
        value_delimiter = ','
    )]
    steps: Vec<usize>,
    /// Guidance scales, each with exact drawing in half the most steps.
    #[arg(
        long,
        default_value = "1,1.5,2,3,4",
        value_name = "X,X",
        value_delimiter = ','
    )]
    cfg_scales: Vec<f32>,
    /// Temperatures, likewise.
    #[arg(
        long,
        default_value = "0.9,0.95,1",
        value_name = "X,X",
        value_delimiter = ','
    )]
    temperatures: Vec<f32>,
}

/// Steps between full ones, beside the paper's, in steps of 64.
const REFRESH: [usize; 2] = [4, 18];

impl Grid {
    /// What a test of the pipeline tries.
    pub fn quick() -> Self {
        Self {
            steps: vec![2, 4],
            cfg_scales: vec![1.0, 2.0],
            temperatures: vec![0.9],
        }
    }

    /// # Errors
    /// If there is nothing to compare.
    pub fn check(&self) -> Result<()> {
        ensure!(
            !self.steps.is_empty() && self.steps.iter().all(|&steps| steps > 0),
            "--steps: expected numbers from 1 on"
        );
        let settings = self.settings();
        let mut names = HashSet::new();
        if let Some(twice) = settings.iter().find(|setting| !names.insert(&setting.name)) {
            bail!("{}: expected each number once", twice.name);
        }
        Ok(())
    }

    /// The most steps.
    pub fn most(&self) -> usize {
        self.steps.iter().copied().max().unwrap_or(1)
    }

    /// The name of what others are compared with: exact drawing in the most steps.
    pub fn reference(&self) -> String {
        format!("exact-{}", self.most())
    }

    /// All settings.
    pub fn settings(&self) -> Vec<Setting> {
        let most = self.most();
        let setting = |name: String, options: String, of| Setting { name, options, of };
        let mut settings = Vec::new();
        for &steps in &self.steps {
            for (order, cache, of) in [
                ("random", "none", Series::Exact),
                ("halton", "none", Series::Halton),
                ("staged", "none", Series::Staged),
                ("random", "lazy", Series::Lazy),
                ("staged", "lazy", Series::StagedLazy),
            ] {
                let name = format!("{}-{steps}", of.label().replace(", ", "-"));
                let options = format!("--steps {steps} --order {order} --cache {cache}");
                settings.push(setting(name, options, of));
            }
        }
        for refresh in REFRESH {
            let every = (refresh * most / 64).max(1);
            let options =
                format!("--steps {most} --order random --cache lazy --cache-refresh {every}");
            let name = format!("lazy-{most}-every-{every}");
            settings.push(setting(name, options, Series::Lazy));
        }
        let half = (most / 2).max(1);
        let exact = format!("--steps {half} --order random --cache none");
        for scale in &self.cfg_scales {
            let name = format!("guidance-{scale}-{half}");
            let options = format!("{exact} --cfg-scale {scale}");
            settings.push(setting(name, options, Series::Guidance));
        }
        for temperature in &self.temperatures {
            let name = format!("temperature-{temperature}-{half}");
            let options = format!("{exact} --temperature {temperature}");
            settings.push(setting(name, options, Series::Guidance));
        }
        // Of few steps, both refreshes are every one.
        settings.dedup_by(|a, b| a.name == b.name);
        settings
    }
}

/// A claim of a paper: that one setting is better than another.
pub struct Claim {
    /// What is said.
    pub text: String,
    /// What the paper has.
    pub paper: &'static str,
    /// The settings: what should be better, or no worse, and what it is compared with.
    pub better: String,
    /// As above.
    pub than: String,
}

/// The claims that these settings can judge.
pub fn claims(grid: &Grid) -> Vec<Claim> {
    let (most, steps) = (grid.most(), &grid.steps);
    let mut claims = vec![Claim {
        text: format!("lazy steps cost nothing at {most} steps"),
        paper: "LazyMAR: FID 1.82 becomes 1.93 (L)",
        better: format!("lazy-{most}"),
        than: format!("exact-{most}"),
    }];
    if steps.contains(&(most / 2)) {
        claims.push(Claim {
            text: format!(
                "{} steps in stages are no worse than {most} at random",
                most / 2
            ),
            paper: "GtR: FID 1.59 in either (H)",
            better: format!("staged-{}", most / 2),
            than: format!("exact-{most}"),
        });
    }
    for steps in steps {
        claims.push(Claim {
            text: format!("stages are better than random order at {steps} steps"),
            paper: "GtR: FID 1.59, random 1.82",
            better: format!("staged-{steps}"),
            than: format!("exact-{steps}"),
        });
        claims.push(Claim {
            text: format!("random order is better than Halton's at {steps} steps"),
            paper: "on MAR Halton's order loses to random order",
            better: format!("exact-{steps}"),
            than: format!("halton-{steps}"),
        });
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_names_of_their_own_and_claims_are_of_settings() {
        let steps = |steps: &[usize]| Grid {
            steps: steps.into(),
            ..Grid::quick()
        };
        assert!(steps(&[8, 2, 8]).check().is_err() && steps(&[0]).check().is_err());
        for grid in [steps(&[8, 16, 32, 64]), steps(&[1]), Grid::quick()] {
            let settings = grid.settings();
            let names: HashSet<_> = settings.iter().map(|setting| &setting.name).collect();
            assert_eq!(names.len(), settings.len());
            assert!(names.contains(&grid.reference()) && grid.check().is_ok());
            for claim in claims(&grid) {
                assert!(names.contains(&claim.better) && names.contains(&claim.than));
            }
        }
    }
}
