//! Averages that do not have the names of what they are of: flat copies, whose names have lost their dots, and lists.

use super::state_dict::Names;
use super::words;
use crate::tensor::StoredTensor;
use std::collections::BTreeMap;

/// Where an average is, and its tensors by the names of the weights.
type Average<'a> = (String, BTreeMap<String, &'a StoredTensor>);
type Weights<'a> = BTreeMap<String, &'a StoredTensor>;

/// The average of the `weights` at `path`, if there is one; why one is not used goes into `kinds`.
pub(super) fn without_names<'a>(
    names: &Names<'a>,
    path: &str,
    weights: &Weights<'a>,
    kinds: &mut BTreeMap<String, String>,
) -> Option<Average<'a>> {
    let mut groups: BTreeMap<&str, BTreeMap<&str, &'a StoredTensor>> = BTreeMap::new();
    for (name, tensor) in names {
        let Some((group, last)) = name.rsplit_once('.') else {
            continue;
        };
        if words::is_average(group) {
            groups.entry(group).or_default().insert(last, tensor);
        }
    }
    let mut by_depth: Vec<_> = groups.into_iter().collect();
    by_depth.sort_by_key(|(group, _)| group.split('.').count());
    for (group, tensors) in by_depth {
        let found = match listed(&tensors) {
            Some(list) => in_order(&list, weights),
            None => flat(&tensors, path, weights).ok_or(""),
        };
        match found {
            Ok(found) => return Some((format!("{group}."), found)),
            Err("") => {}
            Err(why) => {
                kinds.insert(group.into(), why.into());
            }
        }
    }
    None
}

/// Latent diffusion's `LitEma` takes the dots out of names, which it has from some part of the path on.
fn flat<'a>(
    tensors: &BTreeMap<&str, &'a StoredTensor>,
    path: &str,
    weights: &Weights<'a>,
) -> Option<Weights<'a>> {
    let begins = std::iter::once(0).chain(path.match_indices('.').map(|(at, _)| at + 1));
    let found = begins.map(|begin| {
        let averaged = weights.iter().filter_map(|(name, weight)| {
            let whole = format!("{}{name}", &path[begin..]).replace('.', "");
            let average = tensors.get(whole.as_str())?;
            (average.shape() == weight.shape()).then(|| (name.clone(), *average))
        });
        averaged.collect::<Weights<'a>>()
    });
    found
        .max_by_key(Weights::len)
        .filter(|found| 2 * found.len() > weights.len())
}

/// The tensors of a list in its order.
fn listed<'a>(tensors: &BTreeMap<&str, &'a StoredTensor>) -> Option<Vec<&'a StoredTensor>> {
    let mut list = Vec::new();
    for (index, tensor) in tensors {
        list.push((index.parse::<usize>().ok()?, *tensor));
    }
    list.sort_by_key(|(index, _)| *index);
    let whole = list.iter().enumerate().all(|(at, (index, _))| at == *index);
    whole.then(|| list.into_iter().map(|(_, tensor)| tensor).collect())
}

/// A list is in the order of the parameters, among which a state dict has its buffers: each tensor is of the next
/// weight with its shape. If another order fits as well, nothing is known.
fn in_order<'a>(
    list: &[&'a StoredTensor],
    weights: &Weights<'a>,
) -> Result<Weights<'a>, &'static str> {
    let mut ordered = Vec::new();
    for (name, weight) in weights {
        let position = weight
            .position()
            .ok_or("a list, and this format keeps no order of names: it is not used")?;
        ordered.push((position, name, *weight));
    }
    ordered.sort_by_key(|(position, ..)| *position);
    let next = |average: &StoredTensor, mut order: Box<dyn Iterator<Item = usize> + '_>| {
        order.find(|&at| ordered[at].2.shape() == average.shape())
    };
    let mut from = 0;
    let first = list.iter().map(|average| {
        let at = next(average, Box::new(from..ordered.len()))?;
        from = at + 1;
        Some(at)
    });
    let first: Option<Vec<usize>> = first.collect();
    let mut to = ordered.len();
    let last = list.iter().rev().map(|average| {
        to = next(average, Box::new((0..to).rev()))?;
        Some(to)
    });
    let last: Option<Vec<usize>> = last.collect();
    let (Some(first), Some(mut last)) = (first, last) else {
        return Err("a list that does not have the shapes of the weights: it is not used");
    };
    last.reverse();
    if first != last {
        return Err("a list that fits the weights in several ways: it is not used");
    }
    let named = first.iter().zip(list);
    Ok(named
        .map(|(&at, average)| (ordered[at].1.clone(), *average))
        .collect())
}
