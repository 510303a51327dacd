//! `report.md` of a study: what agrees with the paper, in words that the figures decide, and the figures.

use super::results::{Measure, Run};
use super::settings::{Folders, Settings};
use super::statistics::{Gain, Mean, Verdict};
use super::variants::{CLAIMS, Claim, TABLES, Table, VARIANTS, variant_of};
use crate::workspace;
use anyhow::Result;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// What is reported.
pub struct Report<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// Where things are.
    pub folders: &'a Folders<'a>,
    /// The runs that are done.
    pub runs: &'a [Run],
}

impl Report<'_> {
    /// Writes `report.md`, and says where.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self) -> Result<PathBuf> {
        let path = self.folders.out.join("report.md");
        workspace::write(&path, self.text()?.as_bytes())?;
        Ok(path)
    }

    fn text(&self) -> Result<String> {
        let mut text = String::from("# Expert Race at a small scale\n\n");
        text += &self.setting();
        text += "## What agrees with the paper\n\n";
        text += &self.verdicts()?;
        text += "## Figures\n\n";
        for table in &TABLES {
            text += &self.table(table)?;
        }
        text += "## Training loss\n\n![Training loss of every variant](curves.svg)\n\n";
        text += &self.commands()?;
        Ok(text)
    }

    /// What was compared, on what, where, and for how long.
    fn setting(&self) -> String {
        let (settings, pictures) = (self.settings, self.folders.pictures);
        let seconds: f64 = self.runs.iter().filter_map(|run| run.seconds).sum();
        let timed = self.runs.iter().filter(|run| run.seconds.is_some()).count();
        let mut text = format!("Data: {}, {} px. ", pictures.description, settings.img_size);
        text += match self.folders.vae {
            Some(_) => "The models diffuse the latents of a tokenizer",
            None => "The models diffuse pixels",
        };
        let _ = write!(
            text,
            " in patches of {0}×{0}: rectified flow, {1} (width, depth, heads), {2} experts a block with as many \
                activated \
             parameters as the dense model's MLP, {3} steps of {4} pictures, {5} runs: {6} variants, {7} seeds. A seed \
             decides \
             weights, order and noise alike in every variant. Weights of the losses, where a variant has them: \
             similarity {8}, \
             balance {9}, per layer {10}.\n\n",
            settings.patch,
            settings.size,
            settings.experts,
            settings.steps,
            settings.batch_size,
            self.runs.len(),
            VARIANTS.len(),
            settings.seeds,
            settings.weights.similarity,
            settings.weights.balance,
            settings.weights.per_layer
        );
        let _ = write!(
            text,
            "Machine: {}. Training took {:.0} s a run on average, {:.1} h for {timed} runs.\n\n",
            machine(),
            seconds / (timed as f64).max(1.0),
            seconds / 3600.0
        );
        if let Some([floor, std, accuracy]) = self.runs.first().and_then(Run::judge) {
            let _ = write!(
                text,
                "The Fréchet distance is between {} drawn pictures (20 steps, no guidance) and real test pictures, in \
                    the \
                 features of a classifier that recognizes {:.1} % of the test pictures. It is not FID and compares \
                 with \
                 nothing outside this page; real training pictures are at {floor:.3} ± {std:.3}. The validation loss \
                 is of the \
                 averaged weights with the experts as at inference, on pictures and noise that are the same for \
                 all.\n\n",
                settings.pictures,
                100.0 * accuracy
            );
        }
        text
    }

    /// The claims in order, each with its verdicts, after a sentence that counts them.
    fn verdicts(&self) -> Result<String> {
        let mut counts = [0; 3];
        let mut items = String::new();
        for claim in &CLAIMS {
            let mut parts = Vec::new();
            for &measure in claim.by {
                if let Some(gain) = self.gain(claim, measure) {
                    counts[gain.verdict() as usize] += 1;
                    parts.push(self.sentence(claim, measure, &gain));
                }
            }
            if !parts.is_empty() {
                let parts = parts.join("; ");
                writeln!(
                    items,
                    "- **{}.** {parts}. The paper: {}.",
                    claim.text, claim.paper
                )?;
            }
        }
        let [agrees, disagrees, undecided] = counts;
        Ok(format!(
            "Of {} comparisons {agrees} agree with the paper, {disagrees} disagree, and {undecided} are undecided: \
                zero is within \
             the 95 % interval (Student's t) of the difference between runs of one seed. These are small models, \
             trained \
             briefly; what is undecided here is not refuted.\n\n{items}\n",
            agrees + disagrees + undecided
        ))
    }

    fn gain(&self, claim: &Claim, measure: Measure) -> Option<Gain> {
        let value = |key: &str, seed: u64| {
            let runs = &mut self.runs.iter();
            let run = runs.find(|run| run.variant == key && run.seed == seed)?;
            run.get(measure).map(|value| measure.cost(value))
        };
        let pairs: Vec<_> = (0..self.settings.seeds)
            .filter_map(|seed| Some((value(claim.better, seed)?, value(claim.worse, seed)?)))
            .collect();
        Gain::of(&pairs)
    }

    fn sentence(&self, claim: &Claim, measure: Measure, gain: &Gain) -> String {
        let word = match gain.verdict() {
            Verdict::Agrees => "agrees",
            Verdict::Disagrees => "disagrees",
            Verdict::Undecided => "undecided",
        };
        let digits = measure.digits();
        let mean = |key: &str| {
            let mean = self.mean(key, measure).map_or(f64::NAN, |mean| mean.mean);
            format!("{mean:.digits$}")
        };
        let direction = if gain.mean < 0.0 { "worse" } else { "better" };
        let half = match gain.half.is_finite() {
            true => format!(" ± {:.digits$}", gain.half),
            false => String::new(),
        };
        format!(
            "{}: {word}, {} against {}, {direction} by {:.digits$}{half}, better with {} of {} seeds",
            capital(measure.label()),
            mean(claim.better),
            mean(claim.worse),
            gain.mean.abs(),
            gain.in_favor,
            gain.seeds
        )
    }

    fn mean(&self, key: &str, measure: Measure) -> Option<Mean> {
        let runs = self.runs.iter().filter(|run| run.variant == key);
        let values: Vec<f64> = runs.filter_map(|run| run.get(measure)).collect();
        Mean::of(&values)
    }

    fn table(&self, table: &Table) -> Result<String> {
        let mut text = format!("### {}\n\n| variant |", table.title);
        for measure in Measure::ALL {
            write!(text, " {} |", measure.label())?;
        }
        let with_fid = table.rows.iter().any(|row| variant_of(row).fid.is_some());
        text += if with_fid {
            " the paper's FID |\n"
        } else {
            "\n"
        };
        let columns = Measure::ALL.len() + usize::from(with_fid);
        writeln!(text, "|---|{}", "---:|".repeat(columns))?;
        for row in table.rows {
            write!(text, "| {} |", variant_of(row).label)?;
            for measure in Measure::ALL {
                let digits = measure.digits();
                match self.mean(row, measure) {
                    Some(Mean { mean, std }) => {
                        write!(text, " {mean:.digits$} ± {std:.digits$} |")?;
                    }
                    None => text += " – |",
                }
            }
            match (with_fid, variant_of(row).fid) {
                (false, _) => {}
                (true, Some(fid)) => write!(text, " {fid:.2} |")?,
                (true, None) => text += " – |",
            }
            text.push('\n');
        }
        text += "\nMean ± standard deviation over the seeds. Agreement is the share of drawn pictures that the judge \
            takes for the \
                 class they were asked for.\n\n";
        Ok(text)
    }

    fn commands(&self) -> Result<String> {
        let mut text = String::from(
            "## Commands\n\nOf every run, with `OUT` for the output folder; here the last variant of table 3, seed \
                0:\n\n```\n",
        );
        writeln!(
            text,
            "{}",
            self.settings.judge(self.folders).line(self.folders.out)
        )?;
        for step in self.settings.steps_of(self.folders, variant_of("full"), 0) {
            writeln!(text, "{}", step.line(self.folders.out))?;
        }
        Ok(text + "```\n")
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

/// The processor, and how many of its threads there are.
pub fn machine() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    format!("{model}, {threads} CPU threads")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::pictures::Pictures;
    use crate::study::results::testing::run;
    use crate::study::variants::Weights;
    use serde_json::json;
    use std::path::Path;

    fn report(runs: &[Run]) -> String {
        let settings = Settings {
            img_size: 32,
            patch: 4,
            size: "64,4,4".into(),
            experts: "2-in-8".into(),
            steps: 100,
            batch_size: 32,
            lr: 1e-3,
            seeds: 3,
            train_images: None,
            pictures: 500,
            judge: String::new(),
            weights: Weights {
                similarity: 1e-4,
                balance: 1e-2,
                per_layer: 1e-2,
            },
        };
        let pictures = Pictures {
            folder: "/d".into(),
            whole: "/d".into(),
            channels: 3,
            classes: 10,
            train: 1000,
            description: "1000 pictures".into(),
        };
        let folders = Folders {
            out: Path::new("/o"),
            pictures: &pictures,
            vae: None,
        };
        let report = Report {
            settings: &settings,
            folders: &folders,
            runs,
        };
        report.text().unwrap()
    }

    /// Race is better than token choice by one in every seed, and than expert choice in one seed of three.
    fn runs() -> Vec<Run> {
        let run_of = |variant: &str, seed: u64, frechet: f64| {
            let figures = json!({
                "training_loss": 0.5, "frechet": frechet, "floor": 0.25, "floor_std": 0.125, "real_accuracy": 0.75
            });
            run(variant, seed, figures)
        };
        let seeds = (0..3).map(|seed| (seed, seed as f64));
        seeds
            .flat_map(|(seed, x)| {
                [
                    run_of("race", seed, 10.0 + x),
                    run_of("token", seed, 11.0 + x + 0.001 * x),
                    run_of("expert", seed, 9.5 + 2.0 * x - x * x),
                ]
            })
            .collect()
    }

    #[test]
    fn verdicts_follow_from_the_figures() {
        let text = report(&runs());
        assert!(
            text.contains(
                "Of 2 comparisons 1 agree with the paper, 0 disagree, and 1 are undecided"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "- **Race beats token choice.** Fréchet distance: agrees, 11.000 against 12.001, better by 1.001 ± \
                    0.002, better \
                 with 3 of 3 seeds. The paper: FID 13.66 against 15.98."
            ),
            "{text}"
        );
        assert!(
            text.contains("**Race beats expert choice.** Fréchet distance: undecided"),
            "{text}"
        );
    }

    #[test]
    fn a_table_has_the_mean_and_the_deviation_and_a_dash_for_what_is_not_there() {
        let text = report(&runs());
        assert!(
            text.contains(
                "| Race, identity | 0.5000 ± 0.0000 | – | 11.000 ± 1.000 | – | – | – | – | 13.66 |"
            ),
            "{text}"
        );
        assert!(text.contains("| dense | – |"), "{text}");
        assert!(
            text.contains("tessera train dit -o OUT/runs/full-0"),
            "{text}"
        );
        assert!(
            text.contains("real training pictures are at 0.250 ± 0.125"),
            "{text}"
        );
    }
}
