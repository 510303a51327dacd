//! Large models as several files and an index, as the field's hubs want them.

use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::safetensors_file::{Entry, write};
use crate::sharded::{INDEX_SUFFIX, Index, IndexMetadata};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// What [`write_shards`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shards {
    /// The files of tensors, in order.
    pub files: Vec<String>,
    /// Bytes of all tensors.
    pub total_size: u64,
}

/// Writes `stem.safetensors`, or where the tensors take more than `shard_bytes`, `stem-00001-of-0000N.safetensors` and
/// so on with `stem.safetensors.index.json`, which comes last. A tensor is never split. `done` is called after each.
/// What the folder had of that name in the other layout is removed in the end.
///
/// # Errors
/// [`Error::Io`].
pub fn write_shards(
    folder: &Path,
    stem: &str,
    metadata: &BTreeMap<String, String>,
    mut entries: Vec<Entry<'_>>,
    shard_bytes: u64,
    done: impl FnMut(),
) -> Result<Shards> {
    let done = RefCell::new(done);
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let total_size = entries.iter().map(|entry| entry.length() as u64).sum();
    let mut shards: Vec<Vec<Entry<'_>>> = vec![Vec::new()];
    let mut filled = 0;
    for entry in entries {
        let length = entry.length() as u64;
        if filled > 0 && filled + length > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += length;
        shards.last_mut().expect("there is always one").push(entry);
    }
    let count = shards.len();
    let name = |number: usize| match count {
        1 => format!("{stem}.safetensors"),
        _ => format!("{stem}-{number:05}-of-{count:05}.safetensors"),
    };
    let (mut weight_map, mut files) = (BTreeMap::new(), Vec::new());
    for (number, shard) in shards.into_iter().enumerate() {
        let file = name(number + 1);
        weight_map.extend(
            shard
                .iter()
                .map(|entry| (entry.name.to_string(), file.clone())),
        );
        let done = &done;
        let told = shard.into_iter().map(|entry| {
            let bytes = entry.bytes;
            Entry {
                bytes: Box::new(move |out| {
                    bytes(out)?;
                    (done.borrow_mut())();
                    Ok(())
                }),
                ..entry
            }
        });
        write(&folder.join(&file), metadata, told.collect())?;
        files.push(file);
    }
    let [whole, index] =
        ["", INDEX_SUFFIX].map(|end| folder.join(format!("{stem}.safetensors{end}")));
    if count > 1 {
        let path = &index;
        let metadata = IndexMetadata {
            total_size: Some(total_size),
        };
        let json = serde_json::to_vec_pretty(&Index {
            metadata,
            weight_map,
        })
        .map_err(|source| Error::Json {
            file: path.into(),
            source,
        })?;
        write_atomically(path, |file| file.write_all(&json))?;
    }
    // What the folder held before in the other layout would be read in place of this.
    let stale = if count > 1 { &whole } else { &index };
    match std::fs::remove_file(stale) {
        Err(fault) if fault.kind() != ErrorKind::NotFound => {
            return Err(Error::io("cannot remove", stale)(fault));
        }
        _ => {}
    }
    Ok(Shards { files, total_size })
}
