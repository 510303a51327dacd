//! State dicts inside training checkpoints: the weights as trained, their average, and what else a run keeps.

use crate::error::{Error, Result};
use crate::open::Checkpoint;
use crate::tensor::StoredTensor;
use std::collections::{BTreeMap, BTreeSet};

/// Where trainers put the weights, the likeliest first.
const RAW: [&str; 6] = [
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "net",
    "generator",
];
/// Where they put the average of the weights.
const EMA: [&str; 5] = [
    "model_ema",
    "ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema_state_dict",
];
/// What else they keep.
const OTHER: [&str; 14] = [
    "optimizer",
    "opt",
    "optimizer_states",
    "optimizer_state_dict",
    "optimizers",
    "scaler",
    "scheduler",
    "lr_scheduler",
    "lr_schedulers",
    "callbacks",
    "loops",
    "rng_state",
    "exp_avg",
    "exp_avg_sq",
];
/// What data-parallel wrappers put before every name.
const WRAPPER: &str = "module.";

/// Which weights of a training checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// As the last step left them.
    Raw,
    /// Their moving average, over what was not averaged (buffers).
    Ema,
}

impl Which {
    /// In a word, as on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ema => "ema",
        }
    }
}

/// The weights that were found in a checkpoint.
#[derive(Debug, Clone)]
pub struct StateDict {
    /// Tensors by the names that the model has for them.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// What of a training checkpoint they are; `None` where the file is a bare state dict.
    pub which: Option<Which>,
    /// The other parts of a training checkpoint, with how many tensors each has.
    pub left_out: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// The weights of a model: the whole file if it is a bare state dict, else those of a training checkpoint. Where
    /// `which` does not say, the average is taken if there is one; it replaces the raw weights name by name, since
    /// trainers average parameters and not buffers.
    ///
    /// # Errors
    /// [`Error::Format`] if `which` asks for what the file has not.
    pub fn state_dict(&self, which: Option<Which>) -> Result<StateDict> {
        let mut parts = BTreeMap::new();
        for name in self.tensors.keys() {
            *parts.entry(head(name).to_owned()).or_insert(0) += 1;
        }
        let first = |names: &[&'static str]| {
            names
                .iter()
                .find(|name| parts.contains_key(**name))
                .copied()
        };
        let (raw, ema) = (first(&RAW), first(&EMA));
        let known: BTreeSet<&str> = [&RAW[..], &EMA, &OTHER].concat().into_iter().collect();
        let container =
            (raw.is_some() || ema.is_some()) && parts.keys().all(|part| known.contains(&**part));
        if !container {
            return match which {
                Some(Which::Ema) => Err(Error::format(
                    &self.file,
                    "the content",
                    format!("averaged weights ({})", EMA.join(", ")),
                    "a bare state dict, which holds raw weights alone",
                )),
                _ => Ok(StateDict {
                    tensors: unwrapped(self.tensors.clone()),
                    which: None,
                    left_out: BTreeMap::new(),
                }),
            };
        }
        let absent = |what: &str, names: &[&str]| {
            let found: Vec<_> = parts.keys().map(String::as_str).collect();
            let expected = format!("{what} ({})", names.join(", "));
            Error::format(
                &self.file,
                "the content",
                expected,
                format!("{} only", found.join(", ")),
            )
        };
        let which = match (which, ema) {
            (Some(Which::Ema), None) => return Err(absent("averaged weights", &EMA)),
            (Some(Which::Ema), _) | (None, Some(_)) => Which::Ema,
            _ => Which::Raw,
        };
        let of =
            |part: Option<&str>| part.map_or_else(BTreeMap::new, |part| unwrapped(self.part(part)));
        let mut tensors = of(raw);
        match which {
            Which::Ema => tensors.extend(of(ema)),
            Which::Raw if raw.is_none() => return Err(absent("weights as trained", &RAW)),
            Which::Raw => {}
        }
        let used = [raw, ema.filter(|_| which == Which::Ema)];
        parts.retain(|part, _| !used.contains(&Some(part)));
        Ok(StateDict {
            tensors,
            which: Some(which),
            left_out: parts,
        })
    }

    /// The tensors whose name begins with `part.`, without it.
    pub fn part(&self, part: &str) -> BTreeMap<String, StoredTensor> {
        let prefix = format!("{part}.");
        let tensors = self.tensors.iter();
        tensors
            .filter_map(|(name, tensor)| {
                Some((name.strip_prefix(&prefix)?.to_owned(), tensor.clone()))
            })
            .collect()
    }
}

/// The first part of a name.
fn head(name: &str) -> &str {
    name.split_once('.').map_or(name, |(head, _)| head)
}

fn unwrapped(tensors: BTreeMap<String, StoredTensor>) -> BTreeMap<String, StoredTensor> {
    if tensors.is_empty() || !tensors.keys().all(|name| name.starts_with(WRAPPER)) {
        return tensors;
    }
    let tensors = tensors.into_iter();
    tensors
        .map(|(name, tensor)| (name[WRAPPER.len()..].to_owned(), tensor))
        .collect()
}
