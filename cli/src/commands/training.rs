//! What the trainings of generators share.

use anyhow::Result;
use std::path::Path;
use tessera::backend::ImageRequest;
use tessera::checkpoint::create_folder;
use tessera::gen_ar::TransformerConfig;
use tessera::pictures::{Existing, GridStyle, Pixels, grid, write_png};

/// Reads width,depth,heads; `example` is shown where that is none.
pub fn transformer(text: &str, example: &str) -> Result<TransformerConfig, String> {
    let parts: Result<Vec<usize>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    match parts.as_deref() {
        Ok(&[width, depth, heads]) => Ok(TransformerConfig {
            width,
            depth,
            heads,
        }),
        _ => Err(format!(
            "expected width,depth,heads such as {example}; found {text}"
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
    let file = folder.join(format!("epoch-{epoch:04}.png"));
    Ok(write_png(file, &picture, &[], Existing::Replace)?)
}
