//! Files of `torch.save`: a pickle that describes the tensors, and their storages beside it.

mod budget;
mod calls;
mod classes;
mod legacy;
mod pickle;
mod tensors;
mod value;
mod zip;

use crate::error::{Error, Result};
use crate::source::Source;
use crate::tensor::StoredTensor;
use budget::Budget;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The two containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Since PyTorch 1.6.
    Zip,
    /// Before.
    Legacy,
}

/// What a file holds.
pub(crate) struct Parsed {
    pub kind: Kind,
    pub metadata: BTreeMap<String, String>,
    /// Objects that are not read: their classes, by their paths.
    pub opaque: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, StoredTensor>,
}

impl Parsed {
    fn of(kind: Kind, content: tensors::Content) -> Self {
        let tensors::Content {
            metadata,
            opaque,
            tensors,
        } = content;
        Self {
            kind,
            metadata,
            opaque,
            tensors,
        }
    }
}

/// The container, by the first bytes.
pub(crate) fn recognize(start: &[u8]) -> Option<Kind> {
    if start.starts_with(zip::LOCAL_HEADER) {
        Some(Kind::Zip)
    } else if start.starts_with(legacy::MAGIC) {
        Some(Kind::Legacy)
    } else {
        None
    }
}

/// Opens a file. Reads its pickle and where the storages are, and no storage.
pub(crate) fn open(source: Arc<Source>) -> Result<Parsed> {
    let length = source.length().min(legacy::MAGIC.len() as u64);
    let start = source.window(0..length)?.to_vec();
    match recognize(&start) {
        Some(Kind::Zip) => open_zip(&source),
        Some(Kind::Legacy) => legacy::open(&source),
        None => {
            let found = format!("\"{}\"", start.escape_ascii());
            Err(Error::format(
                source.name(),
                "the start",
                "that of a file of torch.save",
                found,
            ))
        }
    }
}

fn open_zip(source: &Arc<Source>) -> Result<Parsed> {
    let entries = zip::entries(source)?;
    let mut roots = entries
        .keys()
        .filter_map(|name| name.strip_suffix("/data.pkl"));
    let root = match (roots.next(), roots.next()) {
        (Some(root), None) => root,
        (first, _) => {
            let found = first.map_or("none", |_| "several");
            return Err(Error::format(
                source.name(),
                "the archive",
                "one entry `…/data.pkl`",
                found,
            ));
        }
    };
    let byteorder = format!("{root}/byteorder");
    if let Some(place) = entries.get(&byteorder) {
        let order = zip::read(source, &byteorder, place)?;
        if order.trim_ascii() != b"little" {
            let found = format!("\"{}\"", order[..order.len().min(16)].escape_ascii());
            return Err(Error::format(
                source.name(),
                format!("entry `{byteorder}`"),
                "little",
                found,
            ));
        }
    }
    let name = format!("{root}/data.pkl");
    let pickle = zip::read(source, &name, &entries[&name])?;
    let object = pickle::unpickle(source.name(), &pickle, &mut Budget::of(source))?;
    let place = |key: &str| entries.get(&format!("{root}/data/{key}")).cloned();
    let content = tensors::collect(source, &pickle, &object, place)?;
    Ok(Parsed::of(Kind::Zip, content))
}
