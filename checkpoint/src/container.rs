//! State dicts inside other things: the weights as trained, their average, and what else a file keeps.
//!
//! The search knows what it looks for. Where the names under a path fit an architecture, that path is a candidate,
//! whatever trainers and wrappers call it. Of several, a generator comes before a tokenizer before the rest, then the
//! shortest path. Two that are equal in that are refused by their paths.

mod average;
mod parts;
mod places;
mod state_dict;
mod words;

pub use state_dict::{StateDict, Which};

use crate::architecture::Architecture;
use crate::error::{Error, Result};
use crate::open::Checkpoint;
use crate::tensor::StoredTensor;
use places::{Place, places};
use state_dict::Names;
use std::collections::BTreeMap;

/// What wrappers put into the middle of names, too.
const WRAPPERS: [&str; 3] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

impl Checkpoint {
    /// The weights of a model, wherever they are in the file. Where `which` does not say, the average is taken if there
    /// is one; it replaces the raw weights name by name, since trainers average parameters and not buffers.
    ///
    /// # Errors
    /// [`Error::Format`] if `which` asks for what the file has not, or weights of one kind are in several places.
    pub fn state_dict(&self, which: Option<Which>) -> Result<StateDict> {
        self.state_dict_of(which, |_| true)
    }

    /// [`state_dict`](Self::state_dict) of the `wanted` architectures, where the file has one of them.
    ///
    /// # Errors
    /// As [`state_dict`](Self::state_dict).
    pub fn state_dict_of(
        &self,
        which: Option<Which>,
        wanted: impl Fn(Architecture) -> bool,
    ) -> Result<StateDict> {
        let names = self.names();
        let mut places = places(names.keys().map(String::as_str));
        places.retain(|place| !words::is_of_an_optimizer(place.path));
        let fits = |place: &&Place<'_>| wanted(place.architecture);
        let best = |places: &mut dyn Iterator<Item = &Place<'_>>| {
            places
                .min_by_key(|place| (place.architecture.rank(), place.depth()))
                .map(|place| place.architecture)
        };
        let architecture =
            best(&mut places.iter().filter(fits)).or_else(|| best(&mut places.iter()));
        match architecture {
            Some(architecture) if architecture.rank() < Architecture::FOREIGN => {
                self.found(&names, &places, architecture, which)
            }
            _ => words::state_dict(self, which),
        }
    }

    /// The weights of `architecture`, which one of the `places` has.
    fn found(
        &self,
        names: &Names<'_>,
        places: &[Place<'_>],
        architecture: Architecture,
        which: Option<Which>,
    ) -> Result<StateDict> {
        let of = |average: bool| {
            let places = places.iter().filter(move |place| {
                place.architecture == architecture && words::is_average(place.path) == average
            });
            places.copied().collect::<Vec<_>>()
        };
        let (raw, averaged) = (of(false), of(true));
        let one = |places: &[Place<'_>], what: &str| {
            self.one(names, places, architecture, what)
                .map(|place| place.map(|place| place.path.to_owned()))
        };
        let raw = match which {
            Some(Which::Ema) if !averaged.is_empty() => one(&raw, "").ok().flatten(),
            _ => one(&raw, "")?,
        };
        let mut weights = match &raw {
            Some(path) => parts::under(names, path, places),
            None => BTreeMap::new(),
        };
        let mut kinds = BTreeMap::new();
        let average = match which {
            Some(Which::Raw) => None,
            _ => match one(&averaged, "averaged ")? {
                Some(path) => Some((path.clone(), parts::under(names, &path, places))),
                None => {
                    let path = raw.as_deref().unwrap_or_default();
                    average::without_names(names, path, &weights, &mut kinds)
                }
            },
        };
        let which = match (which, &average, &raw) {
            (Some(Which::Ema), None, _) => {
                let not_used = kinds
                    .iter()
                    .map(|(path, why)| format!("; `{path}` is {why}"));
                let found = format!("raw weights alone{}", not_used.collect::<Vec<_>>().join(""));
                return Err(Error::format(
                    &self.file,
                    "the content",
                    format!("averaged weights of a {architecture}"),
                    found,
                ));
            }
            (Some(Which::Raw), _, None) => {
                let found = averaged.iter().map(|place| parts::shown(place.path));
                let found = found.collect::<Vec<_>>().join(", ");
                return Err(Error::format(
                    &self.file,
                    "the content",
                    format!("weights as trained of a {architecture}"),
                    format!("averaged ones alone, at {found}"),
                ));
            }
            (_, Some(_), _) => Which::Ema,
            (_, None, _) => Which::Raw,
        };
        let average = average.map(|(path, averaged)| {
            weights.extend(averaged);
            path
        });
        let home = raw.as_deref().or(average.as_deref()).unwrap_or_default();
        let left_out = parts::left_out(names, &weights, home, places, &mut kinds);
        let bare = |path: &str| path.split_terminator('.').all(|part| part == "module");
        let bare = average.is_none() && left_out.is_empty() && bare(home);
        let in_file = |path: &String| parts::in_file(names, path);
        Ok(StateDict {
            tensors: weights
                .into_iter()
                .map(|(name, tensor)| (name, tensor.clone()))
                .collect(),
            which: (!bare).then_some(which),
            path: raw.as_ref().map(in_file).unwrap_or_default(),
            average: average.as_ref().map(in_file),
            left_out,
            kinds,
        })
    }

    /// The place with the shortest path, if there is any.
    fn one<'a>(
        &self,
        names: &Names<'_>,
        places: &[Place<'a>],
        architecture: Architecture,
        what: &str,
    ) -> Result<Option<Place<'a>>> {
        let Some(depth) = places.iter().map(Place::depth).min() else {
            return Ok(None);
        };
        let mut nearest = places.iter().filter(|place| place.depth() == depth);
        let first = nearest.next().copied();
        let tensors = |place: &Place<'_>| parts::under(names, place.path, places);
        let differs = |place: &&Place<'_>| {
            let (mine, others) = (first.as_ref().map(tensors), tensors(place));
            !mine.is_some_and(|mine| parts::same(&mine, &others))
        };
        let others: Vec<_> = nearest.filter(differs).collect();
        match (first, &others[..]) {
            (first, []) => Ok(first),
            (first, others) => {
                let paths = first.iter().chain(others.iter().copied());
                let paths: Vec<_> = paths.map(|place| parts::shown(place.path)).collect();
                Err(Error::format(
                    &self.file,
                    format!("the place of the {what}weights"),
                    format!("one {architecture}"),
                    format!("several: {}", paths.join(", ")),
                ))
            }
        }
    }

    /// The names without what wrappers put into them.
    fn names(&self) -> Names<'_> {
        let mut names = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            let parts = name.split('.').filter(|part| !WRAPPERS.contains(part));
            names.insert(parts.collect::<Vec<_>>().join("."), tensor);
        }
        match names.len() == self.tensors.len() {
            true => names,
            // A name with and without its wrapper: they stay what they are.
            false => self
                .tensors
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor))
                .collect(),
        }
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
