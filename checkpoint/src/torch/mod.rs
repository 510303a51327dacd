//! Files of `torch.save`.

use crate::error::Result;
use crate::source::Source;
use crate::tensor::StoredTensor;
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
    pub tensors: BTreeMap<String, StoredTensor>,
}

/// The container, by the first bytes.
pub(crate) fn recognise(_start: &[u8]) -> Option<Kind> {
    None
}

/// Opens a file.
pub(crate) fn open(_source: Arc<Source>) -> Result<Parsed> {
    Ok(Parsed { kind: Kind::Zip, metadata: BTreeMap::new(), tensors: BTreeMap::new() })
}
