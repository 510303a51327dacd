//! Files of JSON.

use crate::error::{Error, Result};
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use tessera_checkpoint::write_atomically;

/// Writes a value as JSON for people, with a line break at its end: whole or not at all. The folder is made if absent.
///
/// # Errors
/// When it cannot be written, or is no JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value).map_err(|source| Error::Json {
        file: path.into(),
        line: 1,
        source,
    })?;
    Ok(write_atomically(path, |file| writeln!(file, "{json}"))?)
}
