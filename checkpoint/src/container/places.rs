//! Where weights are: the paths under which names fit an architecture.

use super::words::is_average;
use crate::architecture::{Architecture, SIGNATURES};
use std::collections::BTreeSet;

/// Weights that were found by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// What stands before each name; empty, or with a dot at its end.
    pub path: &'a str,
    /// What the weights are of.
    pub architecture: Architecture,
}

impl Place<'_> {
    /// Parts of the path.
    pub(super) fn depth(&self) -> usize {
        self.path.matches('.').count()
    }
}

/// Weights are looked for within so many containers.
const MAX_DEPTH: usize = 16;

/// Every path under which the names fit an architecture, outer ones first. What is inside another's path is left to
/// it, unless it is something else or an average.
pub(super) fn places<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Place<'a>> {
    let names: BTreeSet<&str> = names.into_iter().collect();
    let mut paths = BTreeSet::new();
    for name in &names {
        let dots = name.match_indices('.').map(|(at, _)| at + 1);
        for at in std::iter::once(0).chain(dots).take(MAX_DEPTH) {
            let begins = |(architecture, starts): &(Architecture, &[&str])| {
                name[at..].starts_with(starts[0]) && (at == 0 || !architecture.is_a_file())
            };
            if SIGNATURES.iter().any(begins) {
                paths.insert(&name[..at]);
            }
        }
    }
    let under = |path: &str, start: &str| {
        let whole = format!("{path}{start}");
        let mut after = names.range(whole.as_str()..);
        after.next().is_some_and(|name| name.starts_with(&whole))
    };
    let place = |path: &'a str| {
        let fits = |(architecture, starts): &&(Architecture, &[&str])| {
            !architecture.is_a_file() && starts.iter().all(|start| under(path, start))
        };
        let (architecture, _) = SIGNATURES.iter().find(fits)?;
        Some(Place {
            path,
            architecture: *architecture,
        })
    };
    let mut places: Vec<Place<'_>> = Vec::new();
    // In the order of their texts, so that an outer path comes before the inner ones.
    for place in paths.into_iter().filter_map(place) {
        let held = places.iter().any(|outer| {
            place.path.starts_with(outer.path)
                && !holds(outer.architecture, place.architecture)
                && !is_average(&place.path[outer.path.len()..])
        });
        if !held {
            places.push(place);
        }
    }
    places
}

/// Whether weights of `outer` may have those of `inner` among their own names.
fn holds(outer: Architecture, inner: Architecture) -> bool {
    let half = matches!(inner, Architecture::TinyEncoder | Architecture::TinyDecoder);
    outer != inner && !half
}
