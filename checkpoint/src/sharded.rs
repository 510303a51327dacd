//! Safetensors in several files, with an index of JSON that says which tensor is where.

use crate::error::{Error, Result};
use crate::safetensors_file::{self, Parsed};
use crate::source::Source;
use crate::tensor::StoredTensor;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::sync::Arc;

/// What the name of an index ends with; the part before it is the name of the whole.
pub(crate) const INDEX_SUFFIX: &str = ".index.json";

/// An index longer than the longest header has no reason.
const MAX_INDEX_BYTES: u64 = 100_000_000;

/// The index: `model.safetensors.index.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Index {
    #[serde(default)]
    pub metadata: IndexMetadata,
    /// The file of each tensor, beside the index.
    pub weight_map: BTreeMap<String, String>,
}

/// What an index says of the whole.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct IndexMetadata {
    /// Bytes of all tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_size: Option<u64>,
}

/// Opens every shard that the index names, and holds what they have against what it says.
pub(crate) fn open(source: &Source) -> Result<Parsed> {
    let path = source.name();
    if source.length() > MAX_INDEX_BYTES {
        let expected = format!("at most {MAX_INDEX_BYTES} bytes");
        return Err(Error::format(
            path,
            "the length of the index",
            expected,
            source.length(),
        ));
    }
    let text = source.window(0..source.length())?;
    let index: Index = serde_json::from_slice(&text).map_err(|fault| Error::Json {
        file: path.into(),
        source: fault,
    })?;
    let files: BTreeSet<&String> = index.weight_map.values().collect();
    let mut whole = Parsed {
        metadata: BTreeMap::new(),
        tensors: BTreeMap::new(),
        summed: !files.is_empty(),
    };
    for file in files {
        let shard = open_shard(path, file)?;
        for name in shard.tensors.keys() {
            if index.weight_map.get(name) != Some(file) {
                let found = index.weight_map.get(name).map_or("absent", |file| file);
                return Err(Error::format(
                    path,
                    format!("the file of `{name}`"),
                    file,
                    found,
                ));
            }
        }
        whole.summed &= shard.summed;
        whole.metadata.extend(shard.metadata);
        whole.tensors.extend(shard.tensors);
    }
    if let Some((name, file)) = index
        .weight_map
        .iter()
        .find(|(name, _)| !whole.tensors.contains_key(*name))
    {
        return Err(Error::format(
            path,
            format!("the tensor `{name}`"),
            format!("in {file}"),
            "absent there",
        ));
    }
    let total: u64 = whole.tensors.values().map(StoredTensor::length).sum();
    match index.metadata.total_size {
        Some(stated) if stated != total => Err(Error::format(
            path,
            "the size of all tensors",
            format!("{stated} bytes"),
            format!("{total} bytes"),
        )),
        _ => Ok(whole),
    }
}

fn open_shard(index: &Path, file: &str) -> Result<Parsed> {
    // A name with a path in it could reach anywhere.
    let mut parts = Path::new(file).components();
    if !matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    ) {
        let expected = "the name of a file beside the index";
        return Err(Error::format(
            index,
            "a shard",
            expected,
            format!("{file:?}"),
        ));
    }
    safetensors_file::open(&Arc::new(Source::open(&index.with_file_name(file))?))
}
