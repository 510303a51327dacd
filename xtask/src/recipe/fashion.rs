//! Fashion-MNIST: a KL-VAE and a generator on its tokens. All options of `tessera` that it uses are in this file.

use super::{evaluation, judge_model, model, samples, vae_model, weights};
use crate::step::Step;
use std::path::Path;

/// The classes of Fashion-MNIST, in the order of their labels.
pub const CLASSES: [&str; 10] = [
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
];

/// Fashion-MNIST has 28 px: padded to 32 for the VAE, cropped again in a generated picture.
const PICTURES: &str = "--img-size 32 --channels 1";

const VAE: &str = "--ch 16 --ch-mult 1,2,4,4 --z-channels 8 --l2-weight 1.0 --kl-weight 0.003 \
                   --batch-size 32 --lr 1.5e-3 --warmup-epochs 0.05 --ema-rate 0.998";

const AR: &str = "--picture-size 28 --enc 128,3,4 --dec 160,5,4 --head 128,3,4 --buffer-size 8 \
                  --mask-ratio-min 0.05 --mask-ratio-std 0.5 --head-subset 0.5 --cfg-scale 2.5 --cfg-schedule constant \
                  --batch-size 64 --lr 1.2e-3 --warmup-epochs 0.2 --ema-rate 0.999 --dtype f16 --name tessera-fashion";

/// Pictures per class in the report.
const SHOWN: usize = 8;

/// How long each model trains and how much is measured; the models are the same in every recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fashion {
    /// What the report calls it.
    pub name: &'static str,
    /// More options of `train vae`.
    pub vae: &'static str,
    /// More options of `train ar`.
    pub ar: &'static str,
    /// More options of `train judge`; its defaults are the full settings.
    pub judge: &'static str,
    /// Generated pictures per class that are evaluated.
    pub samples: usize,
    /// How many training and test images are used; all of them if `None`.
    pub images: Option<Images>,
}

/// Sizes of the two halves of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    /// Training images.
    pub train: usize,
    /// Test images.
    pub test: usize,
}

impl Fashion {
    /// The settings that made the built-in model.
    pub const fn full() -> Self {
        Self {
            name: "fashion",
            vae: "--epochs 2 --save-every 400",
            ar: "--epochs 6 --save-every 300",
            judge: "",
            samples: 100,
            images: None,
        }
    }

    /// Minutes instead of hours: a test of the pipeline, not of the models.
    pub const fn quick() -> Self {
        Self {
            name: "quick",
            vae: "--epochs 1 --save-every 30",
            ar: "--epochs 6 --max-steps 50 --save-every 25",
            judge: "--max-steps 60",
            samples: 4,
            images: Some(Images {
                train: 2000,
                test: 500,
            }),
        }
    }

    /// The steps that make the model in `out`, from the data in `data`.
    pub fn training(&self, out: &Path, data: &Path, classes: &[String]) -> Vec<Step> {
        let (vae, ar, judge) = (out.join("vae"), out.join("ar"), out.join("judge"));
        let entropy = out.join("entropy.svg");
        vec![
            Step::new("train vae", vae_model(out).join("config.json"))
                .in_folder(&vae)
                .flag("--data", data)
                .words(PICTURES)
                .words(VAE)
                .words(self.vae),
            Step::new("calibrate", entropy.clone())
                .flag("--vae", vae_model(out))
                .flag("--data", data)
                .flag("-o", out.join("calibration.json"))
                .flag("--plot", entropy)
                .words("--overwrite"),
            Step::new("train ar", weights(&model(out)))
                .in_folder(&ar)
                .flag("--data", data)
                .words(PICTURES)
                .flag("--class-names", classes.join(","))
                .flag("--vae", vae_model(out))
                .flag("--cached", out.join("latents.safetensors"))
                .words(AR)
                .words(self.ar),
            Step::new("train judge", judge_model(out).join("config.json"))
                .in_folder(&judge)
                .flag("--data", data)
                .words(PICTURES)
                .words(self.judge),
        ]
    }

    /// The steps that measure the model in `out` and draw its pictures.
    pub fn measuring(&self, out: &Path, data: &Path, classes: &[String]) -> Vec<Step> {
        let eval = |name: &str, flags: &str| evaluation(out, name, &model(out), data).words(flags);
        let mut steps = vec![
            eval("eval", &format!("-n {}", self.samples)),
            eval("reconstruction", "--reconstruction"),
        ];
        steps.extend(classes.iter().map(|class| {
            let folder = samples(out, class);
            Step::new("generate", folder.join("grid.png"))
                .in_folder(&folder)
                .flag("-m", model(out))
                .flag("--class", class)
                .words(&format!("-n {SHOWN} --seed 1 --grid"))
        }));
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(recipe: Fashion) -> Vec<Step> {
        let (out, data) = (Path::new("/o"), Path::new("/d"));
        let classes = CLASSES.map(str::to_owned);
        let mut steps = recipe.training(out, data, &classes);
        steps.extend(recipe.measuring(out, data, &classes));
        steps
    }

    #[test]
    fn every_recipe_trains_the_same_models() {
        let shape = |recipe| {
            let arguments = steps(recipe).into_iter().map(|step| step.args);
            let kept = |args: Vec<String>| -> Vec<String> {
                let sizes = [
                    "--ch",
                    "--ch-mult",
                    "--z-channels",
                    "--enc",
                    "--dec",
                    "--head",
                ];
                let pairs = args.windows(2).filter(|pair| sizes.contains(&&*pair[0]));
                pairs.flatten().cloned().collect()
            };
            arguments.flat_map(kept).collect::<Vec<_>>()
        };
        assert_eq!(shape(Fashion::full()), shape(Fashion::quick()));
        assert_eq!(shape(Fashion::full()).len(), 12);
    }

    #[test]
    fn no_flag_is_given_twice() {
        for step in steps(Fashion::full())
            .into_iter()
            .chain(steps(Fashion::quick()))
        {
            let is_flag = |arg: &&String| arg.starts_with('-') && arg.len() > 1;
            let mut flags: Vec<_> = step.args.iter().filter(is_flag).collect();
            let count = flags.len();
            flags.sort();
            flags.dedup();
            assert_eq!(flags.len(), count, "{:?}", step.args);
        }
    }

    #[test]
    fn every_step_has_a_product_of_its_own() {
        let mut products: Vec<_> = steps(Fashion::full())
            .into_iter()
            .map(|s| s.product)
            .collect();
        let count = products.len();
        products.sort();
        products.dedup();
        assert_eq!((products.len(), count), (16, 16));
    }

    #[test]
    fn a_name_with_a_space_stays_one_argument() {
        let boots = steps(Fashion::quick()).pop().unwrap();
        assert!(boots.args.contains(&"ankle boot".to_owned()));
        assert_eq!(
            boots.line(Path::new("/o")),
            "tessera generate -o OUT/samples/ankle-boot -m OUT/ar/model --class \"ankle boot\" -n 8 --seed 1 --grid"
        );
    }
}
