//! Photographs of clothes (clothing-dataset-small, CC0) at 64 px, in the latents of TAEF2: a generator on tokens, and a
//! diffusion transformer with racing experts beside it. All options of `tessera` that the recipe uses are in this file.

use super::{all, dit_model, evaluation, judge_model, model, samples, weights};
use crate::step::Step;
use crate::workspace;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const PICTURES: &str = "--img-size 64";

/// 3,068 pictures are few: four crops of each, mirrored at random, and dropout.
const VARIED: &str = "--crops 4 --flip";

const AR: &str = "--bits auto:3.5 --enc 192,4,6 --dec 192,6,6 --head 128,3,4 --dropout 0.1 --mask-ratio-min 0.1 \
                  --mask-ratio-std 0.5 --head-subset 0.25 --dims-per-step 4 --batch-size 32 --lr 1e-3 \
                  --warmup-epochs 0.3 --decay constant --ema-rate 0.9995 --epochs 36 --save-every 192 --sample-every 6 \
                  --precision bf16 --cfg-schedule constant --dtype int8 --name tessera-clothing";

const DIT: &str = "--size 192,10,6 --patch 1 --experts 2-in-8 --batch-size 32 --lr 1e-3 --warmup-epochs 0.3 \
                   --decay constant --ema-rate 0.9995 --epochs 8 --save-every 192 --sample-every 4 \
                   --precision bf16 --name race-dit-clothing";

/// A pass over so few pictures is short.
const JUDGE: &str = "--epochs 60";

/// Guidance scales and temperatures that are tried on the validation pictures.
const CFG_SCALES: [f64; 4] = [1.5, 2.0, 3.0, 4.0];
const TEMPERATURES: [f64; 2] = [1.0, 0.95];

/// Pictures per class of a trial, and of the measurements.
const TRIED: usize = 20;
const JUDGED: usize = 100;

/// Pictures per class in the report.
const SHOWN: usize = 10;

/// Pictures that are shown beside their nearest training pictures.
const NEIGHBORS: usize = 20;

/// What the recipe needs besides the pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Clothing {
    /// TAEF2: a folder of its two halves.
    pub vae: PathBuf,
    /// The weights of EfficientNet-Lite0, in whose features distances are measured.
    pub features: PathBuf,
}

/// Settings of sampling, and the distance of their pictures to the validation pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The guidance scale.
    pub cfg_scale: f64,
    /// What logits are divided by.
    pub temperature: f64,
    /// FD-EffLite0.
    pub distance: f64,
}

impl Clothing {
    /// The steps that make the models in `out`, from the pictures in `data`. The generator is described with the
    /// settings that were chosen, once they are.
    pub fn training(&self, out: &Path, data: &Path) -> Vec<Step> {
        let train = |command: &str, run: &str, product: PathBuf| {
            Step::new(command, product)
                .in_folder(&out.join(run))
                .flag("--data", data)
                .words(PICTURES)
        };
        let mut ar = train("train ar", "ar", weights(&model(out)))
            .words(VARIED)
            .flag("--vae", &self.vae)
            .flag("--cached", out.join("latents.safetensors"))
            .words(AR);
        if let Ok(Setting {
            cfg_scale,
            temperature,
            ..
        }) = chosen(out)
        {
            ar = ar.words(&format!(
                "--cfg-scale {cfg_scale} --temperature {temperature}"
            ));
        }
        let judge = train("train judge", "judge", judge_model(out).join("config.json"));
        vec![ar, judge.words(JUDGE)]
    }

    /// The steps that train a diffusion transformer on the same latents, which are continuous for it, and measure it.
    pub fn comparison(&self, out: &Path, data: &Path) -> Vec<Step> {
        let train = Step::new("train dit", weights(&dit_model(out)))
            .in_folder(&out.join("dit"))
            .flag("--data", data)
            .words(PICTURES)
            .words(VARIED)
            .flag("--vae", &self.vae)
            .words(DIT);
        let eval = self
            .evaluated(out, "eval-dit", &dit_model(out), data)
            .flag("--judge", judge_model(out));
        vec![train, eval]
    }

    /// Pictures of a model against the test set.
    fn evaluated(&self, out: &Path, name: &str, model: &Path, data: &Path) -> Step {
        evaluation(out, name, model, data)
            .flag("--features", &self.features)
            .words(&format!("-n {JUDGED} --neighbors {NEIGHBORS}"))
    }

