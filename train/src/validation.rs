//! The losses on examples that are held out, an epoch a line.

use crate::error::Result;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tessera_checkpoint::write_atomically;

/// The log in a run's folder.
const VALIDATION_FILE: &str = "validation.jsonl";

/// The losses on held-out examples: `{"epoch","split","…"}`, a line per epoch.
#[derive(Debug, Clone)]
pub struct ValidationLog {
    file: PathBuf,
}

impl ValidationLog {
    /// That of the run in a folder.
    pub fn of(root: &Path) -> Self {
        Self {
            file: root.join(VALIDATION_FILE),
        }
    }

    /// Whether the loss of that epoch is in it.
    pub fn has(&self, epoch: u64) -> bool {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().any(|line| epoch_of(line) == Some(epoch))
    }

    /// Adds the loss of an epoch under its name. A resumed run comes by epochs that were measured before: those from
    /// here on are dropped.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&self, epoch: u64, name: &str, loss: f64) -> Result<()> {
        let known = fs::read_to_string(&self.file).unwrap_or_default();
        let before = |line: &&str| epoch_of(line).is_some_and(|at| at < epoch);
        let kept: Vec<_> = known.lines().filter(before).collect();
        let line = json!({ "epoch": epoch, "split": "val", name: loss });
        Ok(write_atomically(&self.file, |out| {
            for line in kept {
                writeln!(out, "{line}")?;
            }
            writeln!(out, "{line}")
        })?)
    }
}

fn epoch_of(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line).ok()?["epoch"].as_u64()
}
