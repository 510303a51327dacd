//! What the words in a path say: an average, the state of an optimizer; and the words by which weights of an unknown
//! architecture are found.

use super::state_dict::{StateDict, Which};
use crate::error::{Error, Result};
use crate::open::Checkpoint;
use crate::tensor::StoredTensor;
use std::collections::{BTreeMap, BTreeSet};

/// Where trainers put weights that no architecture here is known by, the likeliest first.
const RAW: [&str; 6] = [
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "net",
    "generator",
];
/// Where they put the average of these.
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
/// Words for averages.
const AVERAGES: [&str; 7] = ["ema", "emas", "shadow", "swa", "average", "averaged", "avg"];

/// Whether a part of the path speaks of an average: `model_ema`, `netG_ema`, `ema_0`, `shadow_params`.
pub(super) fn is_average(path: &str) -> bool {
    let word = |word: &str| {
        let word = word.to_ascii_lowercase();
        AVERAGES.contains(&word.trim_end_matches(|c: char| c.is_ascii_digit()))
    };
    let said = |part: &str| part.split(|c: char| !c.is_ascii_alphanumeric()).any(word);
    !is_of_an_optimizer(path) && path.split('.').any(said)
}

/// Whether the path is of an optimizer's state, which has the names of the parameters, or of a copy put aside.
pub(super) fn is_of_an_optimizer(path: &str) -> bool {
    path.split('.').any(|part| {
        let part = part.to_ascii_lowercase();
        part.starts_with("optim")
            || part.contains("momentum")
            || [
                "opt",
                "exp_avg",
                "exp_avg_sq",
                "max_exp_avg_sq",
                "grad",
                "grads",
                "collected_params",
            ]
            .contains(&&*part)
    })
}

/// The weights of no architecture that is known here: by the words of `RAW` and `EMA`, or the whole file.
pub(super) fn state_dict(checkpoint: &Checkpoint, which: Option<Which>) -> Result<StateDict> {
    let mut parts = BTreeMap::new();
    for name in checkpoint.tensors.keys() {
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
                &checkpoint.file,
                "the content",
                format!("averaged weights ({})", EMA.join(", ")),
                "a bare state dict, which holds raw weights alone",
            )),
            _ => Ok(StateDict {
                tensors: unwrapped(checkpoint.tensors.clone()),
                ..StateDict::default()
            }),
        };
    }
    let absent = |what: &str, names: &[&str]| {
        let found: Vec<_> = parts.keys().map(String::as_str).collect();
        let expected = format!("{what} ({})", names.join(", "));
        Error::format(
            &checkpoint.file,
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
    let of = |part: Option<&str>| {
        part.map_or_else(BTreeMap::new, |part| unwrapped(checkpoint.part(part)))
    };
    let mut tensors = of(raw);
    match which {
        Which::Ema => tensors.extend(of(ema)),
        Which::Raw if raw.is_none() => return Err(absent("weights as trained", &RAW)),
        Which::Raw => {}
    }
    let averaged = ema.filter(|_| which == Which::Ema);
    let used = [raw, averaged];
    parts.retain(|part, _| !used.contains(&Some(part)));
    Ok(StateDict {
        tensors,
        which: Some(which),
        path: raw.unwrap_or_default().into(),
        average: averaged.map(str::to_owned),
        left_out: parts,
        kinds: BTreeMap::new(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_told_from_moments_by_their_words() {
        for path in [
            "ema.",
            "model_ema.",
            "netG_ema.",
            "ema_0.9999.",
            "state_dict_ema.",
            "ema.shadow_params.",
        ] {
            assert!(is_average(path), "{path}");
        }
        for path in [
            "",
            "model.",
            "schema.",
            "exp_avg.",
            "optimizer.ema.",
            "ema.collected_params.",
        ] {
            assert!(!is_average(path), "{path}");
        }
    }
}