    /// The trials of settings, whose pictures are held against the validation pictures in `data`.
    pub fn trials(&self, out: &Path, data: &Path) -> Vec<(Setting, Step)> {
        let settings = CFG_SCALES.iter().flat_map(|&cfg_scale| {
            TEMPERATURES.map(|temperature| Setting {
                cfg_scale,
                temperature,
                distance: f64::NAN,
            })
        });
        let trial = |setting: Setting| {
            let Setting {
                cfg_scale,
                temperature,
                ..
            } = setting;
            let name = format!("trials/cfg-{cfg_scale}-temperature-{temperature}");
            let words = format!("-n {TRIED} --cfg-scale {cfg_scale} --temperature {temperature}");
            let step = evaluation(out, &name, &model(out), data)
                .flag("--features", &self.features)
                .words(&words);
            (setting, step)
        };
        settings.map(trial).collect()
    }

    /// The steps that measure the models in `out` and draw their pictures.
    pub fn measuring(&self, out: &Path, data: &Path, classes: &[String]) -> Vec<Step> {
        let mut steps = vec![
            self.evaluated(out, "eval", &model(out), data),
            evaluation(out, "reconstruction", &model(out), data)
                .flag("--features", &self.features)
                .words("--reconstruction"),
        ];
        let draw = |folder: &Path, class: &str| {
            Step::new("generate", folder.join("grid.png"))
                .in_folder(folder)
                .flag("-m", model(out))
                .flag("--class", class)
                .words(&format!("-n {SHOWN} --seed 1 --grid"))
        };
        steps.push(draw(&all(out), "all"));
        steps.extend(
            classes
                .iter()
                .map(|class| draw(&samples(out, class), class)),
        );
        steps
    }
}

/// The settings that were chosen, if they were.
///
/// # Errors
/// When they are not yet.
pub fn chosen(out: &Path) -> Result<Setting> {
    let file = file(out);
    serde_json::from_slice(&workspace::read(&file)?).with_context(|| file.display().to_string())
}

/// Writes down the settings whose pictures are nearest to the validation pictures, by what the trials printed.
///
/// # Errors
/// When a trial printed no distance, or the file cannot be written.
pub fn choose(out: &Path, trials: &[(Setting, Step)]) -> Result<Setting> {
    let distance = |(setting, step): &(Setting, Step)| {
        let text = workspace::read(&step.product)?;
        let printed: serde_json::Value = serde_json::from_slice(&text)?;
        let distance = printed["features"]["pictures"]["distance"].as_f64();
        let distance =
            distance.with_context(|| format!("{}: no distance in it", step.product.display()))?;
        Ok(Setting {
            distance,
            ..*setting
        })
    };
    let tried = trials.iter().map(distance).collect::<Result<Vec<_>>>()?;
    let nearest = tried
        .into_iter()
        .min_by(|a, b| a.distance.total_cmp(&b.distance));
    let nearest = nearest.context("no trial")?;
    workspace::write(&file(out), &serde_json::to_vec_pretty(&nearest)?)?;
    Ok(nearest)
}

fn file(out: &Path) -> PathBuf {
    out.join("chosen.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_nearest_trial_is_chosen_and_describes_the_model() {
        let sh = xshell::Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        let out = folder.path();
        let recipe = Clothing {
            vae: "/v".into(),
            features: "/f".into(),
        };
        let ar = || recipe.training(out, Path::new("/d")).swap_remove(0);
        let line = || ar().line(out);
        assert!(ar().product.ends_with("ar/model/model.safetensors"));
        assert!(!line().contains("--cfg-scale"), "{}", line());
        let trials = recipe.trials(out, Path::new("/validation"));
        assert_eq!(trials.len(), 8);
        assert!(
            trials[0]
                .1
                .product
                .ends_with("trials/cfg-1.5-temperature-1.json")
        );
        assert!(choose(out, &trials).is_err(), "none has run");
        fs::create_dir(out.join("trials")).unwrap();
        for (i, (_, step)) in trials.iter().enumerate() {
            let distance = (i as f64 - 5.0).abs() + 90.0;
            let printed = format!(r#"{{"features": {{"pictures": {{"distance": {distance}}}}}}}"#);
            fs::write(&step.product, printed).unwrap();
        }
        let nearest = choose(out, &trials).unwrap();
        assert_eq!((nearest.cfg_scale, nearest.temperature), (3.0, 0.95));
        assert_eq!(chosen(out).unwrap(), nearest);
        let line = line();
        assert!(line.ends_with("--cfg-scale 3 --temperature 0.95"), "{line}");
    }
}
