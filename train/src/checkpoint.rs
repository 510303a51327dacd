//! Everything a run needs to go on, in one file: weights, their average, both moments and the step.

use crate::config::{StepPlan, TrainConfig};
use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::optim::AdamW;
use crate::run_folder::{RunFolder, newest_whole};
use burn::module::Module;
use std::collections::BTreeMap;
use std::path::Path;
use tessera_weights::{WeightDtype, Weights};

/// The name of the layout of a checkpoint's tensors and metadata.
const SCHEMA: &str = "tessera.checkpoint/v1";

/// A run between two steps. Everything random derives from the seed and the step, so no random state is in it.
#[derive(Debug, Clone)]
pub(crate) struct TrainState<M> {
    pub model: M,
    pub ema: Ema<M>,
    pub optimizer: AdamW,
    /// Steps done.
    pub step: u64,
}

impl<M: Module> TrainState<M> {
    pub(crate) fn new(model: M, config: &TrainConfig) -> Self {
        Self {
            ema: Ema::new(&model, config.ema_decay),
            optimizer: AdamW::new(config.adamw(), &model),
            model,
            step: 0,
        }
    }

    /// Writes `checkpoint/step-….safetensors`, then removes the oldest beyond `keep_last`.
    pub(crate) fn save(
        &self,
        run: &RunFolder,
        config: &TrainConfig,
        plan: &StepPlan,
    ) -> Result<()> {
        let mut weights = Weights::default();
        let [exp_avg, exp_avg_sq] = self.optimizer.moments(&self.model);
        weights.insert_prefixed("model.", Weights::of(&self.model));
        weights.insert_prefixed("ema.", Weights::of(&self.ema.module));
        weights.insert_prefixed("exp_avg.", exp_avg);
        weights.insert_prefixed("exp_avg_sq.", exp_avg_sq);
        let metadata = [
            ("schema", SCHEMA.to_owned()),
            ("step", self.step.to_string()),
            ("epoch", (self.step / plan.steps_per_epoch).to_string()),
            ("seed", config.seed.to_string()),
            ("config", run.mark().to_owned()),
        ];
        let metadata: BTreeMap<_, _> = metadata.map(|(key, value)| (key.to_owned(), value)).into();
        run.sync_metrics()?;
        weights.write(run.checkpoint_file(self.step), metadata, WeightDtype::F32)?;
        run.prune(config.keep_last)
    }

    /// Reads the checkpoint of `step` into `model`.
    pub(crate) fn load(
        model: M,
        config: &TrainConfig,
        run: &RunFolder,
        step: u64,
        file: &Path,
    ) -> Result<Self> {
        Self::load_whole(model, config, run, step, file).map_err(|source| {
            let older = newest_whole(run.root()).ok().flatten();
            Error::BadCheckpoint {
                file: file.into(),
                older: older.map(|(_, older)| older).filter(|older| older != file),
                source: Box::new(source),
            }
        })
    }

    fn load_whole(
        model: M,
        config: &TrainConfig,
        run: &RunFolder,
        step: u64,
        file: &Path,
    ) -> Result<Self> {
        let mut weights = Weights::read(file)?;
        let require = |what: &'static str, key: &str, expected: &str| {
            let found = weights.metadata().get(key).map_or("absent", |found| found);
            match found == expected {
                true => Ok(()),
                false => Err(Error::format(file, what, expected, found)),
            }
        };
        require("the schema", "schema", SCHEMA)?;
        require("the step", "step", &step.to_string())?;
        require("the mark of the configuration", "config", run.mark())?;

        let model = weights.take_prefix("model.").apply(model)?;
        let ema = weights.take_prefix("ema.").apply(model.valid())?;
        let moments = ["exp_avg.", "exp_avg_sq."].map(|prefix| weights.take_prefix(prefix));
        if let Some((name, _)) = weights.iter().next() {
            let expected = "model., ema., exp_avg. or exp_avg_sq.";
            return Err(Error::format(
                file,
                "the beginning of a tensor's name",
                expected,
                name,
            ));
        }
        Ok(Self {
            ema: Ema {
                module: ema,
                decay: config.ema_decay,
            },
            optimizer: AdamW::restore(config.adamw(), &model, step, moments)?,
            model,
            step,
        })
    }
}
