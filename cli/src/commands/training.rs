//! What the trainings share.

pub mod latents;
pub mod run;
pub mod watch;

use anyhow::Result;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tessera::backend::ImageRequest;
use tessera::checkpoint::create_folder;
use tessera::gen_ar::TransformerConfig;
use tessera::pictures::{Existing, GridStyle, Pixels, grid, write_png};
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

/// Requests for a grid of samples with a column per class, of the first 10 at most; and its columns.
pub fn sample_requests(classes: usize) -> (Vec<ImageRequest>, usize) {
    const ROWS: usize = 4;
    let columns = classes.min(10);
    let request = |i| ImageRequest {
        class: Some(i % columns),
        seed: i as u64,
    };
    ((0..ROWS * columns).map(request).collect(), columns)
}

/// Writes a grid of pictures as `epoch-0005.png`.
///
/// # Errors
/// When it cannot be written.
pub fn write_samples(folder: &Path, epoch: u64, cells: &[Pixels], columns: usize) -> Result<()> {
    let picture = grid(cells, columns, GridStyle::default())?;
    create_folder(folder)?;
    Ok(write_png(
        samples_file(folder, epoch),
        &picture,
        &[],
        Existing::Replace,
    )?)
}

/// The grid of an epoch.
pub fn samples_file(folder: &Path, epoch: u64) -> PathBuf {
    folder.join(format!("epoch-{epoch:04}.png"))
}
