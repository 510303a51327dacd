//! The parts of a checkpoint: what is under a path, and what is left beside it.

use super::places::Place;
use super::state_dict::Names;
use super::words;
use crate::tensor::StoredTensor;
use std::collections::{BTreeMap, BTreeSet};

/// The tensors under a path without it, less those of other weights that are inside.
pub(super) fn under<'a>(
    names: &Names<'a>,
    path: &str,
    places: &[Place<'_>],
) -> BTreeMap<String, &'a StoredTensor> {
    let inner: Vec<&str> = places
        .iter()
        .map(|place| place.path)
        .filter(|inner| inner.len() > path.len() && inner.starts_with(path))
        .collect();
    let average = |rest: &str| {
        rest.rsplit_once('.')
            .is_some_and(|(parts, _)| words::is_average(parts))
    };
    let mut found = BTreeMap::new();
    for (name, tensor) in names.range(path.to_owned()..) {
        let Some(rest) = name.strip_prefix(path) else {
            break;
        };
        if !average(rest) && !inner.iter().any(|inner| name.starts_with(inner)) {
            found.insert(rest.to_owned(), *tensor);
        }
    }
    found
}

/// Whether both are the same bytes of the file under the same names.
pub(super) fn same(
    one: &BTreeMap<String, &StoredTensor>,
    other: &BTreeMap<String, &StoredTensor>,
) -> bool {
    let equal = |(one, other): ((&String, &&StoredTensor), (&String, &&StoredTensor))| {
        one.0 == other.0 && one.1.is_at_the_place_of(other.1)
    };
    one.len() == other.len() && one.iter().zip(other).all(equal)
}

/// How many tensors each part has that is not among the weights taken, by its path; what it is goes into `kinds`.
pub(super) fn left_out(
    names: &Names<'_>,
    taken: &BTreeMap<String, &StoredTensor>,
    home: &str,
    places: &[Place<'_>],
    kinds: &mut BTreeMap<String, String>,
) -> BTreeMap<String, usize> {
    let taken: BTreeSet<&str> = taken.values().map(|tensor| tensor.name()).collect();
    let mut parts = BTreeMap::new();
    for (name, tensor) in names {
        // The raw value of what an average was taken of is no part of its own.
        let of_home = name.strip_prefix(home).is_some_and(|rest| {
            !rest
                .rsplit_once('.')
                .is_some_and(|(rest, _)| words::is_average(rest))
        });
        let place = places
            .iter()
            .filter(|place| place.path.len() > home.len() && name.starts_with(place.path))
            .min_by_key(|place| place.path.len());
        if taken.contains(tensor.name()) || (of_home && place.is_none()) {
            continue;
        }
        let part = part_of(name, home);
        if let Some(place) = place {
            let average = if words::is_average(place.path) {
                "averaged weights of a "
            } else {
                ""
            };
            let kind = format!("{average}{}", place.architecture);
            kinds.entry(part.to_owned()).or_insert(kind);
        }
        *parts.entry(part.to_owned()).or_insert(0) += 1;
    }
    // What was found out of a path inside a part is said of the part.
    for (path, why) in std::mem::take(kinds) {
        let inside = |part: &&String| {
            path.strip_prefix(part.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if let Some(part) = parts.keys().find(inside) {
            kinds.insert(part.clone(), why);
        }
    }
    for part in parts.keys() {
        if let Some(kind) = kind(part) {
            kinds.entry(part.clone()).or_insert_with(|| kind.into());
        }
    }
    parts
}

/// The beginning of a name, as long as it must be to differ from the path of the weights.
fn part_of<'a>(name: &'a str, home: &str) -> &'a str {
    let mut dots = name.match_indices('.').map(|(at, _)| at);
    dots.find(|&at| !home.starts_with(&name[..=at]))
        .map_or(name, |at| &name[..at])
}

/// What the path itself says.
fn kind(part: &str) -> Option<&'static str> {
    let has = |word: &str| part.to_ascii_lowercase().contains(word);
    Some(match () {
        () if words::is_of_an_optimizer(part) => "state of an optimizer",
        () if words::is_average(part) => "an average of other weights",
        () if has("rng") || has("random") => "state of a random generator",
        () if has("discriminator") || has("loss") => "a part of training",
        () => return None,
    })
}

/// A path as the file has it, without its last dot.
pub(super) fn in_file(names: &Names<'_>, path: &str) -> String {
    let first = names
        .range(path.to_owned()..)
        .next()
        .filter(|(name, _)| name.starts_with(path));
    let whole = first.and_then(|(name, tensor)| tensor.name().strip_suffix(&name[path.len()..]));
    whole.unwrap_or(path).trim_end_matches('.').into()
}

/// A path in an error.
pub(super) fn shown(path: &str) -> String {
    match path.trim_end_matches('.') {
        "" => "the file itself".into(),
        path => format!("`{path}`"),
    }
}
