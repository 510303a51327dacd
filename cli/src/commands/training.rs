//! What the trainings share.

pub mod latents;
pub mod run;
pub mod watch;

use anyhow::Result;
use std::ops::ControlFlow;
use tessera::gen_ar::TransformerConfig;
pub use tessera::samples::{sample_requests, samples_file, write_samples};
use tessera::train::BoxError;

/// What an observer says of an epoch.
pub type Flow = Result<ControlFlow<()>, BoxError>;

/// A size of a transformer at most: larger ones overflow before they are out of memory.
const MOST: usize = 65_536;

/// Reads width,depth,heads; `example` is shown where that is none.
pub fn transformer(text: &str, example: &str) -> Result<TransformerConfig, String> {
    let parts: Result<Vec<usize>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    match parts.as_deref() {
        Ok(&[width, depth, heads]) if width.max(depth).max(heads) <= MOST => {
            Ok(TransformerConfig {
                width,
                depth,
                heads,
            })
        }
        _ => Err(format!(
            "expected width,depth,heads such as {example}, of {MOST} at most each; found {text}"
        )),
    }
}
